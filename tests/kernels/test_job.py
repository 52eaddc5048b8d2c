"""A job's program in its container: run in its folder, told to end, its output kept short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernels import job

ROOT = Path(__file__).parents[2]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    prefix = tmp_path / "env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "conda-meta").mkdir()
    (tmp_path / "home" / "work").mkdir(parents=True)
    return prefix


def begin(prefix: Path, *command: str, folder: str = "work") -> subprocess.Popen[str]:
    env = {
        **os.environ,
        "HOME": str(prefix.parent / "home"),
        "LABCOMMONS_CHOSEN": str(prefix),
        "LABCOMMONS_LANGUAGE": "en",
        "LABCOMMONS_JOB": "7",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "kernels.job", folder, *command],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(prefix: Path, *command: str, folder: str = "work") -> tuple[int, list[str]]:
    process = begin(prefix, *command, folder=folder)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said.splitlines()


def test_it_runs_in_its_folder_and_its_exit_code_is_told(prefix: Path) -> None:
    code, said = run(prefix, "sh", "-c", "pwd; echo $CONDA_PREFIX; echo bad >&2; exit 3")
    assert code == 3
    assert said[:3] == [str(prefix.parent / "home" / "work"), str(prefix), "bad"]
    assert said[3].startswith("labcommons: exit code 3; memory peak ")


@pytest.mark.parametrize(
    ("folder", "program", "code"), [("work", "no-such-program", 127), ("nowhere", "true", 127)]
)
def test_what_cannot_be_run_says_so(prefix: Path, folder: str, program: str, code: int) -> None:
    found, said = run(prefix, program, folder=folder)
    assert (found, said[0].startswith("labcommons: ")) == (code, True)
    assert "cannot be run" in said[0]


def test_a_program_ended_by_a_signal_has_the_shells_code(prefix: Path) -> None:
    assert run(prefix, "sh", "-c", "kill -SEGV $$")[0] == 139


def test_all_that_it_started_is_told_to_end_and_may_save(prefix: Path) -> None:
    script = (
        "trap 'echo saved; exit 0' TERM; (trap 'echo child' TERM; sleep 60 & wait) & "
        "echo up; wait; wait"
    )
    process = begin(prefix, "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    time.sleep(0.3)  # the child sets its trap
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[0].splitlines()
    assert process.returncode == 0
    assert "saved" in said


def test_what_is_left_running_does_not_keep_it(prefix: Path) -> None:
    assert run(prefix, "sh", "-c", "sleep 300 & echo done")[1][0] == "done"


def test_much_output_has_its_beginning_its_end_and_what_is_missing(prefix: Path) -> None:
    many = "import sys\nfor n in range(2_000_000): sys.stdout.write('line %d\\n' % n)"
    code, said = run(prefix, sys.executable, "-c", many)
    assert code == 0
    assert (said[0], said[-2]) == ("line 0", "line 1999999")
    cut = [line for line in said if line.startswith("[")]
    assert len(cut) == 2
    left_out = int(cut[1].split()[0][1:])
    kept = sum(len(line) + 1 for line in said if line.startswith("line "))
    whole = sum(len(f"line {n}\n") for n in range(2_000_000))
    assert kept + left_out == whole
    assert kept < job.HEAD + job.TAIL + 100


def test_a_line_without_an_end_is_cut_as_well(prefix: Path) -> None:
    code, said = run(prefix, sys.executable, "-c", "print('x' * 20_000_000, end='')")
    assert code == 0
    assert sum(map(len, said)) < job.HEAD + job.TAIL + 1000


def test_a_notebook_is_run_by_papermill_where_that_is(prefix: Path) -> None:
    papermill = prefix / "bin" / "papermill"
    papermill.write_text('#!/bin/sh\necho "$@"\n')
    papermill.chmod(0o755)
    assert run(prefix, "@notebook", "a.ipynb")[1][0] == "--log-output a.ipynb a.job-7.ipynb"
    papermill.unlink()
    assert "nbconvert" in job._notebook(str(prefix), "a.ipynb")
