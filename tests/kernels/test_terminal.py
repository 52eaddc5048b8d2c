"""``conda activate`` without conda, tried in a real bash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import current, terminal
from kernels.sources import Source
from kernels.terminal import Found, Refused, activate, deactivate, find

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An environment with a variable that looks like a command, and scripts."""
    made = tmp_path / "envs" / "my env"
    for folder in ("bin", "conda-meta", "etc/conda/activate.d", "etc/conda/deactivate.d"):
        (made / folder).mkdir(parents=True)
    (made / "conda-meta/history").touch()
    (made / "conda-meta/state").write_text(
        json.dumps({"env_vars": {"TRICK": f"x$(touch {tmp_path}/executed)'y", "EDITOR": "theirs"}})
    )
    (made / "etc/conda/activate.d/a.sh").write_text("export FROM_SCRIPT=1; here() { echo hi; }\n")
    (made / "etc/conda/deactivate.d/a.sh").write_text("unset FROM_SCRIPT; unset -f here\n")
    return made


def bash(script: str, **env: str) -> str:
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eu", "-c", script],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **env},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout


def test_activation_sets_what_conda_would_and_executes_no_value(
    prefix: Path, tmp_path: Path
) -> None:
    base = {"PATH": "/usr/bin:/bin", "EDITOR": "mine"}
    words = activate(Found("personal", "my env", str(prefix)), base)
    shown = bash(
        f'{words}\necho "$PATH|$CONDA_DEFAULT_ENV|$TRICK|$EDITOR|$FROM_SCRIPT"; here', EDITOR="mine"
    )
    assert (
        shown == f"{prefix}/bin:/usr/bin:/bin|my env|x$(touch {tmp_path}/executed)'y|theirs|1\nhi\n"
    )
    assert not (tmp_path / "executed").exists()


def test_deactivation_gives_back_what_was_there(prefix: Path) -> None:
    base = {"PATH": "/usr/bin:/bin", "EDITOR": "mine"}
    into = activate(Found("personal", "my env", str(prefix)), base)
    inside = {"PATH": f"/mine:{prefix}/bin:/usr/bin:/bin", "CONDA_PREFIX": str(prefix)}
    out = deactivate(inside)
    look = 'echo "$PATH|${CONDA_PREFIX-none}|$EDITOR|${TRICK-none}"'
    shown = bash(f"{into}\nPATH=/mine:$PATH\n{out}\n{look}", EDITOR="mine")
    assert shown == "/mine:/usr/bin:/bin|none|mine|none\n"


def test_activating_another_one_leaves_the_first(prefix: Path, tmp_path: Path) -> None:
    other = tmp_path / "envs" / "other"
    (other / "conda-meta").mkdir(parents=True)
    (other / "conda-meta/history").touch()
    first = activate(Found("personal", "my env", str(prefix)), {"PATH": "/usr/bin:/bin"})
    base = {"PATH": f"{prefix}/bin:/usr/bin:/bin", "CONDA_PREFIX": str(prefix)}
    second = activate(Found("personal", "other", str(other)), base)
    shown = bash(
        f'{first}\n{second}\necho "$PATH|$CONDA_PREFIX|${{FROM_SCRIPT-none}}|${{TRICK-none}}"'
    )
    assert shown == f"{other}/bin:/usr/bin:/bin|{other}|none|none\n"


def test_a_name_means_the_nearest_and_a_source_before_it_that_one(tmp_path: Path) -> None:
    known = [Found("personal", "py", "/p"), Found("team-vision", "py", "/t")]
    assert find("py", known).prefix == "/p"
    assert find("team-vision/py", known).prefix == "/t"
    with pytest.raises(Refused, match="There are: py"):
        find("nothing", known)
    with pytest.raises(Refused, match="no conda environment"):
        find(str(tmp_path), known)


def test_the_shell_function_says_what_it_cannot_do(tmp_path: Path) -> None:
    text = (ROOT / "config/images/server/conda.sh").read_text()
    text = text.replace("/opt/labcommons/server/bin/python -I", sys.executable)
    commands = "conda activate nowhere || echo refused; conda install x || echo refused; conda list"
    script = f"{text}\n{commands} || true"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", script],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    assert done.stdout.count("refused") == 2
    assert "there is no environment “nowhere”" in done.stderr
    assert "needs a real conda or mamba" in done.stderr


def test_a_real_conda_gets_what_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "conda"
    real.write_text('#!/bin/sh\necho "real $*"\n')
    real.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "kernels.terminal", "conda", "install", "--json", "x"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    assert done.stdout == "real install --json x\n"


def test_every_tier_is_found(tmp_path: Path) -> None:
    for place in ("teams/vision/envs/a", "shared/envs/b", "shared/envs/half"):
        (tmp_path / place / "conda-meta").mkdir(parents=True)
    for place in ("teams/vision/envs/a", "shared/envs/b"):
        (tmp_path / place / "conda-meta/history").touch()
    sources = (
        Source("shared", f"{tmp_path}/shared/envs/*"),
        Source("team-{1}", f"{tmp_path}/teams/*/envs/*"),
    )
    assert [(one.source, one.name) for one in terminal.environments(sources)] == [
        ("team-vision", "a"),
        ("shared", "b"),
    ]


def test_an_environment_says_what_to_cite(tmp_path: Path) -> None:
    prefix = tmp_path / ".conda/envs/.versions/py/20261121-aa"
    (prefix / "conda-meta/labcommons").mkdir(parents=True)
    (prefix / "conda-meta/labcommons/version.json").write_text(
        json.dumps(
            {"name": "py", "version": "20261121-aa", "lock_digest": "ab" * 32, "python": "3.13.5"}
        )
    )
    found = current.current(str(prefix))
    assert (found["source"], found["version"]) == ("personal", "20261121-aa")
    assert found["citation"] == (
        'Computed in the conda environment "py" (version 20261121-aa, Python 3.13.5, '
        f"packages sha256:{'ab' * 32})."
    )


def test_what_we_did_not_build_is_said_to_be_unrecorded(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta/python-3.12.1-h1_0.json").touch()
    found = current.current(str(tmp_path))
    assert (found["python"], found["version"], found["lock_digest"]) == ("3.12.1", None, None)


def test_the_command_needs_nothing_but_python(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-S", ROOT / "kernels/current.py", "env", "current", "--json"],
        env={"CONDA_PREFIX": str(tmp_path)},
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    assert json.loads(done.stdout)["prefix"] == str(tmp_path)
    assert os.path.exists(ROOT / "config/images/server/labcommons")
