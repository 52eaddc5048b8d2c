"""Kernels that ended though nobody asked them to: told to who listens, in the same process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Death:
    """A kernel's end.

    Attributes:
        kernel: its id; ``shown``: its kernelspec's display name.
        status: exit status, negative for a signal.
        peak: the most memory that it, or a child that it waited for, had (bytes); 0: not known.
    """

    kernel: str
    shown: str
    status: int
    peak: int = 0


_listeners: list[Callable[[Death], None]] = []


def listen(listener: Callable[[Death], None]) -> None:
    """Have each later death told to ``listener``, on the thread that noticed it."""
    _listeners.append(listener)


def tell(death: Death) -> None:
    """Tell who listens."""
    for listener in _listeners:
        listener(death)


def reap(process: subprocess.Popen[bytes]) -> int:
    """Take the status of a process that has ended, as ``Popen.poll`` would; the most memory that it
    had (bytes), which is known at this moment alone. 0 where it runs, or was waited for already.
    """
    if process.returncode is not None or sys.platform == "win32":
        return 0
    try:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    if pid != process.pid:
        return 0
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_maxrss * 1024
