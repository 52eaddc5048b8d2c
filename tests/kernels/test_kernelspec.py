"""What kernels are called, and what a kernel.json may say."""

from __future__ import annotations

import json
import re
from string import Template

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.kernelspec import (
    MAX_BYTES,
    Place,
    SpecError,
    check_document,
    display_name,
    kernel_name,
    kernel_names,
    load_document,
    native_spec,
    plain_spec,
)

IPYKERNEL = {
    "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
}
PREFIX = "/opt/conda/envs/py313-data"
IMAGE = Place("image", "", PREFIX, "py313-data", "1", "3.13.5")

any_text = st.text(max_size=300)
# Few letters, so that collisions are common.
short = st.text("aAb-. é", min_size=0, max_size=4)


def places(texts: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[Place, str]]:
    return st.builds(
        lambda source, env, own: (Place(source, "", f"/{source}/{env}", env), own),
        texts,
        texts,
        texts,
    )


@given(st.lists(places(any_text | short), max_size=30, unique_by=lambda k: (k[0].prefix, k[1])))
def test_names_are_valid_short_and_all_different(kernels: list[tuple[Place, str]]) -> None:
    names = kernel_names(kernels)
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"conda-[a-z0-9._-]+", name)
        assert len(name) <= 128


@given(st.lists(places(short), min_size=1, max_size=12, unique_by=lambda k: (k[0].prefix, k[1])))
def test_a_kernels_name_is_its_own_whatever_else_comes_or_goes(kernels) -> None:
    """Kind: names that others change. Each has the name that it would have by itself, and
    its earlier names say of one kernel at most that it is meant.
    """
    assert kernel_names(kernels) == [kernel_names([each])[0] for each in kernels]
    assert kernel_names(kernels) == [kernel_name(*each) for each in kernels]


def test_a_kernel_is_named_after_source_environment_and_kernel() -> None:
    assert kernel_names([(IMAGE, "python3")]) == ["conda-image-py313-data-python3"]


@pytest.mark.parametrize(
    "places",
    [
        [("personal", "/home/a/.conda/envs/Deep", "Deep"), ("personal", "/h/deep", "deep")],
        [("team-a", "/t/a/envs/b-c", "b-c"), ("team-a-b", "/t/a-b/envs/c", "c")],
        [("course-a_b", "/t/a_b/envs/c", "c"), ("course-a.b", "/t/a.b/envs/c", "c")],
        [("image", "/opt/conda/envs/" + "x" * 40, "x" * 40), ("image", "/y", "x" * 36)],
        [("personal", "/h/数据", "数据"), ("personal", "/h/模型", "模型")],
    ],
)  # fmt: skip
def test_names_that_could_be_anothers_have_a_hash_from_the_beginning(places) -> None:
    """Kind: collisions. Which of two was there first, or is there at all, says nothing."""
    kernels = [(Place(s, "", prefix, name), "python3") for s, prefix, name in places]
    names = kernel_names(kernels)
    assert len(set(names)) == len(names)
    assert names == [kernel_names([each])[0] for each in kernels]


def test_kernels_own_names_with_a_dash_cannot_be_taken_for_environments() -> None:
    one = Place("image", "", "/opt/conda/envs/a", "a")
    other = Place("image", "", "/opt/conda/envs/a-b", "a-b")
    first, second = kernel_names([(one, "b-c"), (other, "c")])
    assert second == "conda-image-a-b-c"
    assert re.fullmatch(r"conda-image-a-b-c-[0-9a-f]{8}", first)


def test_a_name_that_looks_like_anothers_hashed_name_takes_nothing_from_it() -> None:
    upper = Place("personal", "", "/home/a/Deep", "Deep")
    lower = Place("personal", "", "/home/a/deep", "deep")
    [hashed] = kernel_names([(upper, "x")])
    stolen = Place("personal", "", "/home/a/deep-x", "deep-x")
    own = hashed.removeprefix("conda-personal-deep-x-")
    names = kernel_names([(upper, "x"), (lower, "x"), (lower, f"x-{own}"), (stolen, own)])
    assert len(set(names)) == 4
    assert names == [
        kernel_names([each])[0]
        for each in [(upper, "x"), (lower, "x"), (lower, f"x-{own}"), (stolen, own)]
    ]


@pytest.mark.parametrize(
    ("place", "own_name", "shown"),
    [
        (IMAGE, "python3", "py313-data - Python 3.13"),
        (Place("team-bio", "team: bio", "/e/rna", "rna", None, "3.11.9"), "python3",
         "rna (team: bio) - Python 3.11"),
        (Place("image", "", "/e/r", "r", None, None), "ir", "r - R 4.4"),
        (Place("image", "", "/e/old", "old", None, "2.7"), "python3", "old - Python 2.7"),
        (Place("image", "", "/e/x", "x", None, "3.1300000"), "python3", "x - Python"),
    ],
)  # fmt: skip
def test_people_see_environment_source_and_language(place, own_name, shown) -> None:
    document = {**IPYKERNEL, "display_name": "R 4.4" if own_name == "ir" else "Python 3"}
    assert display_name(place, own_name, check_document(document, place.prefix)) == shown


def test_a_bare_program_is_the_environments_own() -> None:
    assert check_document(IPYKERNEL, PREFIX).argv[0] == f"{PREFIX}/bin/python"


def test_a_path_written_through_the_real_prefix_is_inside() -> None:
    document = {**IPYKERNEL, "argv": ["/builds/42/bin/python"]}
    assert check_document(document, "/envs/data", "/builds/42").argv == ("/builds/42/bin/python",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"argv": ["/bin/sh", "-c", "id"]}, "outside the environment"),
        ({"argv": [f"{PREFIX}/../../bin/sh"]}, "outside the environment"),
        ({"argv": [f"{PREFIX}-evil/bin/python"]}, "outside the environment"),
        ({"argv": ["bin/python"]}, "outside the environment"),
        ({"argv": [".."]}, "no program"),
        ({"argv": []}, "no argv"),
        ({"argv": "python"}, "not a list"),
        ({"argv": ["python", 3]}, "not a list"),
        ({"argv": ["python", "a\0b"]}, "cannot be used"),
        ({"argv": ["python"] * 65}, "more than 64"),
        ({"argv": ["python", "\ud800"]}, "cannot be used"),
        ({"display_name": 3}, "not a text"),
        ({"display_name": "x" * 201}, "longer than 200"),
        ({"env": {"A=B": "x"}}, "no variable's"),
        ({"env": {"A": 1}}, "not a text"),
        ({"env": []}, "env in kernel.json"),
        ({"interrupt_mode": "kill"}, "interrupt_mode"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"a": json.loads("[" * 30 + "]" * 30)}}, "nested too deeply"),
    ],
)
def test_a_kernel_json_that_cannot_be_trusted_is_refused_with_its_reason(change, reason) -> None:
    with pytest.raises(SpecError, match=re.escape(reason)):
        check_document({**IPYKERNEL, **change}, PREFIX)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 50_000, "nested too deeply"),
        (b" " * (MAX_BYTES + 1), "larger than 64 kB"),
        (b"9" * 5000, "not valid JSON"),
    ],
)
def test_bytes_that_are_no_document_are_refused_with_their_reason(raw, reason) -> None:
    with pytest.raises(SpecError, match=reason):
        load_document(raw)


@pytest.mark.parametrize("document", [[], None, "x", 3])
def test_a_document_that_is_no_object_is_refused(document) -> None:
    with pytest.raises(SpecError, match="not a JSON object"):
        check_document(document, PREFIX)


def test_a_kernel_json_cannot_choose_who_starts_it_or_what_is_said_of_it() -> None:
    metadata = {"kernel_provisioner": {"provisioner_name": "evil"}, "labcommons": {"prefix": "/"}}
    spec = check_document({**IPYKERNEL, "metadata": metadata}, PREFIX)
    native = native_spec(IMAGE, "python3", spec)["metadata"]
    assert native["kernel_provisioner"]["provisioner_name"] == "labcommons-conda"
    assert native["labcommons"]["prefix"] == PREFIX
    assert "kernel_provisioner" not in plain_spec(IMAGE, "python3", spec)["metadata"]


@given(st.text(alphabet="a$^{}P_ /é", min_size=1, max_size=20))
def test_a_prefix_with_dollars_survives_jupyters_templates(name: str) -> None:
    prefix = f"/envs/{name}"
    place = Place("personal", "", prefix, name)
    env = plain_spec(place, "python3", check_document(IPYKERNEL, prefix))["env"]
    given_path = {"PATH": "/usr/bin", "P": "wrong"}
    seen = {k: Template(v).safe_substitute(given_path) for k, v in env.items()}
    assert seen["CONDA_PREFIX"] == prefix
    assert seen["PATH"] == f"{prefix}/bin:/usr/bin"


def test_a_kernels_own_path_stays_behind_its_environments() -> None:
    spec = check_document({**IPYKERNEL, "env": {"PATH": "/x:${PATH}", "A": "${HOME}"}}, PREFIX)
    env = plain_spec(IMAGE, "python3", spec)["env"]
    assert env["PATH"] == f"{PREFIX}/bin:/x:${{PATH}}"
    assert env["A"] == "${HOME}"
