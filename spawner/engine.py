"""The Docker Engine, off the event loop: own thread pool, time-outs, clear errors.

Every call ends: the HTTP client has a time-out, and so does the wait for a thread. A
container that is not there is None; an Engine that does not answer is EngineUnavailable,
which nobody may take for "the container is gone".
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from hub_ext.i18n import N_
from spawner.errors import EngineUnavailable, SpawnerError

T = TypeVar("T")

REFUSED = N_("Docker refused to start the server: {reason}. Tell an administrator.")
SILENT = N_("Docker does not answer ({reason}). Running servers go on; try again in a minute.")


class EngineRefused(SpawnerError):
    """Docker answers, but will not do it; the reason is Docker's own."""


@dataclass(frozen=True)
class ContainerState:
    """What ``docker inspect`` says, as far as we care.

    Attributes:
        status: Docker's word: created, running, exited, dead, …
        exit_code: of an exited container; 0 otherwise.
        addresses: IP address by network name.
        created: seconds since 1970.
        devices: GPU ids it was given; only ``inspect`` knows them.
        token: the server's own, for the hub; only ``inspect`` knows it.
    """

    id: str
    name: str
    status: str
    exit_code: int
    oom_killed: bool
    labels: dict[str, str]
    addresses: dict[str, str]
    created: float = 0.0
    devices: tuple[str, ...] = ()
    token: str = field(default="", repr=False)

    @property
    def running(self) -> bool:
        """True while the container's process lives (a paused one does)."""
        return self.status in ("running", "paused", "restarting")


class Engine:
    """One Docker Engine for one process.

    Args:
        timeout: seconds for one call, except for ``stop``, which adds its grace.
        threads: calls that may be under way at once.
    """

    def __init__(self, timeout: int = 30, threads: int = 8) -> None:
        self.timeout = timeout
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="docker")
        self._client: Any = None
        self._lock = threading.Lock()

    def _api(self) -> Any:
        # Made late and in a worker thread: making it asks the Engine for its version.
        with self._lock:
            if self._client is None:
                self._client = docker.from_env(
                    version="auto", timeout=self.timeout, max_pool_size=self._threads
                ).api
            return self._client

    async def _call(self, work: Callable[[Any], T], extra: float = 0) -> T:
        def run() -> T:
            try:
                return work(self._api())
            except APIError as error:
                # Docker answers 500, too, to what it cannot carry out (an unknown GPU, a
                # missing runtime): it is alive then, and says why.
                reason = str(error.explanation or error)[:500]
                raise EngineRefused("engine_refused", REFUSED, {"reason": reason}) from error
            except (DockerException, RequestException, OSError) as error:
                raise EngineUnavailable(
                    "engine_silent", SILENT, {"reason": _brief(error)}
                ) from error

        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, run)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self.timeout * 2 + extra)
        except TimeoutError as error:
            raise EngineUnavailable("engine_silent", SILENT, {"reason": "time-out"}) from error
        except asyncio.CancelledError:
            # The thread cannot be stopped. Wait for what it does, so that whoever cleans up
            # afterwards sees all of it; its own time-out bounds the wait.
            await asyncio.wait([future])
            raise

    async def ping(self) -> None:
        """Return when the Engine answers, else raise EngineUnavailable."""
        await self._call(lambda api: api.ping())

    async def inspect(self, name: str) -> ContainerState | None:
        """A container by name or id; None only when Docker says that there is none."""

        def work(api: Any) -> ContainerState | None:
            try:
                return _state(api.inspect_container(name))
            except NotFound:
                return None

        return await self._call(work)

    async def list(self, label: str) -> list[ContainerState]:
        """All containers, running or not, that carry a label (``key=value``).

        One call however many there are; the list does not say exit codes.
        """

        def work(api: Any) -> list[ContainerState]:
            return [
                ContainerState(
                    id=item["Id"],
                    name=item["Names"][0].lstrip("/") if item.get("Names") else item["Id"],
                    status=item["State"],
                    exit_code=0,
                    oom_killed=False,
                    labels=dict(item.get("Labels") or {}),
                    addresses={},
                    created=float(item.get("Created") or 0),
                )
                for item in api.containers(all=True, filters={"label": label})
            ]

        return await self._call(work)

    async def create(self, name: str, body: dict[str, Any]) -> str:
        """Create a container, in place of an old one of that name. Returns its id."""

        def work(api: Any) -> str:
            try:
                return str(api.create_container_from_config(body, name)["Id"])
            except APIError as error:
                if error.status_code != 409:
                    raise
            _remove(api, name)
            return str(api.create_container_from_config(body, name)["Id"])

        return await self._call(work)

    async def start(self, container_id: str) -> None:
        """Start a created container."""
        await self._call(lambda api: api.start(container_id))

    async def wait(self, container_id: str) -> int:
        """Wait for a container to exit (within the time-out); its exit code."""
        return int(await self._call(lambda api: api.wait(container_id)["StatusCode"]))

    async def stop(self, name: str, grace: int) -> None:
        """SIGTERM, ``grace`` seconds, SIGKILL. A container that is gone is fine."""

        def work(api: Any) -> None:
            with suppress(NotFound):
                api.stop(name, timeout=grace)

        await self._call(work, extra=grace)

    async def remove(self, name: str) -> None:
        """Kill and remove. A container that is gone is fine."""
        await self._call(lambda api: _remove(api, name))

    async def logs(self, name: str, lines: int = 30) -> str:
        """The end of a container's output. It is the user's: never trust it."""

        def work(api: Any) -> str:
            try:
                return bytes(api.logs(name, tail=lines))[-20_000:].decode("utf-8", "replace")
            except NotFound:
                return ""

        return await self._call(work)

    async def processes(self, name: str) -> frozenset[int]:
        """The host's numbers of the processes in a running container."""

        def work(api: Any) -> frozenset[int]:
            found = api.top(name)
            try:
                column = found["Titles"].index("PID")
                return frozenset(int(row[column]) for row in found["Processes"] or ())
            except (KeyError, ValueError, IndexError) as error:
                raise EngineRefused("engine_refused", REFUSED, {"reason": "no process ids"}) from (
                    error
                )

        return await self._call(work)

    async def execute(self, name: str, command: Sequence[str]) -> int:
        """Run a short command in a running container; its exit code. What it prints is dropped."""

        def work(api: Any) -> int:
            run = api.exec_create(name, list(command), stdout=False, stderr=False)
            api.exec_start(run, detach=True)
            deadline = time.monotonic() + self.timeout
            while True:
                found = api.exec_inspect(run)
                if not found["Running"]:
                    return int(found["ExitCode"] if found["ExitCode"] is not None else -1)
                if time.monotonic() > deadline:
                    raise EngineUnavailable("engine_silent", SILENT, {"reason": "time-out"})
                time.sleep(0.1)

        return await self._call(work)

    async def command_lines(self, name: str) -> Sequence[str]:
        """The command lines of a running container's processes. They are the user's own words."""

        def work(api: Any) -> Sequence[str]:
            found = api.top(name, "-eo pid,args")
            return [" ".join(row[1:]) for row in found.get("Processes") or []]

        return await self._call(work)

    def close(self) -> None:
        """Give back threads and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()


def _remove(api: Any, name: str) -> None:
    try:
        api.remove_container(name, force=True, v=True)
    except NotFound:
        pass
    except APIError as error:
        # 409: a removal is already under way.
        if error.status_code != 409:
            raise


def _state(found: dict[str, Any]) -> ContainerState:
    state, networks = found["State"], found["NetworkSettings"].get("Networks") or {}
    return ContainerState(
        id=found["Id"],
        name=found["Name"].lstrip("/"),
        status=state["Status"],
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        labels=dict(found["Config"].get("Labels") or {}),
        addresses={name: net.get("IPAddress") or "" for name, net in networks.items()},
        devices=_devices(found),
        token=_variable(found, "JUPYTERHUB_API_TOKEN"),
    )


def _devices(found: dict[str, Any]) -> tuple[str, ...]:
    """What was asked of the NVIDIA runtime: by request, or (simulated) by variable."""
    requests = found.get("HostConfig", {}).get("DeviceRequests") or []
    ids = [id_ for request in requests for id_ in request.get("DeviceIDs") or []]
    simulated = _variable(found, "NVIDIA_VISIBLE_DEVICES")
    if simulated and simulated != "void":
        ids += simulated.split(",")
    return tuple(dict.fromkeys(ids))


def _variable(found: dict[str, Any], name: str) -> str:
    """A variable that a container was made with: nothing inside can change it."""
    pairs = (variable.partition("=") for variable in found["Config"].get("Env") or ())
    return next((value for key, _, value in pairs if key == name), "")


def _brief(error: BaseException) -> str:
    """The innermost reason: docker-py and requests wrap it several times."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error)[:120] or type(error).__name__
