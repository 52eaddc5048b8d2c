"""What can go wrong with a backup, with its remedy."""

from __future__ import annotations


class BackupError(Exception):
    """A backup cannot be made or read; ``remedy`` says what to do, where that is known."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(f"{cause}; {remedy}" if remedy else cause)
        self.cause, self.remedy = cause, remedy
