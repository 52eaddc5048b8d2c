"""How a builder speaks to the hub: by a way that no program of a package can take.

In a builder run programs of packages, with the same user's numbers as our own. So there are two
processes of ours: the first one of the container, which alone writes to the container's log, and
the worker, which tells it what to write. Neither can be traced, nor its memory or descriptors
opened below /proc (``PR_SET_DUMPABLE``); the first one cannot be killed from within, as the kernel
has it for number 1. What the worker's children print comes by another pipe and is passed on as
text, never as a word of ours. A worker that is killed has said nothing.

Each line of the log is a JSON object: ``{"progress": {…}}``, ``{"log": "…"}``, then one
``{"result": {…}}`` or ``{"error": "…", "kind": "…", "message": {…}}``, the message as data. A
result counts when the exit code is 0.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

from environments.errors import BuildError
from environments.messages import making as texts
from kernels.hostile import Lines

# What programs of packages print: bytes of a line and of all, and lines.
MAX_TEXT_LINE, MAX_TEXT, MAX_TEXT_LINES = 4096, 2 * 2**20, 50_000
# Bytes of a line of ours: of any, and of the result, which has a lock and its exports.
MAX_LINE, MAX_RESULT = 64 * 1024, 8 * 2**20
_PIECE = 65536
_SHUT, _DIE_WITH_PARENT = 4, 1  # PR_SET_DUMPABLE, PR_SET_PDEATHSIG


class _Mouth:
    """Where this process speaks: standard output, but for the worker."""

    descriptor = 1


def say(**event: Any) -> None:
    """Tell the hub something: one line, whole. Raises BuildError for more than it would read."""
    raw = json.dumps(event).encode() + b"\n"
    if len(raw) > (MAX_RESULT if "result" in event else MAX_LINE):
        raise BuildError(texts.TOO_MUCH_SAID(kilobytes=len(raw) >> 10))
    _write(raw)


def serve(work: Callable[[], int]) -> NoReturn:
    """Do ``work`` in a process that nothing it starts can speak for; ends with its exit code."""
    _prctl(_SHUT, 0)
    words, texts = os.pipe(), os.pipe()  # closed in whatever is executed (PEP 446)
    sys.stdout.flush()
    worker = os.fork()
    if worker == 0:
        _prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        os.close(words[0])
        _Mouth.descriptor = words[1]
        os.dup2(texts[1], 1)  # these two are what its children inherit
        os.dup2(texts[1], 2)
        code = 1
        try:
            code = work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            # All is said and written. To take apart what was imported takes longer than a small
            # work.
            os._exit(code)
    # The first process has no handler that a signal from within could reach.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.close(words[1])
    os.close(texts[1])
    os._exit(_listen(worker, words[0], texts[0]))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _listen(worker: int, words: int, texts: int) -> int:
    """Pass on what worker and programs say until the worker has ended; its exit code.

    Orphans become this process's children, and are taken leave of.
    """
    text, code = _Text(), 0
    waiting = select.poll()
    waiting.register(words, select.POLLIN)
    waiting.register(texts, select.POLLIN)
    parts: list[bytes] = []  # of a line that is not whole yet: nothing may come between
    speaks = True
    while speaks:
        ready = {descriptor for descriptor, _ in waiting.poll(1000)}
        if texts in ready:
            if printed := os.read(texts, _PIECE):
                text.add(printed)
            else:
                waiting.unregister(texts)
        if words in ready:
            said = os.read(words, _PIECE)
            speaks = bool(said)  # the worker alone has the other end
            whole, end, rest = said.rpartition(b"\n")
            if end:
                _write(b"".join((*parts, whole, end)))
                parts = []
            parts.append(rest)
        while (found := _wait(-1, os.WNOHANG))[0]:
            if found[0] == worker:
                code = found[1]
                worker = 0
    if worker:
        code = _wait(worker, 0)[1]
    # What is in the pipe by now; an orphan may print for ever.
    while texts in {descriptor for descriptor, _ in waiting.poll(0)}:
        if text.full or not (printed := os.read(texts, _PIECE)):
            break
        text.add(printed)
    text.end()
    return code


def _wait(child: int, how: int) -> tuple[int, int]:
    """Which child has ended, and its exit code as a shell says it; 0 for none."""
    try:
        found, status = os.waitpid(child, how)
    except ChildProcessError:
        return 0, 1
    code = os.waitstatus_to_exitcode(status)
    return found, code if code >= 0 else 128 - code


class _Text:
    """Makes lines of the log of what programs print, as far as there is room for it."""

    def __init__(self) -> None:
        self._lines = Lines(MAX_TEXT_LINE, MAX_TEXT, MAX_TEXT_LINES)

    @property
    def full(self) -> bool:
        return self._lines.over

    def add(self, piece: bytes) -> None:
        if not self.full:
            self._say(self._lines.cut([piece], with_rest=False))
            if self.full:
                say(log="(what is printed from here on is left out)")

    def end(self) -> None:
        self._say(self._lines.cut([]))

    def _say(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            say(log=line.decode("utf-8", "replace"))


def _write(raw: bytes) -> None:
    while raw:
        raw = raw[os.write(_Mouth.descriptor, raw) :]
