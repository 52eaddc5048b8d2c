"""One Docker Engine, off the event loop: one client, own threads, time-outs, clear errors.

Every call ends: the HTTP client has a time-out, and so does the wait for a thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from commons.errors import RuntimeRefused, RuntimeSilent
from spawner.runtime import labels
from spawner.runtime.docker import free
from spawner.runtime.messages import ENGINE_FULL, ENGINE_REFUSED, ENGINE_SILENT
from spawner.runtime.protocol import LEAST_ENGINE

T = TypeVar("T")

REMOVAL = 20.0  # seconds until a container that is being removed has gone
CONFLICT = 409
_NO_ROOM = "no space left on device"  # as the kernel says it, through whatever programs


def silent(reason: str) -> RuntimeSilent:
    return RuntimeSilent(ENGINE_SILENT(reason=reason))


def refused(reason: str) -> RuntimeRefused:
    found = RuntimeRefused(ENGINE_REFUSED(reason=reason))
    found.status = 502
    return found


def full(reason: str) -> RuntimeRefused:
    found = RuntimeRefused(ENGINE_FULL(reason=reason))
    found.status = 503
    return found


def says_full(reason: object) -> bool:
    """Whether what an Engine could not do wants room on a disk."""
    return _NO_ROOM in str(reason).lower()


class Engine:
    """One Docker Engine for one process.

    Args:
        timeout: seconds for one call.
        threads: calls that may be under way at once.
    """

    def __init__(self, timeout: int = 30, threads: int = 8) -> None:
        self.timeout, self._threads = timeout, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="engine")
        self._client: Any = None
        self._lock = threading.Lock()

    def api(self) -> Any:
        """The client. Made late and in a worker thread: making it asks for the Engine's version."""
        with self._lock:
            if self._client is None:
                self._client = docker.from_env(
                    version="auto", timeout=self.timeout, max_pool_size=self._threads + 16
                ).api
            return self._client

    async def call(self, work: Callable[[Any], T], seconds: float | None = None) -> T:
        """What ``work`` makes of the client, in a thread. Raises RuntimeRefused, RuntimeSilent."""

        def run() -> T:
            with engine_errors():
                return work(self.api())

        future = asyncio.get_running_loop().run_in_executor(self._pool, run)
        try:
            # Not wait_for: Python 3.11's loses a cancellation that comes with the answer.
            async with asyncio.timeout(seconds or self.timeout * 2):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise silent("time-out") from error
        except asyncio.CancelledError:
            # The thread cannot be stopped. Wait for what it does, so that whoever cleans up
            # afterwards sees all of it; its own time-out bounds the wait.
            await asyncio.wait([future])
            raise

    async def ping(self) -> None:
        """Return when the Engine answers, else raise RuntimeSilent."""
        await self.call(lambda api: api.ping())

    def knock(self) -> None:
        """Return where the Engine takes new callers; one that goes down answers old ones alone.

        For a worker thread.
        """
        client = docker.from_env(timeout=self.timeout)
        try:
            client.ping()
        finally:
            client.close()

    def close(self) -> None:
        """Give back threads and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()


@contextmanager
def engine_errors() -> Iterator[None]:
    """The client's errors as ours."""
    try:
        yield
    except APIError as error:
        # Docker answers 500, too, to what it cannot carry out (an unknown GPU, a missing
        # runtime): it is alive then, and says why.
        reason = str(error.explanation or error)
        raise (full if says_full(reason) else refused)(reason[:500]) from error
    except (DockerException, RequestException, OSError) as error:
        raise silent(innermost(error)) from error


def create(api: Any, name: str, body: dict[str, Any]) -> str:
    """Create a container in place of what its site has of that name; its id.

    The caller sees to it that nobody else makes one of that name at the same time: what is there
    is left from an earlier life. Raises RuntimeRefused where it is not of the same site, and where
    the Engine's disk is full: what is made there by halves would hang, or miss something.
    """
    if (left := free.of_engine()) < LEAST_ENGINE:
        raise full(f"{left // 2**20} MB")
    deadline = time.monotonic() + REMOVAL
    site = body["Labels"][labels.SITE]
    while True:
        try:
            return str(api.create_container_from_config(body, name)["Id"])
        except APIError as error:
            if error.status_code != CONFLICT or time.monotonic() > deadline:
                raise
        if found := of_site(api, name, site):
            remove(api, found)


def of_site(api: Any, name: str, site: str) -> str:
    """The id of the container of that name, "" where there is none.

    Raises RuntimeRefused where it is another site's, or nobody of us made it.
    """
    try:
        found = api.inspect_container(name)
    except NotFound:
        return ""
    marks = found["Config"].get("Labels") or {}
    if marks.get(labels.SITE) != site:
        raise refused(f"the container {name} is not of the site {site}, and stays")
    return str(found["Id"])


def remove(api: Any, name: str) -> None:
    """Kill and remove; return when it has gone. One that is gone is fine."""
    deadline = time.monotonic() + REMOVAL
    while True:
        try:
            return api.remove_container(name, force=True, v=True)  # type: ignore[no-any-return]
        except NotFound:
            return None
        except APIError as error:
            # A removal is under way: by the Engine itself, or by whoever was here before.
            if error.status_code != CONFLICT or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def innermost(error: BaseException) -> str:
    """The innermost reason: docker-py and requests wrap it several times."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error)[:120] or type(error).__name__
