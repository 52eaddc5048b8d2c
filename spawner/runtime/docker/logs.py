"""The output of a container, line by line as it is written, without holding up an event loop.

It is read and cut in a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from docker.errors import DockerException
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from commons.errors import LabError
from spawner.runtime.docker.engine import Engine, innermost, silent
from spawner.runtime.protocol import TooMuchSaid, output_limits

# Without a word for so long, the connection is made anew: it may be dead.
QUIET = 60  # seconds
TRIES = 20
PAUSE = 3  # seconds between two of them
_BUFFER = 20  # lines
_TROUBLE = (DockerException, RequestException, HTTPError, OSError)


async def follow(engine: Engine, container: str, after: int) -> AsyncIterator[bytes]:
    """The lines of a container's output, without the first ``after``, to the last one.

    Raises TooMuchSaid beyond ``output_limits``, RuntimeSilent when the Engine stays silent.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[bytes | Exception | None](_BUFFER)
    over = threading.Event()

    def put(item: bytes | Exception | None) -> bool:
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
                _read(engine, container, after, put, over)
                put(None)
            except Exception as error:  # whatever it is, the listener must not wait for ever
                put(error)

    # A daemon: it may be in a call of QUIET seconds when the process wants to end.
    threading.Thread(target=read, name="task-log", daemon=True).start()
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, LabError):
                raise item
            if isinstance(item, _TROUBLE):
                raise silent(innermost(item)) from item
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        over.set()


def _read(
    engine: Engine,
    container: str,
    seen: int,
    pass_on: Callable[[bytes], bool],
    over: threading.Event,
) -> None:
    """Hand over each line once, whatever happens to the connection in between.

    When the stream ends, what was written is read once more: the last lines of a container
    that ends can be missing from its stream.
    """
    tries, ended = 0, False
    while not over.is_set():
        try:
            api = engine.api()
            limits = output_limits()
            chunks = api.logs(container, stream=True, follow=not ended)
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
            api.wait(container)
            ended = True
        except _TROUBLE as error:
            # Quiet for long, or the Engine was restarted; else it has no such container.
            tries += 1
            if tries > TRIES or getattr(error, "status_code", 0) == 404:
                raise
            over.wait(PAUSE if tries > 1 else 0)
