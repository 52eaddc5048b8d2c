"""The output of a container, line by line as it is written, without holding up an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import docker
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from hub_ext.i18n import N_
from spawner.errors import EngineUnavailable

# Without a word for so long, the connection is made anew: it may be dead.
QUIET = 60  # seconds
TRIES = 20
PAUSE = 3  # seconds between two of them
_BUFFER = 200  # lines


async def follow(container: str, most: int) -> AsyncIterator[str]:
    """The lines of a container's output, from its first one until it ends.

    After ``most`` bytes the rest is left out. Raises EngineUnavailable when Docker stays silent.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[str | Exception | None](_BUFFER)
    over = threading.Event()

    def put(item: str | Exception | None) -> bool:
        while not over.is_set():
            future = asyncio.run_coroutine_threadsafe(queue.put(item), loop)
            with suppress(TimeoutError):
                future.result(QUIET)
                return True
            future.cancel()
        return False

    def read() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            try:
                _read(container, most, put, over)
                put(None)
            except Exception as error:  # whatever it is, the listener must not wait for ever
                put(error)

    # A daemon: it may be in a call of QUIET seconds when the process wants to end.
    threading.Thread(target=read, name="build-log", daemon=True).start()
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise EngineUnavailable(
                    "engine_silent",
                    N_("Docker does not answer ({reason}). Try the build again in a minute."),
                    {"reason": str(item)[:120]},
                ) from item
            yield item
    finally:
        over.set()


def _read(container: str, most: int, put: Any, over: threading.Event) -> None:
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
                number = size = 0
                chunks = client.api.logs(container, stream=True, follow=not ended)
                for line in _lines(chunks, with_rest=ended):
                    number, size = number + 1, size + len(line)
                    if number <= seen:
                        continue
                    seen, tries = number, 0
                    if size > most or not put(line.decode("utf-8", "replace")):
                        return
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


def _lines(chunks: Any, with_rest: bool) -> Any:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest and with_rest:
        yield rest
