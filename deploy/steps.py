"""Progress: one line for every step, one log file behind it."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from deploy.shell import CommandFailed, Failure, run

TAIL = 25  # lines of a log shown when its step fails
WIDTH = 400  # characters of each that are shown


class Step:
    """What a step says of itself while it runs.

    Attributes:
        log: everything its programs print.
        result: how the line ends; ``done`` also gets the seconds it took.
    """

    def __init__(self, log: IO[str]) -> None:
        self.log = log
        self.result = "done"
        self.remedy = ""

    def run(
        self,
        command: Sequence[str | Path],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: IO[bytes] | None = None,
    ) -> None:
        """Run a program with its output in the step's log; raises CommandFailed."""
        run(command, self.log, timeout=timeout, env=env, cwd=cwd, stdin=stdin)

    def note(self, text: str) -> None:
        """Write a line into the log."""
        self.log.write(text + "\n")
        self.log.flush()


class Progress:
    """Prints ``[ 3/11] building labcommons/hub … done (42 s)``."""

    def __init__(self, total: int, logs: Path, out: IO[str] = sys.stdout) -> None:
        self.total = total
        self.logs = logs
        self.number = 0
        self.out = out

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """One step. An error inside it ends the line, and shows the end of the log."""
        self.number += 1
        self.logs.mkdir(parents=True, exist_ok=True)
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        path = self.logs / f"{self.number:02d}-{slug}.log"
        begin = time.monotonic()
        width = len(str(self.total))
        self._say(f"[{self.number:{width}}/{self.total}] {title} … ", end="")
        with path.open("w", encoding="utf-8", errors="replace") as log:
            step = Step(log)
            try:
                yield step
            except Failure as failure:
                self._say("failed")
                if isinstance(failure, CommandFailed):
                    self._tail(path)
                failure.remedy = failure.remedy or step.remedy
                raise
            except BaseException:
                self._say("interrupted")
                raise
        seconds = time.monotonic() - begin
        self._say(f"{step.result} ({seconds:.0f} s)" if seconds >= 1 else step.result)

    def _tail(self, path: Path) -> None:
        lines = path.read_text("utf-8", errors="replace").splitlines()
        for line in lines[-TAIL:]:
            plain = re.sub(r"\x1b\[[0-9;]*m", "", line)[:WIDTH]
            self._say("    " + "".join(c if c.isprintable() else " " for c in plain))
        self._say(f"    (the whole log: {path})")

    def _say(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self.out, flush=True)
