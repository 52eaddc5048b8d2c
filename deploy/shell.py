"""Running other programs: always with a time-out, never leaving a child behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

GRACE = 10  # seconds between SIGTERM and SIGKILL for a program that has to go


class Failure(Exception):
    """Something a person has to know: what happened, and what to do about it."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy


class CommandFailed(Failure):
    """A program ended with an error, did not end in time, or is not there."""


def output(
    command: Sequence[str | Path],
    *,
    timeout: float = 30,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
) -> str | None:
    """What a program prints, without the white space around it; None when it fails in any way."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=_environment(env),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def run(
    command: Sequence[str | Path],
    log: IO[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: IO[bytes] | None = None,
) -> None:
    """Run a program with its output in a log.

    It gets a process group of its own, so that what it started ends with it when it is
    interrupted or takes longer than ``timeout`` seconds. Raises CommandFailed.
    """
    words = [str(word) for word in command]
    log.write(f"$ {' '.join(words)}\n")
    log.flush()
    try:
        process = subprocess.Popen(
            words,
            stdin=stdin or subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(env),
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"{words[0]}: {error.strerror}") from error
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{words[0]} took longer than {timeout:.0f} s") from None
    finally:
        end_group(process)
    if code:
        raise CommandFailed(f"{words[0]} ended with exit code {code}")


def end_group(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process that leads its own group, and the group with it; no effect on an ended one."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            return


def _environment(extra: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if extra is None else {**os.environ, **extra}
