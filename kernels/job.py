"""A job's program in its container: activated, run in its folder, and its output kept short.

    python -I -m kernels.job FOLDER PROGRAM [WORDS]

Run by ``/opt/labcommons/bin/job``. What the program prints goes on as it comes, up to ``HEAD``;
of the rest the end is kept, and printed when it is over, with how much there was in between. So no
program fills a disk by what it prints. A signal to end goes to all that the program has started.
``@notebook PATH`` runs a notebook: with the environment's papermill, else with nbconvert.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from kernels import cgroup
from kernels.activation import ActivationError, Activator, without_active
from kernels.messages import Message, persons_language, say

HEAD, TAIL = 4 * 2**20, 2**20  # bytes
HEAD_LINES, TAIL_LINES = 100_000, 50_000
LAST_LINE = 200  # bytes, of what is still told of a program that printed too much
EVERY = 60.0  # seconds between two such lines
LOOK = 1.0  # seconds between two looks at the memory that is used
LEFT = 1.0  # seconds for what is still in the pipe when the program has ended
_CHUNK = 65_536
NOTEBOOK = "@notebook"


class Output:
    """What a program prints, cut to a beginning and an end."""

    def __init__(self, descriptor: int = 1) -> None:
        self._out = descriptor
        self._sent = self._lines = 0
        self._tail: deque[bytes] = deque()
        self._kept = self._left_out = 0
        self._told = 0.0
        self._at_start = True  # of a line

    def take(self, chunk: bytes) -> None:
        """More of it."""
        if not self._tail:
            head = self._fits(chunk)
            self._write(head)
            self._sent += len(head)
            self._lines += head.count(b"\n")
            chunk = chunk[len(head) :]
            if not chunk:
                return
            self._say(say("job_output_cut", bytes=self._sent))
        self._tail.append(chunk)
        self._kept += len(chunk)
        while self._kept - len(self._tail[0]) >= TAIL:
            gone = len(self._tail.popleft())
            self._kept -= gone
            self._left_out += gone
        if time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            line = chunk.rstrip(b"\n").rpartition(b"\n")[2][-LAST_LINE:]
            self._write(b"... " + line + b"\n")

    def end(self) -> None:
        """All was said: the end of it, and how much is missing before."""
        whole = b"".join(self._tail)
        end = whole[-TAIL:]
        lines = end.split(b"\n")
        if len(lines) > TAIL_LINES:
            end = b"\n".join(lines[-TAIL_LINES:])
        if whole:
            self._say(say("job_output_left_out", bytes=self._left_out + len(whole) - len(end)))
        self._write(end)
        if not self._at_start:
            self._write(b"\n")

    def _fits(self, chunk: bytes) -> bytes:
        """What of it still belongs to the beginning."""
        head = chunk[: max(0, HEAD - self._sent)]
        left = max(0, HEAD_LINES - self._lines)
        if head.count(b"\n") <= left:
            return head
        lines = head.split(b"\n")[:left]
        return b"\n".join(lines) + b"\n" if lines else b""

    def _say(self, message: Message) -> None:
        words = f"[{message.in_words(persons_language())}]\n".encode()
        self._write(words if self._at_start else b"\n" + words)

    def _write(self, data: bytes) -> None:
        if data:
            self._at_start = data.endswith(b"\n")
        with suppress(OSError):  # nobody reads it any more
            while data:
                data = data[os.write(self._out, data) :]


def main(folder: str, *command: str) -> int:
    """Run it to its end; its exit code, 126 or 127 for what cannot be run."""
    prefix = os.environ.get("LABCOMMONS_CHOSEN") or (
        f"/opt/conda/envs/{os.environ.get('LABCOMMONS_ENVIRONMENT', '').partition(':')[0]}"
    )
    output = Output()
    try:
        os.chdir(os.path.join(os.environ.get("HOME", "/"), folder))
        variables = Activator().activate(prefix, without_active(os.environ))
        variables = {**variables, "PYTHONUNBUFFERED": "1", "PWD": os.getcwd()}
        words = _notebook(prefix, command[1]) if command[0] == NOTEBOOK else list(command)
        reads, writes = os.pipe()
        program = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=writes,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,
        )
    except ActivationError as error:
        return _cannot(output, error.message, 126)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        what = error.filename or command[0]
        return _cannot(
            output, say("job_cannot_run", name=what, error=error.strerror or ""), 126 + missing
        )
    os.close(writes)
    signal.signal(signal.SIGTERM, lambda *_: _pass_on(program))
    peak = _pump(program, reads, output)
    code = program.wait()
    code = 128 - code if code < 0 else code
    output.end()
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"labcommons: exit code {code}; memory peak {max(peak, largest)} bytes", flush=True)
    return code


def _pump(program: subprocess.Popen[bytes], reads: int, output: Output) -> int:
    """Pass on what is printed until the program has ended; the most memory that was seen.

    Without threads and processes of its own: the program may have taken all that there are.
    """
    peak, looked, until = 0, 0.0, float("inf")
    while time.monotonic() < until:
        ready, _, _ = select.select([reads], [], [], 0.1)
        if ready:
            chunk = os.read(reads, _CHUNK)
            if not chunk:
                break
            output.take(chunk)
        elif until < float("inf"):
            break  # it has ended, and what else it started says nothing now
        if program.poll() is not None:
            until = min(until, time.monotonic() + LEFT)
        if time.monotonic() - looked >= LOOK:
            looked = time.monotonic()
            used = cgroup.read()
            peak = max(peak, used.memory if used else 0)
    return peak


def _pass_on(program: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, signal.SIGTERM)


def _cannot(output: Output, message: Message, code: int) -> int:
    output.take(f"labcommons: {message.in_words(persons_language())}\n".encode())
    return code


def _notebook(prefix: str, path: str) -> list[str]:
    """What runs a notebook; what comes of it lies beside it, under the job's name."""
    given = Path(path)
    job = os.environ.get("LABCOMMONS_JOB", "0")
    made = given.with_name(f"{given.stem}.job-{job}.ipynb")
    if os.access(f"{prefix}/bin/papermill", os.X_OK):
        return [f"{prefix}/bin/papermill", "--log-output", str(given), str(made)]
    run = [sys.executable, "-I", "-m", "kernels.programs", "nbconvert", "--to", "notebook"]
    return [*run, "--execute", "--output", made.name, str(given)]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
