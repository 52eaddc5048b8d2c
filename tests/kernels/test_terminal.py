"""``conda activate`` without conda, tried in a real bash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commons.site.servers import Kernels
from kernels import conda_commands as commands
from kernels import current, terminal
from kernels.manager import CondaKernelSpecManager
from kernels.terminal import Found, Refused, activate, deactivate, find
from tests.kernels.conftest import MakePrefix, age, write_notes

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
    commands = (
        "conda activate nowhere || echo refused; conda skeleton x || echo refused; conda list"
    )
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


SERVER = ROOT / "config/images/server"


@pytest.fixture
def machine(tmp_path: Path, live_prefix: Path) -> dict[str, str]:
    """Variables of a shell as in a server: our programs on PATH, one environment of one's own."""
    parts = tmp_path / "opt/labcommons"
    (parts / "server/bin").mkdir(parents=True)
    program = parts / "server/bin/python"
    program.write_text(f'#!/bin/sh\nshift; PYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    for name, target in (("conda.sh", "etc"), ("command", "bin"), ("activate", "bin")):
        (parts / target).mkdir(exist_ok=True)
        text = (SERVER / name).read_text().replace("/opt/labcommons", str(parts))
        (parts / target / name).write_text(text)
    (parts / "bin/command").chmod(0o755)
    (parts / "bin/conda").symlink_to("command")
    home = tmp_path / "home"
    (home / ".conda/envs").mkdir(parents=True)
    (home / ".conda/envs/mine").symlink_to(live_prefix)
    return {
        "PATH": f"{parts}/bin:/usr/bin:/bin",
        "HOME": str(home),
        "BASH_ENV": str(parts / "etc/conda.sh"),
        "LABCOMMONS_LANGUAGE": "en",
    }


def run(machine: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=machine, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


SHOW = "echo $CONDA_DEFAULT_ENV"


@pytest.mark.parametrize(
    "words",
    [
        ["bash", "-c", f"conda activate mine; {SHOW}"],
        ["bash", "-c", f"source activate mine; {SHOW}"],
        ["bash", "-c", f'eval "$(conda shell.bash hook)"; conda activate mine; {SHOW}'],
        ["bash", "-c", f"conda init bash >&2; conda activate mine; {SHOW}"],
        ["sh", "-c", f'eval "$(conda shell.posix activate mine)"; {SHOW}'],
        ["sh", "-c", f'. "$BASH_ENV"; conda activate mine; {SHOW}'],
        ["sh", "-c", "conda run -n mine sh -c 'echo $CONDA_DEFAULT_ENV'"],
        ["conda", "run", "--no-capture-output", "-n", "mine", "sh", "-c", SHOW],
    ],
)
def test_every_way_of_activation_that_tutorials_teach_works(
    machine: dict[str, str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind: activation in scripts, sh, make and by the older words."""
    if "hook" in words[-1]:
        words[-1] = words[-1].replace("conda shell.bash hook", "cat $BASH_ENV")
    done = run(machine, *words)
    assert done.stdout == "mine\n", done.stderr


def test_a_program_says_how_a_shell_is_activated(machine: dict[str, str]) -> None:
    """Kind: "conda activate" of sh, make and subprocess, which no program can do for its shell."""
    done = run(machine, "sh", "-c", "conda activate mine")
    assert done.returncode == 1
    assert 'eval "$(conda shell.posix activate mine)"' in done.stderr


def test_what_programs_ask_of_conda_is_json(machine: dict[str, str]) -> None:
    """Kind: programs that read conda's JSON (editors, snakemake, conda-pack)."""
    prefix = f"{machine['HOME']}/.conda/envs/mine"
    assert json.loads(run(machine, "conda", "env", "list", "--json").stdout) == {"envs": [prefix]}
    info = json.loads(run(machine, "conda", "info", "--json").stdout)
    assert (info["envs"], info["root_prefix"]) == ([prefix], "/opt/conda")
    assert run(machine, "conda", "info", "--base").stdout == "/opt/conda\n"
    rows = json.loads(run(machine, "conda", "list", "-n", "mine", "--json").stdout)
    assert all({"name", "version", "channel", "build_string"} <= row.keys() for row in rows)
    made = json.loads(run(machine, "conda", "env", "export", "-n", "mine", "--json").stdout)
    assert made["name"] == "mine"


def test_base_is_the_environment_that_was_chosen(machine: dict[str, str]) -> None:
    """Kind: ``base``, which tutorials have and a server has not."""
    mine = f"{machine['HOME']}/.conda/envs/mine"
    machine |= {"LABCOMMONS_ENVIRONMENT": "x:1", "LABCOMMONS_CHOSEN": mine}
    for words in ("conda run -n base env", "conda activate; env", "conda activate base; env"):
        done = run(machine, "bash", "-c", words)
        assert f"CONDA_PREFIX={mine}\n" in done.stdout, (words, done.stderr)
    assert run(machine, "conda", "list", "-n", "base").returncode == 0
    done = run(machine, "conda", "install", "-n", "base", "-c", "conda-forge", "mamba")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr


def test_the_sites_settings_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kind: a file as the start writes it, with an empty line behind."""
    (tmp_path / "condarc").write_text('channels: ["lab"]\nauto_update_conda: false\n\n')
    real = Path
    monkeypatch.setattr(commands, "Path", lambda _: real(tmp_path / "condarc"))
    assert commands.condarc() == {"channels": ["lab"], "auto_update_conda": False}


def test_what_cannot_be_done_without_the_site_is_said_without_a_traceback(
    machine: dict[str, str],
) -> None:
    for words in (
        ["conda", "create", "-n", "x", "python=3.13"],
        ["conda", "env", "create", "-f", "nowhere.yml"],
        ["conda", "env", "create", "-f", "http://127.0.0.1:9/environment.yml"],
        ["conda", "create", "--clone", "nowhere", "-n", "x"],
        ["conda", "create", "--clone", "mine", "--name=x"],
        ["conda", "env", "remove", "-n", "mine"],
        ["conda", "install", "-n", "mine"],
        ["conda", "search", "numpy"],
        ["conda", "config", "--add", "channels", "x"],
        ["conda", "shell.fish", "hook"],
        ["conda", "run"],
    ):
        done = run(machine, *words)
        assert done.returncode == 1, words
        assert done.stderr.count("\n") == 1, (words, done.stderr)


@pytest.fixture
def envs(roots: Path, make_prefix: MakePrefix) -> Path:
    """Environments of three sources: with a kernel, without one, and what cannot be entered."""
    make_prefix("a", root="teams/vision/envs")
    make_prefix("b", root="shared/envs")
    make_prefix("tools", root="shared/envs", kernel=None)
    make_prefix("half", root="shared/envs").joinpath("conda-meta/history").unlink()
    write_notes(make_prefix("gone", root="shared/envs"), '{"withdrawn": "2026-01-01"}')
    make_prefix("mine", root="mine")
    (roots / "environments.txt").write_text(f"{roots}/mine/mine\n")
    age(roots)
    return roots


def listed(envs: Path, **settings: Any) -> list[Found]:
    """What a terminal offers, by a list with these settings."""
    sources = [
        {"id": "shared", "pattern": f"{envs}/shared/envs/*", "label": "shared"},
        {"id": "team-{1}", "pattern": f"{envs}/teams/*/envs/*", "label": "team: {1}"},
        {"id": "personal", "pattern": f"@{envs}/environments.txt", "label": "personal"},
    ]
    return terminal.environments(CondaKernelSpecManager(sources=sources, language="en", **settings))


def enterable(found: list[Found]) -> list[str]:
    return [f"{one.source}/{one.name}" for one in found if not one.reason]


def test_every_source_of_the_kernel_list_is_found_nearest_first(envs: Path) -> None:
    assert enterable(listed(envs)) == ["personal/mine", "team-vision/a", "shared/b", "shared/tools"]


def test_what_the_kernel_list_hides_is_hidden_here_too(envs: Path) -> None:
    found = listed(envs, hidden=["conda-team-vision-*", "conda-shared-tools-*"])
    assert enterable(found) == ["personal/mine", "shared/b"]
    with pytest.raises(Refused, match="there is no environment “a”"):
        find("a", found)


def test_an_environment_can_be_called_as_the_launcher_calls_it(envs: Path) -> None:
    found = listed(envs, renamed={"conda-team-vision-*": "Vision: {environment}"})
    assert find("Vision: a", found).prefix == f"{envs}/teams/vision/envs/a"
    assert find("a", found).prefix == f"{envs}/teams/vision/envs/a"


def test_what_cannot_be_entered_is_not_listed_and_says_why_when_it_is_named(envs: Path) -> None:
    found = listed(envs)
    with pytest.raises(Refused, match="“gone” cannot be used: it was withdrawn"):
        find("gone", found)
    with pytest.raises(Refused, match="“shared/half” cannot be used: "):
        find("shared/half", found)


def test_the_site_files_settings_reach_the_terminal(envs: Path, tmp_path: Path) -> None:
    """By the server's own configuration file, in a process of its own as the shell starts it."""
    sources = [{"id": "shared", "pattern": f"{envs}/shared/envs/*", "label": ""}]
    (tmp_path / "jupyter_server_config.json").write_text(
        json.dumps({"CondaKernelSpecManager": {"sources": sources}})
    )
    done = subprocess.run(
        [sys.executable, "-m", "kernels.terminal", "conda", "env", "list", "--json"],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "JUPYTER_CONFIG_PATH": f"{ROOT}/config/images/server/etc:{tmp_path}",
            "LABCOMMONS_KERNEL_SETTINGS": json.dumps(Kernels(hidden=["*-tools-*"]).settings),
        },
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"envs": [f"{envs}/shared/envs/b"]}
    assert done.stderr == ""


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
