"""What conda takes is taken, what it refuses is refused: its own answers are in conda/answers.json.

Where we differ the form is listed here with the reason. ``conda/record.py`` writes the answers down
by running conda.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rattler import MatchSpec

from environments.channel import canonical_url, local_folder
from environments.errors import SpecError
from environments.spec import parse_spec

TABLE = json.loads((Path(__file__).parent / "conda" / "answers.json").read_text("utf-8"))
ALIAS = "https://conda.example.org/"  # of conda, when it was asked

# Kinds of difference; below, the forms that are of each.
BLANKS = "blanks at the edges of a part mean nothing"
LOST = "conda drops a part without a word; it says here what it says"
NONSENSE = "conda reads what no package can match; refused with the reason"
GLOB = "a package is asked for by its name; conda's globs match any"
MACHINE = "what a machine has is told in labcommons.yml, not asked for"
REGEX = "the solver has no regular expressions for versions; refused"
KEYS = "a place or feature that a lock cannot be made from; refused with what is accepted"
SECRET = "a password in a file that others read"
COLONS = "colons that conda takes into the channel's name"
SPECS = {
    "  numpy": BLANKS,
    "foo =": BLANKS,
    "conda-forge:: numpy": BLANKS,
    "conda-forge ::numpy": BLANKS,
    "bioconda: bcftools": BLANKS,
    "foo (>=1,<2)": LOST,
    "foo (1.2 py_0)": LOST,
    "foo(1.2)": LOST,
    "foo(>=1.2)": LOST,
    "numpy(extra)": LOST,
    "blas[build = mkl]": LOST,
    "numpy[md5=abc]": NONSENSE,
    "foo 1.2 py_0 extra": NONSENSE,
    "foo 1.0 py27_0|py36_0": NONSENSE,
    'foo 1.0 "py_0"': NONSENSE,
    "numpy-": NONSENSE,
    "numpy.": NONSENSE,
    "numpy::1.20": NONSENSE,
    "numpy:1.20": NONSENSE,
    "1.20": NONSENSE,
    "./numpy-1.0-0.conda": NONSENSE,
    "numpy-1.0-0.conda": NONSENSE,
    "*": GLOB,
    "*numpy": GLOB,
    "num*": GLOB,
    "*py*": GLOB,
    "*::numpy": "any channel is what no channel says",
    "__cuda": MACHINE,
    "__cuda>=11": MACHINE,
    "__glibc>=2.17": MACHINE,
    "__linux": MACHINE,
    "__unix": MACHINE,
    "__archspec=1=x86_64": MACHINE,
    "foo 1.*.2": REGEX,
    "foo 1.*2": REGEX,
    "numpy ^1.20.*$": REGEX,
    "numpy ^1\\.[0-9]+$": REGEX,
    "numpy[url=https://example.org/linux-64/numpy-1.0-0.conda]": KEYS,
    "numpy[fn=numpy-1.0-0.conda]": KEYS,
    "numpy[track_features=mkl]": KEYS,
    "numpy[features=mkl]": KEYS,
    "https://user:pass@example.org/channel::numpy": SECRET,
    "conda-forge::ns:numpy": COLONS,
    "conda-forge:::numpy": COLONS,
    "a::b::numpy": COLONS,
    "pkgs/main::numpy": "conda says 'defaults' of both of that name's channels",
}

HEAD = "dependencies:\n  - python\n"
NAMED = "a name that is given beside the file counts, so what is in it need not be one"
OTHER = "the older reader of conda takes it letter by letter, or for nothing"
MORE = "more is read than by conda, which loses the first or ends in a traceback"
EMPTY = "an environment without packages has no kernel"
PIPS = "what pip would fetch from elsewhere is not the same tomorrow"
TAGS = "nothing in a file is made into an object"
FILES = {
    f"name: x\nchannels:\n{HEAD}": "empty as if it were not there: the site's default channels",
    f"name: x\nchannels: conda-forge\n{HEAD}": OTHER,
    f"name: x\nchannels: [nodefaults]\n{HEAD}": "no channel is left",
    f"name: x\nchannels: [1]\n{HEAD}": "a channel's name may be a number",
    "name: x\ndependencies:\n": EMPTY,
    "name: x\ndependencies: []\n": EMPTY,
    "name: x\ndependencies: {}\n": EMPTY,
    "name: x\ndependencies: python\n": OTHER,
    "name: x\n": EMPTY,
    "name: x\ndependencies:\n  - python\n  - ''\n": NONSENSE,
    "name: x\ndependencies:\n  - python: 3.9\n": "conda drops it; 'python 3.9' was meant",
    "name: x\ndependencies:\n  - python\n  - npm: [x]\n": "conda drops it without a word",
    "name: x\ndependencies:\n  - python\n  - bioconda: bcftools\n": "conda drops it",
    "name: x\ndependencies:\n  - true\n": "a name of letters is a name",
    "name: x\ndependencies:\n  - python\n  - pip:\n    -\n": "pip would be asked for 'None'",
    "name: x\ndependencies:\n  - python\n  - pip: requests\n": OTHER,
    "name: x\ndependencies:\n  - python\n  - pip:\n    - requests\n  - pip:\n    - rich\n": MORE,
    "name: x\ndependencies:\n  - python\n  - sel(linux): [numpy]\n": "mamba's, read as by mamba",
    f"name: x\nvariables: []\n{HEAD}": OTHER,
    f"name: x\nvariables:\n  FOO: [a]\n{HEAD}": "conda sets Python's way to write a list",
    f"name: x\nvariables:\n  FOO: {{a: b}}\n{HEAD}": "conda sets Python's way to write it",
    f"name: x\nvariables:\n  FOO: |\n    a\n    b\n{HEAD}": "variables are of one line",
    f"name: x\nvariables:\n  FOO:\n{HEAD}": "empty, where conda sets 'None'",
    f"name: x\nvariables:\n  FOO: 1.50\n{HEAD}": "as written",
    f"name: x\nvariables:\n  FOO: true\n{HEAD}": "as written",
    "name: x\ndependencies: !!set {python}\n": TAGS,
    f"name: !!python/name:os.system x\n{HEAD}": TAGS,
    f"name: x\nvariables: {{A: !!python/object/apply:os.system [true]}}\n{HEAD}": TAGS,
    f"name: x\nvariables: {{A: !env HOME}}\n{HEAD}": TAGS,
    f"name: x\nvariables: {{A: !!binary aGk=}}\n{HEAD}": TAGS,
    "name: x\ndependencies:\n  - >\n    python\n": BLANKS,
    "name: x\ndependencies:\n  - |\n    python\n": BLANKS,
    "Name: x\nDependencies:\n  - python\n": EMPTY,
    "name: x\ndependencies:\n  - python=3.10\n  - pip=22\n  - pip:\n"
    "      - -r requirements.txt\n": PIPS,
    "name: x\ndependencies:\n  - python\n  - pip:\n    - -e .\n": PIPS,
    "name: x\ndependencies:\n  - python\n  - pip:\n    - --index-url https://example.org/simple\n"
    "    - requests\n": PIPS,
    "name: x\ndependencies:\n  - python\n  - pip:\n    - git+https://example.org/a.git\n": PIPS,
    "name: x\ndependencies:\n  python\n": OTHER,
    "name: x\ndependencies:\n  python:\n  numpy:\n": OTHER,
    "@EXPLICIT\nhttps://example.org/linux-64/a-1-0.conda\n": "known for what it is, also here",
    "name: x\ndependencies:\n- python\n  - numpy\n": "two lines that became one by their indent",
}


def plain(version: str | None) -> str | None:
    """A version spec without the ways that there are to write the same."""
    if version is None:
        return None
    clauses = re.split(r"([,|])", version.lower())
    found = []
    for clause in clauses:
        operator, rest = re.fullmatch(r"([<>=!~]*)(.*)", clause).groups()  # type: ignore[union-attr]
        if operator in ("<", ">", "<=", ">="):
            rest = rest.rstrip("*").rstrip(".")
        elif rest.endswith("*") and rest != "*":
            rest = f"{rest.rstrip('*').rstrip('.')}.*"
        rest = re.sub(r"(^|\.)0+(?=\d)", r"\1", rest)
        if operator == ">=" and not rest:
            operator, rest = "", "*"
        found.append(f"{'' if operator == '==' else operator}{rest}")
    return "".join(found)


def channel(name: str | None) -> str | None:
    """A channel as conda called it when it was asked."""
    if name is None or name == "defaults":
        return name
    folder = local_folder(name)
    if folder is not None:
        return folder.as_uri()
    return canonical_url(name).replace(canonical_url("x").removesuffix("x/"), ALIAS).rstrip("/")


def ours(form: str) -> dict[str, str] | None:
    """What we read in one line; None where we refuse."""
    text = f"name: x\ndependencies:\n  - {json.dumps(form, ensure_ascii=False)}\n"
    try:
        (found,) = parse_spec(text, name=None).dependencies
    except SpecError:
        return None
    match = MatchSpec(found.spec)
    read = {
        "name": found.name,
        "version": plain(match.version),
        "build": str(match.build) if match.build else None,
        "channel": channel(found.channel),
        "subdir": match.subdir,
    }
    return {key: value for key, value in read.items() if value is not None}


def condas(answer: dict[str, str] | None) -> dict[str, str] | None:
    if answer and "version" in answer:
        return answer | {"version": str(plain(answer["version"]))}
    return answer


def test_a_line_of_dependencies_means_what_it_means_to_conda() -> None:
    """The kind: a form of match spec that conda takes and we refuse, or read as another thing."""
    differ = {form for form, answer in TABLE["specs"].items() if ours(form) != condas(answer)}
    assert differ == set(SPECS)
    assert len(TABLE["specs"]) > 400


def read_file(text: str) -> dict[str, Any] | None:
    try:
        spec = parse_spec(text, name="x")
    except SpecError:
        return None
    return {
        "channels": sorted({*spec.channels} - {*spec.appended}),
        "dependencies": sorted({item.name for item in spec.dependencies} - {"pip"}),
        "pip": sorted({re.split(r"[<>=]", item)[0] for item in spec.pip}),
        "variables": dict(spec.variables),
    }


def condas_file(answer: dict[str, Any] | None) -> dict[str, Any] | None:
    """conda's answer; that it adds pip to the packages counts for nothing here."""
    if answer is None:
        return None
    return {
        "channels": sorted({*answer["channels"]} - {"nodefaults"}),
        "dependencies": sorted({*answer["dependencies"]} - {"pip"}),
        "pip": sorted({re.split(r"[<>=]", item)[0] for item in answer["pip"]}),
        "variables": answer["variables"],
    }


def test_a_file_means_what_it_means_to_conda() -> None:
    """The kind: a file that conda takes and we refuse, or of which we read another thing.

    Where its two readers differ, the laxer one counts.
    """
    differ = {
        form
        for form, answer in TABLE["files"].items()
        if read_file(form) != condas_file(answer["strict"] or answer["lax"])
    }
    assert differ == set(FILES)
    assert len(TABLE["files"]) > 130


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: x\nchannels:\n  -\n  - a\n" + HEAD, 3),
        ("name: x\ndependencies:\n\n\n# nothing\n\nvariables: {}\n", 2),
        ("name: x\ndependencies:\n  - python\n  -\n\n  - numpy\n", 4),
        ("name: x\ndependencies:\n  - python\n  - pip:\n      -\n      - a\n", 5),
        ("name: x\ndependencies:\n  - python\n  - numpy:\n\n\nvariables: {}\n", 4),
        ("name: x\nchannels: {a: }\n\n" + HEAD, 2),
    ],
)
def test_what_is_empty_and_must_not_be_is_named_with_its_own_line(text: str, line: int) -> None:
    """The kind: a null value, named with the line after it."""
    with pytest.raises(SpecError, match=rf"environment\.yml, line {line}: "):
        parse_spec(text, name=None)


@pytest.mark.parametrize(
    ("more", "line", "words"),
    [
        ("extras:\n  a: [b]\n", 4, "'extras' counts for nothing"),
        ("category: dev\n", 4, "'category' counts for nothing"),
        ("platforms: [linux-64, osx-arm64]\n", 4, "platform 'osx-arm64' counts for nothing"),
        ("  - pywin32  # [win]\n", 4, r"'# \[win\]' is a comment to conda"),
        ("  - bioconda:bcftools\n", 4, "write 'bioconda::bcftools'"),
        ("  - requests[socks]\n", 4, "'socks' in brackets counts for nothing"),
    ],
)
def test_what_counts_for_nothing_is_told_and_refuses_nothing(
    more: str, line: int, words: str
) -> None:
    """The kind: what conda does not read is no reason to refuse a file (CEP 24)."""
    (remark,) = parse_spec(f"name: x\n{HEAD}{more}", name=None).remarks
    assert re.search(rf"environment\.yml, line {line}: .*{words}", str(remark))


def test_what_is_no_selector_is_not_spoken_of() -> None:
    text = f"name: x  # [linux]\n{HEAD}  - numpy  # see [1]\n  # - pywin32  # [win]\n"
    assert parse_spec(text, name=None).remarks == ()


def test_two_thousand_packages_are_read_with_their_versions() -> None:
    """The kind: a release file that names each package (QIIME 2: 727)."""
    lines = "".join(f"  - package-{n}=1.{n}.0=h{n:07x}_{n % 9}\n" for n in range(1999))
    spec = parse_spec(f"name: x\n{HEAD}{lines}", name=None)
    assert len(spec.dependencies) == 2000
    assert str(spec.dependencies[-1]) == "package-1998 ==1.1998.0 h00007ce_0"


@pytest.mark.parametrize(
    ("listed", "channels", "appended"),
    [
        ("", ["a", "b"], ["a", "b"]),
        ("channels:\n", ["a", "b"], ["a", "b"]),
        ("channels: []\n", ["a", "b"], ["a", "b"]),
        ("channels: [c]\n", ["c", "a", "b"], ["a", "b"]),
        ("channels: [b, c]\n", ["b", "c", "a"], ["a"]),
        ("channels: [c, nodefaults]\n", ["c"], []),
    ],
)
def test_the_sites_default_channels_come_after_those_of_the_file(
    listed: str, channels: list[str], appended: list[str]
) -> None:
    """The kind: a file that counts on the default channels that conda has."""
    text = f"name: x\n{listed}{HEAD}  - d::numpy\n"
    spec = parse_spec(text, name=None, defaults=("a", "b"))
    assert (list(spec.channels), list(spec.appended)) == (channels, appended)
    assert spec.all_channels == (*(c for c in channels if c not in appended), "d", *appended)
    # What another site would add is no reason to choose anew.
    assert spec.digest == parse_spec(text, name=None, defaults=("e",)).digest


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(9) + HEAD, "too many entries"),
        ("a: &a {b: *a}\n" + HEAD, "nested too deeply"),
        ("a: &a [*a, *a, *a]\n" + HEAD, "nested too deeply"),
        ("variables: &v\n  <<: *v\n  A: '1'\n" + HEAD, "nested too deeply"),
    ],
)
def test_aliases_are_followed_within_a_bound(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_spec(text, name="x")
