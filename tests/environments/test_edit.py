"""environment.yml changed by a program: any form that people write, every other line as it was."""

from __future__ import annotations

import pytest

from environments.edit import Change, changed, diff
from environments.errors import SpecError
from environments.spec import parse_spec

BLOCK = """\
name: x  # mine
channels: [conda-forge]
dependencies:
  - python 3.11.*   # keep
  - numpy<2
  # a comment
  - pip:
      - foo
      - "bar>=2"
variables: {A: "1"}
"""


def lines(before: str, change: Change, conda: tuple[str, ...] = ()) -> list[str]:
    """The lines that go and come."""
    after = changed(before, change, conda)
    return [line for line in diff(before, after).splitlines()[2:] if line[:1] in ("+", "-")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nchannels: [b, a]\n", ["c", "b", "a"]),
        ("---\nchannels:\n  - a  # first\n", ["b", "c", "a"]),
        ("channels:\n- c\n- a\n", ["b", "c", "a"]),
        ("---\nname: x\n", ["b", "c"]),
        ("channels:  # none\n", ["b", "c"]),
        ("channels: []\nname: x\n", ["b", "c"]),
        ("channels: null\n", ["b", "c"]),
        ('{"name": "x", ', ["b", "c"]),
        ('{"channels": ["a"], ', ["b", "c", "a"]),
    ],
)
def test_channels_come_first_and_those_that_are_listed_stay(text: str, expected: list[str]) -> None:
    """Kind: ``conda install -c``, for every form of a list of channels."""
    text += '"dependencies": ["python"]}' if text[0] == "{" else "dependencies:\n  - python\n"
    after = changed(text, Change(add=("torch",), channels=("b", "c")))
    found = parse_spec(after, name="x", defaults=())
    assert list(found.channels) == expected
    assert changed(after, Change(channels=("d",))) == after  # nothing is asked of it
    with pytest.raises(SpecError):
        changed(text, Change(add=("torch",), channels=("\n",)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change(add=("cowsay",)), ["+  - cowsay"]),
        (Change(add=("conda-forge::cowsay >=2",)), ["+  - conda-forge::cowsay >=2"]),
        (Change(pip=("cowsay",)), ["+      - cowsay"]),
        (Change(pip=('a; python_version < "3.9"',)), ['+      - a; python_version < "3.9"']),
        (Change(remove=("numpy",)), ["-  - numpy<2"]),
        (Change(remove=("Foo",)), ["-      - foo"]),
        # Of an empty section nothing is left.
        (Change(remove=("foo", "bar")), ["-  - pip:", "-      - foo", '-      - "bar>=2"']),
        # What is listed gets what is asked for now, where it is, with its comment.
        (Change(add=("numpy>=2",)), ["-  - numpy<2", "+  - numpy>=2"]),
        (Change(add=("python=3.12",)),
         ["-  - python 3.11.*   # keep", "+  - python=3.12   # keep"]),
        (Change(add=("numpy",)), []),
        # pip must not replace what conda brings: that is asked of conda.
        (Change(pip=("numpy==2.1",)), ["-  - numpy<2", "+  - numpy==2.1"]),
        (Change(pip=("foo[x]>3",)), ["-      - foo", "+      - foo[x]>3"]),
        # From one section to the other.
        (Change(add=("foo",)), ["+  - foo", "-      - foo"]),
    ],
)  # fmt: skip
def test_packages_come_and_go_and_nothing_else_changes(change: Change, expected: list[str]) -> None:
    assert lines(BLOCK, change) == expected
    parse_spec(changed(BLOCK, change), name="x")


def test_what_conda_brings_without_being_listed_is_asked_of_conda() -> None:
    assert lines(BLOCK, Change(pip=("Requests==2.30",)), ("requests",)) == ["+  - Requests==2.30"]
    with pytest.raises(SpecError, match="a package that it lists needs it"):
        changed(BLOCK, Change(remove=("requests",)), ("requests",))


@pytest.mark.parametrize(
    ("text", "change", "expected"),
    [
        ("dependencies: [a, b]", Change(add=("c",)), 'dependencies: [a, b, "c"]'),
        ("dependencies: []\n", Change(add=("c",)), 'dependencies: ["c"]\n'),
        ("dependencies: [a, b]", Change(pip=("c",)), 'dependencies: [a, b, {pip: ["c"]}]'),
        ("dependencies: [a, b]", Change(remove=("a",)), "dependencies: [b]"),
        ("dependencies: [a, b]", Change(remove=("b",)), "dependencies: [a]"),
        ("dependencies:\n- a", Change(add=("c",)), "dependencies:\n- a\n- c\n"),
        ("dependencies:\r\n- a\r\n", Change(add=("c",)), "dependencies:\n- a\n- c\n"),
        ("dependencies:\n- a\n- pip:\n", Change(pip=("c",)),
         "dependencies:\n- a\n- pip:\n    - c\n"),
        ("dependencies:\n- a\n- pip: []\n", Change(pip=("c",)),
         'dependencies:\n- a\n- pip: ["c"]\n'),
        ("dependencies:\n- pip:\n  - x\n", Change(add=("c",)),
         "dependencies:\n- c\n- pip:\n  - x\n"),
        ("dependencies:\n- a\nname: x\n", Change(pip=("c",)),
         "dependencies:\n- a\n- pip:\n    - c\nname: x\n"),
        ("dependencies:\n- a\n- b\n- A\n", Change(remove=("a",)), "dependencies:\n- b\n"),
    ],
)  # fmt: skip
def test_every_form_of_the_list_is_understood(text: str, change: Change, expected: str) -> None:
    assert changed(text, change) == expected


@pytest.mark.parametrize(
    "change",
    [
        Change(add=("",)),
        Change(add=("-e .",)),
        Change(add=("a\nb: c",)),
        Change(add=("a" * 501,)),
        Change(remove=("nothere",)),
        Change(add=("a",) * 101),
    ],
)
def test_what_is_no_package_or_is_not_there_is_told(change: Change) -> None:
    with pytest.raises(SpecError) as refused:
        changed(BLOCK, change)
    assert len(str(refused.value)) > 20


@pytest.mark.parametrize("text", ["name: x\n", "dependencies: numpy\n", "- a\n", "dependencies:\n"])
def test_a_file_without_a_list_is_told_to_be_changed_by_hand(text: str) -> None:
    with pytest.raises(SpecError, match="by hand"):
        changed(text, Change(add=("a",)))


def test_signs_that_yaml_would_take_are_put_in_quotes() -> None:
    text = changed(BLOCK, Change(pip=("a #b",)))
    assert '- "a #b"' in text
