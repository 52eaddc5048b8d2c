"""``labcommons kernels`` in a user's server: what the launcher shows, for scripts and terminals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import cli
from kernels.manager import CondaKernelSpecManager
from tests.kernels.conftest import MakePrefix, age

TREE = Path(__file__).resolve().parents[2]
NAMES = ["conda-image-bare-python3", "conda-image-data-python3"]


@pytest.fixture
def here(roots: Path, make_prefix: MakePrefix, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_prefix("data")
    make_prefix("bare", kernel=None)
    age(roots)
    sources = [{"id": "image", "pattern": f"{roots}/envs/*", "label": ""}]
    made = CondaKernelSpecManager(sources=sources, kernel_dirs=[], language="en")
    monkeypatch.setattr(cli, "manager", lambda: made)
    return roots


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = cli.main(words)
    return (status, *capsys.readouterr())


def test_all_kernels_are_listed_and_those_that_cannot_start_say_so(here, capsys) -> None:
    status, text, _ = asked(capsys, "list")
    assert status == 0
    assert text == (
        "conda-image-bare-python3  bare - Python 3.13 (cannot start: ipykernel is missing)\n"
        "conda-image-data-python3  data - Python 3.13\n"
    )
    found = json.loads(asked(capsys, "list", "--json")[1])
    assert [kernel["name"] for kernel in found] == NAMES
    assert (found[0]["state"], found[1]["state"]) == ("no_kernel", "healthy")
    assert found[1]["prefix"] == f"{here}/envs/data"


def test_a_list_can_be_narrowed_to_what_needs_care_and_to_a_source(here, capsys) -> None:
    found = json.loads(asked(capsys, "list", "--problems", "--json")[1])
    assert [kernel["name"] for kernel in found] == NAMES[:1]
    assert json.loads(asked(capsys, "list", "--source", "shared", "--json")[1]) == []
    assert asked(capsys, "list", "--source", "shared")[:2] == (0, "No kernel fits.\n")


def test_one_kernel_is_shown_with_the_remedy_where_it_cannot_start(here, capsys) -> None:
    status, text, _ = asked(capsys, "show", "Conda-Image-Bare-Python3")
    assert status == 1
    assert f"conda install --prefix {here}/envs/bare ipykernel" in text
    status, text, _ = asked(capsys, "show", NAMES[1], "--json")
    assert status == 0
    assert json.loads(text)["argv"][0] == f"{here}/envs/data/bin/python"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("conda-image-dato-python3", "The nearest is data"),
        ("perl", "There is no kernel “perl” here. The nearest is"),
    ],
)
def test_a_kernel_that_is_not_there_is_refused_with_what_there_is(here, capsys, name, words):
    status, text, error = asked(capsys, "show", name)
    assert (status, text) == (1, "")
    assert words in error


@pytest.mark.parametrize("words", [[], ["show"], ["list", "--nonsense"]])
def test_wrong_usage_ends_with_2_and_help_has_examples(capsys, words) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    with pytest.raises(SystemExit):
        cli.main(["show", "--help"])
    assert "labcommons kernels show conda-personal-mine-python3 --json" in capsys.readouterr().out


def test_it_is_the_servers_own_list(make_prefix, roots, tmp_path) -> None:
    """By the server's configuration file, as a command of its own."""
    make_prefix("mine")
    source = {"id": "personal", "pattern": f"{roots}/envs/*", "label": "mine"}
    (tmp_path / "jupyter_server_config.py").write_text(
        f"c = get_config()\nc.CondaKernelSpecManager.sources = [{source!r}]\n"
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(TREE)}
    run = subprocess.run(
        [sys.executable, "-m", "kernels.cli", "list", "--source", "personal"],
        env={**environ, "JUPYTER_CONFIG_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout == "conda-personal-mine-python3  mine (mine) - Python 3.13\n"
