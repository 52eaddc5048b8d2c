"""The output of a container, line by line as it is written, without holding up an event loop.

It is read, cut and understood in a thread of its own; the loop is given what came of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TypeVar

import docker
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from hub_ext.i18n import N_
from kernels.hostile import Lines
from spawner.errors import EngineUnavailable

T = TypeVar("T")

# Without a word for so long, the connection is made anew: it may be dead.
QUIET = 60  # seconds
TRIES = 20
PAUSE = 3  # seconds between two of them
_BUFFER = 20  # of what came of lines


class TooMuchSaid(Exception):
    """A container printed more than is listened to."""


async def follow(
    container: str, take: Callable[[bytes], T | None], lines: Callable[[], Lines]
) -> AsyncIterator[T]:
    """What ``take`` makes of the lines of a container's output, from its first one to its end.

    ``take`` is called in a thread, once for each line; None is not passed on. ``lines`` has the
    limits. Raises TooMuchSaid beyond them, EngineUnavailable when Docker stays silent, and what
    ``take`` raises.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[T] | Exception | None](_BUFFER)
    over = threading.Event()

    def put(item: tuple[T] | Exception | None) -> bool:
        while not over.is_set():
            future = asyncio.run_coroutine_threadsafe(queue.put(item), loop)
            with suppress(TimeoutError):
                future.result(QUIET)
                return True
            future.cancel()
        return False

    def pass_on(line: bytes) -> bool:
        made = take(line)
        return not over.is_set() if made is None else put((made,))

    def read() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            try:
                _read(container, pass_on, over, lines)
                put(None)
            except Exception as error:  # whatever it is, the listener must not wait for ever
                put(error)

    # A daemon: it may be in a call of QUIET seconds when the process wants to end.
    threading.Thread(target=read, name="build-log", daemon=True).start()
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, (DockerException, RequestException, OSError)):
                raise EngineUnavailable(
                    "engine_silent",
                    N_("Docker does not answer ({reason}). Try the build again in a minute."),
                    {"reason": str(item)[:120]},
                ) from item
            if isinstance(item, Exception):
                raise item
            yield item[0]
    finally:
        over.set()


def _read(
    container: str,
    pass_on: Callable[[bytes], bool],
    over: threading.Event,
    lines: Callable[[], Lines],
) -> None:
    """Hand over each line once, whatever happens to the connection in between.

    When the stream ends, what was written is read once more: the last lines of a container
    that ends can be missing from its stream.
    """
    seen = tries = 0
    ended = False
    while not over.is_set():
        try:
            client = docker.from_env(timeout=QUIET)
            try:
                limits = lines()
                chunks = client.api.logs(container, stream=True, follow=not ended)
                for number, line in enumerate(limits.cut(chunks, with_rest=ended), 1):
                    if number <= seen:
                        continue
                    seen, tries = number, 0
                    if not pass_on(line):
                        return
                if limits.over:
                    raise TooMuchSaid
                if ended:
                    return
                client.api.wait(container)
                ended = True
            finally:
                client.close()
        except APIError:
            raise
        except (DockerException, RequestException, OSError):
            # Quiet for long, or the Engine was restarted.
            tries += 1
            if tries > TRIES:
                raise
            over.wait(PAUSE)
