"""Patterns of sources and the names they give."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.discovery import Discovery, Source, State
from kernels.kernelspec import kernel_names
from kernels.sources import DEFAULT_SOURCES, environment_name, fill, roots
from tests.kernels.conftest import MakePrefix


def test_one_pattern_covers_every_team_by_its_name(make_prefix: MakePrefix, roots: Path) -> None:
    make_prefix("torch", root="teams/vision/envs")
    make_prefix("rna", root="teams/bio/envs")
    found = Discovery().scan([Source("team-{1}", f"{roots}/teams/*/envs/*", "team: {1}")])
    assert [(e.place.source, e.place.label, e.place.environment) for e in found] == [
        ("team-bio", "team: bio", "rna"),
        ("team-vision", "team: vision", "torch"),
    ]
    names = kernel_names([(e.place, "python3") for e in found])
    assert names == ["conda-team-bio-rna-python3", "conda-team-vision-torch-python3"]


def test_the_default_sources_cover_all_scopes_without_knowing_the_teams() -> None:
    ids = list(dict.fromkeys(source.id for source in DEFAULT_SOURCES))
    assert ids == ["image", "shared", "team-{1}", "course-{1}", "personal"]


@given(st.text(max_size=30), st.lists(st.text(max_size=10), max_size=4))
def test_a_template_takes_any_name_as_it_is(template: str, captures: list[str]) -> None:
    filled = fill(template, captures)
    assert filled == template or "{" in template
    assert fill("{1}", ["{1}{2}", "x"]) == "{1}{2}"  # a folder's name is no template


def test_hidden_folders_match_only_where_the_pattern_says_so(tmp_path: Path) -> None:
    for folder in ("a/.pixi/envs", ".b/.pixi/envs"):
        (tmp_path / folder).mkdir(parents=True)
    found = roots(Source("x", f"{tmp_path}/*/.pixi/envs/*"))
    assert [(root.folder, root.captures) for root in found] == [
        (f"{tmp_path}/a/.pixi/envs", ("a",))
    ]


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("/home/a/.conda/envs/torch", "torch"),
        ("/home/a/.conda/envs/env", "env"),
        ("/home/a/rna/.pixi/envs/default", "rna"),
        ("/home/a/rna/.pixi/envs/gpu", "rna-gpu"),
        ("/home/a/rna/env", "rna-env"),
        ("/home/a/rna/.conda", "rna-conda"),
        ("/home/a/miniforge3", "miniforge3"),
        ("/", ""),
    ],
)
def test_an_environment_is_called_after_its_folder_or_its_project(prefix: str, name: str) -> None:
    assert environment_name(prefix) == name


def test_environments_txt_is_read_and_never_written(make_prefix: MakePrefix, roots: Path) -> None:
    listed, known = make_prefix("env", root="project"), make_prefix("data")
    file = roots / "environments.txt"
    file.write_text(f"{listed}\n\n{known}/\nrelative\n/gone\n{roots}/project/../project/env\n")
    before = file.stat()
    found = Discovery().scan([Source("image", f"{roots}/envs/*"), Source("personal", f"@{file}")])
    assert [(e.place.source, e.place.environment) for e in found] == [
        ("image", "data"),
        ("personal", "project-env"),
    ]
    assert file.stat() == before


def test_an_environments_txt_that_is_a_pipe_or_huge_stops_nothing(roots: Path) -> None:
    os.mkfifo(roots / "pipe")
    (roots / "huge").write_text("/x\n" * 2_000_000)
    sources = [Source("personal", f"@{roots}/{name}") for name in ("pipe", "huge", "none")]
    assert Discovery().scan(sources) == []


def test_a_pixi_prefix_is_an_environment(make_prefix: MakePrefix, roots: Path) -> None:
    prefix = make_prefix("default", root="rna/.pixi/envs")
    (prefix / "conda-meta/history").rename(prefix / "conda-meta/pixi")
    found = Discovery().scan([Source("personal", f"{roots}/*/.pixi/envs/*")])
    assert [(e.place.environment, e.state) for e in found] == [("rna", State.HEALTHY)]
