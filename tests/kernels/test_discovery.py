"""What is found on disk, and what is said of that which cannot be used."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kernels import discovery
from kernels.discovery import Discovery, Environment, Source, State
from tests.kernels.conftest import IPYKERNEL, age, write_kernel, write_program


@pytest.fixture
def scan(roots: Path):
    found = Discovery()

    def run(*sources: Source) -> dict[str, Environment]:
        environments = found.scan(sources or [Source("image", f"{roots}/envs/*")])
        return {environment.place.environment: environment for environment in environments}

    return run


def test_an_environment_is_found_with_its_python_and_its_kernel(make_prefix, scan) -> None:
    prefix = make_prefix("py311-numpy1", python="3.11.9")
    found = scan()["py311-numpy1"]
    assert found.state is State.HEALTHY
    assert found.place.python == "3.11.9"
    assert [kernel.own_name for kernel in found.kernels] == ["python3"]
    assert found.kernels[0].spec.argv[0] == f"{prefix}/bin/python"


def test_several_kernels_of_one_environment_are_all_found(make_prefix, scan) -> None:
    prefix = make_prefix("many")
    write_program(prefix, "R")
    write_kernel(prefix, {"argv": ["R", "--slave"], "display_name": "R", "language": "R"}, "ir")
    assert [kernel.own_name for kernel in scan()["many"].kernels] == ["ir", "python3"]


def test_sources_keep_their_order_and_the_first_has_a_shared_folder(make_prefix, roots, scan):
    make_prefix("b", root="team")
    make_prefix("a", root="image")
    found = scan(Source("team-x", f"{roots}/team/*", "team: x"), Source("image", f"{roots}/*/*"))
    assert [(e.place.source, e.place.environment) for e in found.values()] == [
        ("team-x", "b"),
        ("image", "a"),
    ]


def test_a_source_that_is_not_there_has_no_environments(roots, scan) -> None:
    assert scan(Source("shared", f"{roots}/nowhere/*")) == {}


def test_what_is_no_environment_is_left_out(roots, make_prefix, scan) -> None:
    make_prefix("real")
    (roots / "envs/just-a-folder").mkdir()
    (roots / "envs/a-file").touch()
    (roots / "envs/.hidden").mkdir()
    (roots / "envs/dangling").symlink_to("nowhere")
    assert list(scan()) == ["real"]


def test_an_environment_behind_a_symlink_is_found_under_the_links_name(make_prefix, roots, scan):
    real = make_prefix("build-42", root="builds")
    write_kernel(real, {**IPYKERNEL, "argv": [f"{real}/bin/python"]})
    (roots / "envs").mkdir()
    (roots / "envs/data").symlink_to(real)
    assert scan()["data"].state is State.HEALTHY


def test_without_a_kernel_the_exact_command_is_told(make_prefix, scan) -> None:
    prefix = make_prefix("with space", kernel=None)
    found = scan()["with space"]
    assert found.state is State.NO_KERNEL
    assert f"conda install --prefix '{prefix}' ipykernel" in str(found.reason)


def test_where_there_is_pip_and_no_conda_it_is_pips_command(make_prefix, scan, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    prefix = make_prefix("data", kernel=None)
    write_program(prefix, "pip")
    assert f"; run: {prefix}/bin/python -m pip install ipykernel" in str(scan()["data"].reason)


def test_the_command_is_one_that_there_is(make_prefix, scan, monkeypatch, tmp_path) -> None:
    prefix = make_prefix("data", kernel=None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "build it again, or run where there is a conda: conda inst" in str(scan()["data"].reason)
    write_program(tmp_path, "micromamba")
    (prefix / "conda-meta/x-1-0.json").touch()  # something of it changes
    assert f"; run: micromamba install --prefix {prefix} ipykernel" in str(scan()["data"].reason)


def test_an_unfinished_installation_is_told_from_a_finished_one(make_prefix, scan) -> None:
    prefix = make_prefix("half")
    (prefix / "conda-meta/history").unlink()
    found = scan()["half"]
    assert (found.state, found.kernels) == (State.INCOMPLETE, ())
    assert "did not finish" in str(found.reason)


def test_not_allowed_is_told_from_not_there(make_prefix, scan, as_nobody) -> None:
    (make_prefix("closed") / "conda-meta").chmod(0)
    make_prefix("closed-prefix").chmod(0)
    make_prefix("open")
    with as_nobody():
        found = scan()
    assert found["closed"].state is State.UNREADABLE
    assert found["closed-prefix"].state is State.UNREADABLE
    assert "access" in str(found["closed"].reason)
    assert found["open"].state is State.HEALTHY


def test_a_right_that_is_granted_later_is_noticed(make_prefix, scan, as_nobody) -> None:
    prefix = make_prefix("closed")
    prefix.chmod(0)
    with as_nobody():
        assert scan()["closed"].state is State.UNREADABLE
    prefix.chmod(0o755)
    with as_nobody():
        assert scan()["closed"].state is State.HEALTHY


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"x" * 70_000, "larger than 64 kB"),
        (b'{"argv": ["/bin/sh"]}', "outside the environment"),
        (b'{"argv": ["gone"]}', "cannot be started"),
    ],
)
def test_a_broken_kernel_says_why(make_prefix, scan, content, reason) -> None:
    make_prefix("broken", kernel=content)
    found = scan()["broken"]
    assert found.state is State.BROKEN
    assert reason in str(found.reason)


def test_a_broken_kernel_does_not_hide_its_healthy_neighbour(make_prefix, scan) -> None:
    write_kernel(make_prefix("mixed"), b"{", "bad")
    found = scan()["mixed"]
    assert found.state is State.HEALTHY
    assert [name for name, _ in found.problems] == ["bad"]


def test_a_named_pipe_for_a_kernel_json_does_not_stop_the_scan(make_prefix, scan) -> None:
    prefix = make_prefix("piped", kernel=None)
    folder = prefix / "share/jupyter/kernels/python3"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "kernel.json")
    assert "not a file" in str(scan()["piped"].reason)


def test_a_loop_of_symlinks_is_broken_and_ends(make_prefix, roots, scan) -> None:
    make_prefix("real")
    (roots / "envs/loop").symlink_to("loop")
    assert scan()["loop"].state is State.BROKEN


def test_changes_are_seen_by_the_next_scan(make_prefix, scan) -> None:
    prefix = make_prefix("data", kernel=None)
    assert scan()["data"].state is State.NO_KERNEL
    folder = write_kernel(prefix)
    assert scan()["data"].state is State.HEALTHY
    (folder / "kernel.json").write_text("{")
    assert scan()["data"].state is State.BROKEN
    shutil.rmtree(prefix)
    assert scan() == {}


def test_a_new_python_is_seen_by_the_next_scan(make_prefix, scan) -> None:
    meta = make_prefix("data") / "conda-meta"
    scan()
    next(meta.glob("python-*.json")).rename(meta / "python-3.14.0-h1_0_cp.json")
    assert scan()["data"].place.python == "3.14.0"


def test_what_has_not_changed_is_not_read_again(make_prefix, roots, scan, monkeypatch) -> None:
    make_prefix("data")
    age(roots)
    first = scan()["data"]
    monkeypatch.setattr(discovery, "look", None)
    assert scan()["data"] is first
