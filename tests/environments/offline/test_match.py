"""Requirements of wheels, read by conda: the same versions as PyPI's own reading."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version
from rattler import BuildString, MatchSpec, PackageRecord

from environments.offline.match import match_spec

numbers = st.integers(0, 12)
releases = st.lists(numbers, min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))


def maybe(*words: str) -> st.SearchStrategy[str]:
    """Nothing, or one of some words with a number behind it."""
    return st.just("") | st.tuples(st.sampled_from(words), numbers.map(str)).map("".join)


epochs = st.sampled_from(["", "", "", "1!"])
# Not "+0": conda takes it for nothing, so that of two such versions it knows one.
locals_ = st.sampled_from(["", "", "+cu121", "+abc.5", "+1"])
publics = st.tuples(
    epochs, releases, maybe("a", "b", "rc"), maybe(".post", "-"), maybe(".dev")
).map("".join)
versions = st.tuples(publics, locals_).map(lambda parts: str(Version("".join(parts))))
ordered = st.tuples(st.sampled_from([">=", "<=", ">", "<", "~="]), publics).map("".join)
exact = st.tuples(st.sampled_from(["==", "!=", "==="]), publics, locals_).map("".join)
wild = st.tuples(st.sampled_from(["==", "!="]), epochs, releases).map(lambda p: f"{''.join(p)}.*")
specifiers = st.lists(ordered | exact | wild, max_size=3).map(",".join)


def conda_says(spec: str, version: str) -> bool:
    record = PackageRecord("x", version, BuildString("0"), 0, "noarch")
    return bool(MatchSpec(spec).matches(record))


@settings(max_examples=600, deadline=None)
@given(specifiers, st.lists(versions, min_size=1, max_size=8))
def test_conda_matches_what_pypi_means(text: str, known: list[str]) -> None:
    try:
        requirement = Requirement(f"x{text}")
    except InvalidRequirement:
        assume(False)
    spec = match_spec(requirement, known)
    for version in known:
        meant = requirement.specifier.contains(version, prereleases=True)
        assert conda_says(spec, version) == meant, (spec, version)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([">=", "<", "<=", "~=", "!="]), releases)
        .filter(lambda pair: pair[0] != "~=" or "." in pair[1])
        .map("".join)
        | wild,
        max_size=3,
    ).map(",".join),
    st.lists(releases, min_size=1, max_size=8),
)
def test_releases_need_no_exceptions_so_that_those_to_come_are_right_too(
    text: str, later: list[str]
) -> None:
    spec = match_spec(Requirement(f"x{text}"))
    for version in later:
        assert conda_says(spec, version) == Requirement(f"x{text}").specifier.contains(version)


@pytest.mark.parametrize(
    ("requirement", "known", "spec"),
    [
        ("Sphinx_basic.ng >=1.0.0.beta2", ["1.0.0b2", "0.1"], "sphinx-basic-ng >=1.0.0b2"),
        ("x>=2.0.0.rc1", ["2.0.0rc1", "2.0.0b9"], "x >=2.0.0rc1"),
        ("x==1.0-1", ["1.0.post1", "1.0"], "x ==1.0.post1"),
        ("x==1.0", ["1.0", "1.0+cu121"], "x ==1.0|==1.0+cu121"),
        ("x>1.0", ["1.0.post1", "1.1"], "x >1.0,!=1.0.post1"),
        ("x>=1.0a1", ["1.0.dev1", "1.0"], "x >=1.0a1,!=1.0.dev1"),
        ("x==2.*", ["2.5", "3.0"], "x 2.*"),
        ("x!=2.*,<4", ["2.5", "3.0"], "x !=2.*,<4"),
        ("x==1!2.0", ["1!2.0", "2.0"], "x ==1!2.0"),
        ("x===1.0", ["1.0", "1.0.0"], "x ==1.0,!=1.0.0"),
        ("x===anything", ["1.0"], "x ==0.dev0"),
        ("x", ["1.0"], "x"),
    ],
)
def test_requirements_as_conda_writes_them(requirement: str, known: list[str], spec: str) -> None:
    assert match_spec(Requirement(requirement), known) == spec
