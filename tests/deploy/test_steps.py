"""Progress lines, logs, and programs that fail, hang or are interrupted."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.shell import CommandFailed, Failure, output, run
from deploy.steps import Progress

from .conftest import ROOT


def test_a_step_is_one_line_that_says_how_it_ended(tmp_path: Path) -> None:
    out = io.StringIO()
    progress = Progress(2, tmp_path, out)
    with progress.step("building labcommons/hub"):
        pass
    with progress.step("certificates") as step:
        step.result = "up to date"
    assert out.getvalue() == (
        "[1/2] building labcommons/hub … done\n[2/2] certificates … up to date\n"
    )


def test_a_failed_step_shows_the_end_of_its_log_without_control_characters(
    tmp_path: Path,
) -> None:
    out = io.StringIO()

    def fail() -> None:
        with Progress(1, tmp_path, out).step("try") as step:
            step.remedy = "do this"
            step.run(["sh", "-c", r"printf '\033[31mthe cause\033[0m\007\n'; exit 3"], timeout=30)

    with pytest.raises(CommandFailed) as caught:
        fail()
    assert "    the cause" in out.getvalue()
    assert "\x1b" not in out.getvalue()
    assert caught.value.remedy == "do this"
    assert "exit code 3" in caught.value.cause
    assert "the cause" in (tmp_path / "01-try.log").read_text()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(Failure, match="no-such-program"),
        Progress(1, tmp_path, io.StringIO()).step("try") as step,
    ):
        step.run(["no-such-program"], timeout=30)
    assert output(["no-such-program"]) is None


def alive(pid_file: Path) -> bool:
    try:
        state = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return False
    return state.split()[0] != "Z"


def wait_until(pid_file: Path, *, gone: bool) -> None:
    deadline = time.monotonic() + 30
    while (gone and alive(pid_file)) or not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline, "the grandchild does not do what it should"
        time.sleep(0.02)


def test_what_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with (
        pytest.raises(CommandFailed, match="longer than"),
        Progress(1, tmp_path, io.StringIO()).step("hang") as step,
    ):
        step.run(["sh", "-c", f"sleep 600 & echo $! >{pid_file}; wait"], timeout=1)
    wait_until(pid_file, gone=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_make_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    pid_file = tmp_path / "pid"
    program = f"""
import sys
from pathlib import Path
from deploy import __main__ as make
from deploy.steps import Progress
def work():
    with Progress(1, Path({str(tmp_path)!r})).step("long work") as step:
        step.run(["sh", "-c", "sleep 600 & echo $! >{pid_file}; wait"], timeout=600)
make.COMMANDS["up"] = work
sys.argv = ["deploy", "up"]
sys.exit(make.main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    wait_until(pid_file, gone=False)
    os.kill(process.pid, number)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    wait_until(pid_file, gone=True)


def test_an_interrupt_while_a_program_starts_leaves_it_not_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    started: list[Interrupted] = []
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (tmp_path / "log").open("w") as log, pytest.raises(KeyboardInterrupt):
            run(["sleep", "600"], log, timeout=60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert started[0].returncode == -signal.SIGTERM
