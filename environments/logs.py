"""What a build said, kept in a file that a person can read; the last ones of each environment."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO

from environments.errors import BuildError
from environments.messages import making as texts
from environments.progress import Progress, Report

KEPT = 10  # logs of one environment


class BuildLog:
    """Writes down what is reported while the block lasts, and how it ended.

    A failure's message gets the file's name, so that who reads it finds the rest.
    """

    def __init__(self, folder: Path, name: str, report: Report) -> None:
        self.folder, self.name, self.report = folder / name, name, report
        self.path = self.folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}.log"
        self._file: IO[str] | None = None

    def __enter__(self) -> BuildLog:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8")
            for old in sorted(self.folder.glob("*.log"))[:-KEPT]:
                old.unlink(missing_ok=True)
        except OSError:
            self._file = None  # a full disk must not hide what is wrong
        return self

    def tell(self, progress: Progress) -> None:
        """Write a line and pass it on."""
        self._write(str(progress))
        self.report(progress)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._write("done")
        elif isinstance(error, BuildError):
            self._write(f"failed: {error}")
            error.message = texts.WITH_LOG(reason=error.message, file=self.path)
        else:
            self._write("".join(traceback.format_exception(error)))
        if self._file:
            self._file.close()

    def _write(self, words: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(f"{datetime.now(UTC):%H:%M:%S} {words}\n")
            self._file.flush()
        except OSError:
            pass
