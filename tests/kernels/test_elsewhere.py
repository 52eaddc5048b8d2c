"""Notebooks made elsewhere: the kernel that their names mean, or one sentence, in each program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernels import launch, mirror
from kernels.elsewhere import language_of
from kernels.manager import CondaKernelSpecManager, MissingKernel
from tests.kernels.conftest import IPYKERNEL, MakePrefix, write_kernel, write_program

R = {"argv": ["R", "--slave"], "display_name": "R 4.4", "language": "R"}


@pytest.fixture
def manager(make_prefix: MakePrefix, roots: Path) -> CondaKernelSpecManager:
    """Two image environments, ``data`` the chosen one, and two with R."""
    for name in ("data", "torch", "stat"):
        make_prefix(name)
    for name in ("stat", "bio"):
        prefix = roots / "envs" / name if name == "stat" else make_prefix(name, kernel=None)
        write_program(prefix, "R")
        write_kernel(prefix, R, "ir")
    source = {"id": "image", "pattern": f"{roots}/envs/*", "label": ""}
    return CondaKernelSpecManager(
        sources=[source], kernel_dirs=[], chosen="data:3", cache_file="", language="en"
    )


@pytest.mark.parametrize(
    ("name", "language", "kernel"),
    [
        ("python3", "", "data-python3"),
        ("python2", "", "data-python3"),
        ("Python3", "", "data-python3"),
        ("", "", "data-python3"),
        (".venv", "", "data-python3"),
        ("venv", "python", "data-python3"),
        ("python38464bitbasecondae4ab", "", "data-python3"),
        ("conda-env-foo-py", "", "data-python3"),
        ("conda-env-torch-py", "", "torch-python3"),
        ("conda-env-bio-r", "", "bio-ir"),
        ("conda-root-py", "", "data-python3"),
        ("my project", "python", "data-python3"),
        ("ir", "", None),  # data has no R, and two others have
        ("myproject", "", None),
        ("bash", "bash", None),
        ("conda-image-dato-python3", "python", None),
        ("conda-team-vision-torch-python3", "python", None),
    ],
)
def test_a_name_of_elsewhere_means_the_chosen_environments_kernel_of_its_language(
    manager, name, language, kernel
) -> None:
    """Kind: notebooks not made here. What names an environment of this list is never guessed."""
    found = manager.resolve(name, language)
    assert (found and found.kernel.name) == (kernel and f"conda-image-{kernel}")


def test_the_active_environment_comes_first_and_the_only_one_of_a_language_is_it(
    manager, roots
) -> None:
    assert manager.resolve("python3", "", f"{roots}/envs/torch").kernel.name.endswith(
        "torch-python3"
    )
    assert manager.resolve("ir", "", f"{roots}/envs/bio").kernel.name == "conda-image-bio-ir"
    (roots / "envs/bio/conda-meta/history").unlink()
    assert manager.resolve("ir").kernel.name == "conda-image-stat-ir"


@pytest.mark.parametrize("name", ["myproject", "ir", "julia-1.10", "x" * 200, "环境"])
def test_an_unknown_name_is_refused_with_one_sentence(manager, name) -> None:
    with pytest.raises(MissingKernel) as refused:
        manager.get_kernel_spec(name)
    sentence = str(refused.value)
    assert sentence.startswith(f"There is no kernel “{name}” here")
    assert "\n" not in sentence
    near = {"ir": "R 4.4", "julia-1.10": "nor any other for Julia"}.get(name, "Python 3.13")
    assert near in sentence


def test_other_programs_find_the_names_of_elsewhere_and_take_the_active_environment(
    manager, roots
) -> None:
    """Kind: programs that know folders alone (papermill of a person's own environment)."""
    manager.get_all_specs()
    mirror.write(str(roots / "mirror"), manager.listed, manager.chosen)
    folder = roots / "mirror/kernels"

    def meant(name: str, active: str = "") -> str:
        return Path(launch.meant(str(folder / name / "kernel.json"), active)).parent.name

    torch = f"{roots}/envs/torch"
    assert meant("python3") == meant("conda-env-data-py", torch) == "conda-image-data-python3"
    assert meant("python3", torch) == meant(".venv", torch) == "conda-image-torch-python3"
    assert meant("python3", "/opt/elsewhere") == "conda-image-data-python3"
    assert meant("ir", f"{roots}/envs/bio") == "conda-image-bio-ir"
    assert meant("conda-image-data-python3", torch) == "conda-image-data-python3"
    assert not (folder / "julia").exists()
    written = json.loads((folder / "python3/kernel.json").read_text())
    assert written["language"] == "python"
    assert written["display_name"] == "python3: data - Python 3.13"


def test_a_kernel_of_ones_own_called_python3_is_not_taken_away(manager, roots) -> None:
    prefix = roots / "elsewhere"
    write_kernel(prefix, {**IPYKERNEL, "argv": ["/bin/true"]}, "python3")
    manager.kernel_dirs = [f"{prefix}/share/jupyter/kernels"]
    assert manager.resolve("python3") is None
    assert manager.get_kernel_spec("python3").argv == ["/bin/true"]


@pytest.mark.parametrize(
    ("name", "language"),
    [("ir", "R"), ("irkernel", "R"), ("python3.11", "python"), ("julia-1.10", "julia"),
     ("conda-env-a-b-r", "R"), ("firefly", None), ("pyspark", None), ("conda-image-x-ir", None)],
)  # fmt: skip
def test_what_a_name_says_is_a_language_or_an_environment(name, language) -> None:
    assert language_of(name) == language
