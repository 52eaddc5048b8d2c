"""Running other programs: always with a time-out, never leaving a child behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

GRACE = 10  # seconds between SIGTERM and SIGKILL for a program that has to go
_INTERRUPTS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


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
    where: dict[str, Any] = {"stdout": log, "stderr": subprocess.STDOUT, "cwd": cwd}
    where |= {"stdin": stdin or subprocess.DEVNULL, "env": _environment(env)}
    try:
        with child(words, **where) as process:
            code = process.wait(timeout)
    except OSError as error:
        raise CommandFailed(f"{words[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{words[0]} took longer than {timeout:.0f} s") from None
    if code:
        raise CommandFailed(f"{words[0]} ended with exit code {code}")


@contextmanager
def child(words: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A program that leads a process group of its own, which ends with the block.

    ``options`` are Popen's. An interrupt waits until the program is known: one that came while it
    was being started would leave it running.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        process = subprocess.Popen(
            words,
            start_new_session=True,
            # No thread of ours holds a lock that this takes.
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before) and None,  # noqa: PLW1509
            **options,
        )
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield process
        finally:
            end_group(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
