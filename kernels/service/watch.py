"""Changes of folders, told by the kernel (inotify(7)): one instance for all of them.

This machine's users may have few instances (128 on many systems), and file servers tell
nothing of what other machines do: whoever watches must look by himself now and then, too.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from inotify_simple import INotify, flags, parse_events

_MASK = (
    flags.CREATE
    | flags.DELETE
    | flags.MOVED_TO
    | flags.MOVED_FROM
    | flags.ATTRIB
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
)
_BUFFER = 64 * 1024


class Watcher:
    """Tells which of the watched folders changed; ``told`` gets the names given to ``add``.

    None for a name means that events were lost: anything may have changed.
    """

    def __init__(self, told: Callable[[str | None], None]) -> None:
        self._told = told
        self._names: dict[int, str] = {}
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inotify: INotify | None = None
        self.trouble = ""

    def start(self) -> None:
        """Begin, on the running loop. Where the system refuses, ``trouble`` says why."""
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            self.trouble = f"inotify: {os.strerror(error.errno or 0)}"
            return
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._inotify.fd, self._read)

    def add(self, folder: Path, name: str) -> None:
        """Watch a folder; harmless to repeat. May block on a file server: for threads."""
        if self._inotify is None:
            return
        try:
            with self._lock:
                number = self._inotify.add_watch(folder, _MASK)
                self._names[number] = name
        except FileNotFoundError:
            return
        except OSError as error:
            # Not readable, or no watches left: it is looked at now and then all the same.
            self.trouble = f"inotify: {folder}: {os.strerror(error.errno or 0)}"

    def _read(self) -> None:
        assert self._inotify is not None
        try:
            data = os.read(self._inotify.fd, _BUFFER)
        except (BlockingIOError, InterruptedError):
            return
        names: set[str | None] = set()
        for number, mask, _, _ in parse_events(data):
            if mask & flags.Q_OVERFLOW:
                names.add(None)
            elif mask & flags.IGNORED:
                names.add(self._names.pop(number, None))
            elif number in self._names:
                names.add(self._names[number])
        for name in names:
            self._told(name)

    def close(self) -> None:
        """End; nothing is told any more."""
        if self._inotify is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
