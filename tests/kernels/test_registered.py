"""Kernels that a person registered: listed with their source, checked, started by ours."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from kernels.kernelspec import PROVISIONER
from kernels.manager import CondaKernelSpecManager, MissingKernel
from kernels.preparation import KernelCannotStart, prepare
from tests.kernels.conftest import IPYKERNEL, write_program

JULIA = {"argv": ["/bin/true", "-i", "{connection_file}"], "display_name": "Julia 1.10",
         "language": "julia", "env": {"JULIA_NUM_THREADS": "2"}}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("JUPYTER_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def register(home: Path, name: str, document: object) -> Path:
    folder = home / ".local/share/jupyter/kernels" / name
    folder.mkdir(parents=True)
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    (folder / "kernel.json").write_bytes(raw)
    return folder


def manager_of(roots: Path, **settings: object) -> CondaKernelSpecManager:
    source = {"id": "image", "pattern": f"{roots}/envs/*", "label": ""}
    return CondaKernelSpecManager(
        sources=[source], cache_file="", language="en", chosen="data", **settings
    )


def test_they_are_listed_with_their_source_and_our_provisioner(home, make_prefix, roots) -> None:
    """Kind: kernels that are no conda environment's: venv, Julia, R."""
    make_prefix("data")
    register(home, "julia-1.10", JULIA)
    venv = home / "proj/.venv"
    write_program(venv)
    (venv / "pyvenv.cfg").touch()
    register(home, "MyEnv", IPYKERNEL | {"argv": [f"{venv}/bin/python", "-m", "x"],
             "metadata": {"kernel_provisioner": {"provisioner_name": "other"},
                          "labcommons": {"prefix": "/"}}})  # fmt: skip
    manager = manager_of(roots)
    specs = manager.get_all_specs()
    assert set(specs) == {"conda-image-data-python3", "julia-1.10", "myenv"}
    for name in ("julia-1.10", "myenv"):
        metadata = specs[name]["spec"]["metadata"]
        assert metadata["labcommons"]["source"] == "registered"
        assert metadata["kernel_provisioner"]["provisioner_name"] == PROVISIONER
        assert "(registered by you)" in specs[name]["spec"]["display_name"]
    spec = manager.get_kernel_spec("MyEnv")
    start = prepare(spec.metadata, spec.argv, {"PATH": "/bin", "CONDA_PREFIX": "/o"}, 5)
    assert start.argv[0] == f"{venv}/bin/python"
    assert start.env["PATH"] == f"{venv}/bin:/bin"
    assert start.env["VIRTUAL_ENV"] == str(venv)
    assert "CONDA_PREFIX" not in start.env


def test_the_site_can_say_no(home, make_prefix, roots) -> None:
    make_prefix("data")
    register(home, "mine", JULIA)
    assert "mine" in manager_of(roots).get_all_specs()
    assert "mine" not in manager_of(roots, hidden=["mi*"]).get_all_specs()
    manager = manager_of(roots, registered=False)
    assert "mine" not in manager.get_all_specs()
    with pytest.raises(MissingKernel):
        manager.get_kernel_spec("mine")


def test_names_of_environments_are_never_taken(home, make_prefix, roots) -> None:
    """Kind: names that collide. The environment's own is the one that is started."""
    prefix = make_prefix("data")
    for name in ("conda-image-data-python3", "CONDA-image-data-python3", "conda-x"):
        register(home, name, JULIA)
    manager = manager_of(roots)
    assert set(manager.get_all_specs()) == {"conda-image-data-python3"}
    assert manager.get_kernel_spec("conda-image-data-python3").argv[0] == f"{prefix}/bin/python"
    with pytest.raises(MissingKernel):
        manager.get_kernel_spec("conda-x")


def test_what_names_no_environment_and_the_servers_own_python_are_left_out(
    home, make_prefix, roots
) -> None:
    """Kind: leftovers of ``pip install --user``; python3 still means the chosen environment."""
    make_prefix("data")
    register(home, "python3", IPYKERNEL)
    register(home, "server", IPYKERNEL | {"argv": [sys.executable, "-m", "ipykernel_launcher"]})
    manager = manager_of(roots)
    assert set(manager.get_all_specs()) == {"conda-image-data-python3"}
    assert manager.get_kernel_spec("python3").name == "conda-image-data-python3"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"{", "not valid JSON"),
        (b'{"a":' * 30_000 + b"1" + b"}" * 30_000, "kernel.json"),
        (b" " * 70_000, "larger than"),
        (b"\xff", "UTF-8"),
        ([], "not a JSON object"),
        (JULIA | {"argv": "sh -c x"}, "argv"),
        (JULIA | {"argv": [1]}, "argv"),
        (JULIA | {"argv": []}, "no argv"),
        (JULIA | {"argv": ["../../bin/sh"]}, "argv"),
        (JULIA | {"argv": ["/gone/julia"]}, "cannot be started"),
        (JULIA | {"env": {"a b": "x"}}, "env"),
        (JULIA | {"env": {"A": 1}}, "env.A"),
        (JULIA | {"interrupt_mode": "x"}, "interrupt_mode"),
    ],
)
def test_a_broken_one_says_why_and_spoils_nothing(home, make_prefix, roots, document, words):
    """Kind: hostile kernel.json."""
    make_prefix("data")
    register(home, "bad", document)
    register(home, "good", JULIA)
    manager = manager_of(roots)
    specs = manager.get_all_specs()
    assert set(specs) == {"conda-image-data-python3", "bad", "good"}
    mark = specs["bad"]["spec"]["metadata"]["labcommons"]
    assert mark["state"] == "broken"
    assert words in mark["reason"]
    assert specs["bad"]["spec"]["language"] == "none"
    with pytest.raises(KernelCannotStart, match="jupyter kernelspec remove bad"):
        prepare(manager.get_kernel_spec("bad").metadata, (), {"PATH": ""}, 5)


def test_pictures_that_lead_elsewhere_are_shown_to_nobody(home, make_prefix, roots) -> None:
    make_prefix("data")
    folder = register(home, "mine", JULIA)
    assert manager_of(roots).get_all_specs()["mine"]["resource_dir"] == str(folder)
    (folder / "logo-64x64.png").symlink_to("/etc/passwd")
    assert manager_of(roots).get_all_specs()["mine"]["resource_dir"] == ""
    os.mkfifo(register(home, "pipe", b"") / "x")
    (folder.parent / "pipe/kernel.json").unlink()
    os.mkfifo(folder.parent / "pipe/kernel.json")
    assert "pipe" in manager_of(roots).get_all_specs()  # says that it is no file


def test_one_that_is_repaired_or_removed_is_seen_at_the_next_look(home, make_prefix, roots) -> None:
    make_prefix("data")
    folder = register(home, "mine", JULIA | {"argv": [f"{home}/bin/julia"]})
    manager = manager_of(roots)
    assert "state" in manager.get_all_specs()["mine"]["spec"]["metadata"]["labcommons"]
    write_program(home, "julia")
    (folder / "kernel.json").write_text(json.dumps(JULIA | {"argv": [f"{home}/bin/julia"]}))
    assert "state" not in manager.get_all_specs()["mine"]["spec"]["metadata"]["labcommons"]
    (folder / "kernel.json").unlink()
    assert "mine" not in manager.get_all_specs()
