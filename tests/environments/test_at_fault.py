"""A failed choice of packages names the one at fault, and nothing that only an admin has."""

from __future__ import annotations

from pathlib import Path

import pytest

from environments import errors
from environments.builds import messages
from environments.channel import Source
from environments.errors import ChannelError, LockError, NoSuchPackage
from environments.offline.names import pypi_names
from environments.package_names import near
from environments.pip_words import explain
from environments.solve import solve

from .conftest import TinyChannel, WriteSpec


@pytest.fixture
def source(channel: TinyChannel) -> Source:
    return Source("conda-forge", "https://channel.invalid/conda-forge/", str(channel.folder))


NOTHING = (
    "ERROR: Could not find a version that satisfies the requirement {0} (from versions: none)\n"
    "ERROR: No matching distribution found for {0}\n"
)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (NOTHING.format("numpyy"), NoSuchPackage,
         "has no “numpyy” for Python 3.13. Did you mean numpy"),
        (NOTHING.format("sklearn"), NoSuchPackage, "Did you mean scikit-learn?"),
        (NOTHING.format("xqzwv-qq"), NoSuchPackage, "has no “xqzwv-qq” for Python 3.13."),
        (NOTHING.format("Pandas[all]>=2 (from x)"), NoSuchPackage,
         "no wheel of “pandas” for Python"),
        ("WARNING: Location 'file:///x/' is ignored\n" + NOTHING.format("numpyy"), NoSuchPackage,
         "“numpyy”"),
        ("ERROR: Could not find a version that satisfies the requirement numpy==99 "
         "(from versions: 1.26.4, 2.0.0, 2.10.0, 2.9.0)\n", NoSuchPackage,
         "“numpy==99”: the package index has no such version of “numpy” for Python 3.13. It has "
         "2.10.0, 2.9.0, 2.0.0, 1.26.4."),
        ("WARNING: Retrying (Retry(total=0)) after connection broken\n" + NOTHING.format("six"),
         ChannelError, "does not answer"),
        ("ERROR: Cannot install a and b because these package versions have conflicting "
         "dependencies.\n\nThe conflict is caused by:\n    a 1.0 depends on c>=2\n"
         "    b 2.0 depends on c<2\n\nTo fix this you could try to:\n1. loosen", LockError,
         "Loosen one of them:\na 1.0 depends on c>=2\nb 2.0 depends on c<2"),
        ("ERROR: something new at https://me:secret@index.example/simple", LockError,
         "something new at https://index.example/simple"),
    ],
)  # fmt: skip
def test_pips_words_are_read(said: str, kind: type[Exception], words: str) -> None:
    error = explain("mine", said, "Python 3.13", pypi_names())
    assert type(error) is kind
    assert words in str(error)
    assert "PIP_" not in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("written", "meant"), [("numpyy", "numpy"), ("pandsa", "pandas"), ("matplotib", "matplotlib")]
)
def test_the_name_that_was_meant_comes_first(written: str, meant: str) -> None:
    assert near(written, pypi_names())[0] == meant


def test_a_channel_without_a_package_or_a_version_says_which(
    write_spec: WriteSpec, source: Source, tmp_path: Path
) -> None:
    """Not the innocent neighbours; several at once; and what there is instead."""
    target = tmp_path / "locks" / "x.lock"
    spec = write_spec("alpha", "bet", "nothing-like-it")
    with pytest.raises(NoSuchPackage) as caught:
        solve(spec, [source], target, tmp_path / "cache")
    lines = str(caught.value).splitlines()[1:-1]
    assert lines == [
        "“bet” is in none of the channels conda-forge. Did you mean beta?",
        "“nothing-like-it” is in none of the channels conda-forge.",
    ]
    with pytest.raises(NoSuchPackage) as caught:
        solve(write_spec("beta", "alpha >=99"), [source], target, tmp_path / "cache")
    assert "“alpha >=99”: the channels conda-forge have no such version" in str(caught.value)
    assert "They have " in str(caught.value)


def test_trying_again_is_offered_only_where_it_can_help() -> None:
    for kind, helps in (
        ("spec", False), ("lock", False), ("package", False), ("kernel", False),
        ("policy", False), ("channel", True), ("disk", True), ("build", True),
    ):  # fmt: skip
        assert messages.can_help(messages.failed(kind, "x").as_json()) is helps, kind
    assert messages.can_help(messages.TIMED_OUT(seconds=3).as_json())
    assert messages.can_help(None)


def test_a_missing_kernel_is_a_package_to_add_and_no_word_of_a_builder() -> None:
    from environments.messages import making as texts

    error = errors.NoKernel(texts.KERNEL_WANTED(name="x", package="ipykernel"))
    kept = messages.failed(messages.kind_of(error), error.message).as_json()
    assert messages.missing_package(kept) == "ipykernel"
    odd = messages.failed("kernel", texts.KERNEL_WANTED(name="x", package="evil")).as_json()
    assert messages.missing_package(odd) is None
    assert messages.missing_package(messages.failed("kernel", "x").as_json()) is None
    assert messages.missing_package(messages.failed("lock", error.message).as_json()) is None
