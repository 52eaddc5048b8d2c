"""What runs, known from one stream of the Engine's events instead of a look at each container.

While the stream lives, what was seen of a container holds until an event names it. When the stream
breaks, or the Engine falls silent, nothing holds any more: each question goes to the Engine.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from commons.errors import RuntimeSilent
from spawner.runtime import labels
from spawner.runtime.docker.body import PURPOSE
from spawner.runtime.docker.engine import Engine, silent
from spawner.runtime.protocol import Event, EventKind, ServerState
from spawner.runtime.spec import CDI

log = logging.getLogger(__name__)
PULSE = 5.0  # seconds between two looks at whether the Engine lives
_AGAIN, _SELDOM = 0.5, 5.0  # seconds until a broken stream is opened again: at first, and later
_MOST = 1000  # events that wait for one listener
_STARTS, _ENDS = frozenset({"start", "unpause"}), frozenset({"die", "destroy"})


class Watch:
    """A copy of what is known of one site's containers.

    Args:
        network: of servers, where their addresses are.
    """

    def __init__(self, engine: Engine, site_id: str, network: str) -> None:
        self.engine, self.site_id, self.network = engine, site_id, network
        self._open = asyncio.Event()
        self._since = 0.0  # seconds since 1970: nothing was missed after that, while it is open
        self._states: dict[str, ServerState] = {}
        self._news = 0  # rises with each event, so that a look that it may have overtaken is known
        self._listeners: set[asyncio.Queue[Event | None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stream: Any = None
        self._over = False

    @property
    def alive(self) -> bool:
        """Whether what was seen holds until an event says otherwise."""
        return self._open.is_set()

    def begin(self) -> None:
        """Listen from now on; called once, in the event loop."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._listen()),
                asyncio.create_task(self._feel_pulse()),
            ]

    async def close(self) -> None:
        self._over = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._hang_up()

    # -- asking ----------------------------------------------------------------------------------

    async def state(self, handle: str) -> ServerState | None:
        """What a container of this site is like now; None where there is none.

        Raises RuntimeSilent.
        """
        if self.alive and (known := self._states.get(handle)):
            return known
        before = self._news
        found = await self.engine.call(lambda api: self._inspect(api, handle))
        # What an event may have named meanwhile is looked at again next time.
        if found is not None and self.alive and self._news == before:
            self._states[found.handle] = found
        return found

    def _inspect(self, api: Any, handle: str) -> ServerState | None:
        try:
            found = api.inspect_container(handle)
        except NotFound:
            return None
        marks = found["Config"].get("Labels") or {}
        if marks.get(labels.SITE) != self.site_id:
            return None
        if labels.USER not in marks and PURPOSE not in marks:
            return None
        state = read_state(found, self.network)
        ended = _seconds(found["State"].get("FinishedAt", ""))
        if state.runs or ended <= 0:
            return state
        if self.alive and ended > self._since:
            self.engine.knock()  # who is there to hear it may be the next that a shutdown ends
            return state
        return state.model_copy(update={"engine_restarted": _all_began_after(api, ended)})

    async def list(self) -> list[ServerState]:
        """All servers of this site, running or not."""
        filters = {"label": [f"{labels.SITE}={self.site_id}", labels.USER]}
        found = await self.engine.call(lambda api: api.containers(all=True, filters=filters))
        return [
            ServerState(
                handle=item["Id"],
                user=item["Labels"][labels.USER],
                server=item["Labels"].get(labels.SERVER, ""),
                status=item["State"],
                created=float(item.get("Created") or 0),
                labels=_ours(item["Labels"]),
            )
            for item in found
        ]

    async def events(self) -> AsyncIterator[Event]:
        """What happens to servers; RESYNC at first. Raises RuntimeSilent where it breaks off."""
        try:
            await asyncio.wait_for(self._open.wait(), self.engine.timeout)
        except TimeoutError as error:
            raise silent("no events") from error
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_MOST)
        self._listeners.add(queue)
        try:
            yield Event(kind=EventKind.RESYNC, at=time.time())
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._listeners.discard(queue)
        raise silent("events broke off")

    def forget(self, handle: str = "") -> None:
        """What we do ourselves to a container (without a handle: to some) is not news later."""
        if handle:
            self._states.pop(handle, None)
        else:
            self._states.clear()
        self._news += 1

    def break_off(self) -> None:
        """Give up the stream and all that was known by it; a new one is opened."""
        self._broken()
        self._hang_up()

    # -- listening -------------------------------------------------------------------------------

    async def _listen(self) -> None:
        loop, pause = asyncio.get_running_loop(), _AGAIN
        while not self._over:
            ended: asyncio.Future[str] = loop.create_future()
            threading.Thread(
                target=self._read, args=(loop, ended), name="engine-events", daemon=True
            ).start()
            why = await ended
            pause = _AGAIN if self.alive else min(2 * pause, _SELDOM)
            if self.alive:
                log.warning("the Engine's events broke off: %s", why)
            self._broken()
            await asyncio.sleep(pause)

    def _read(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[str]) -> None:
        """In a thread: hand over events until the stream ends, and say why it did."""
        filters = {"type": "container", "label": f"{labels.SITE}={self.site_id}"}
        why = "the Engine ended"
        try:
            # Since a moment ago: the answer begins before the Engine listens for it.
            now = time.time()
            self._stream = self.engine.api().events(
                since=int(now) - 1, filters=filters, decode=True
            )
            loop.call_soon_threadsafe(self._opened, now)
            for event in self._stream:
                loop.call_soon_threadsafe(self._take, event)
        except Exception as error:  # a client whose connection is closed under it raises anything
            why = str(error)[:200] or type(error).__name__
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_say, ended, why)

    def _opened(self, since: float) -> None:
        # What was seen before may have changed before the stream was there.
        self.forget()
        self._since = since
        self._open.set()

    def _broken(self) -> None:
        self._open.clear()
        self.forget()
        for queue in self._listeners:
            _end(queue)

    def _hang_up(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(Exception):  # whatever state it is in
                stream.close()

    def _take(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor") or {}
        handle, marks = str(actor.get("ID") or ""), actor.get("Attributes") or {}
        self.forget(handle)
        if labels.USER not in marks:
            return
        at = float(event.get("timeNano") or 0) / 1e9
        action = str(event.get("Action") or "")
        if action in _STARTS:
            self._tell(Event(kind=EventKind.STARTED, handle=handle, at=at))
        elif action in _ENDS:
            code = str(marks.get("exitCode", ""))
            self._tell(
                Event(
                    kind=EventKind.ENDED,
                    handle=handle,
                    at=at,
                    exit_code=int(code) if code.isdigit() else None,
                )
            )

    def _tell(self, event: Event) -> None:
        for queue in self._listeners:
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:  # who listens too slowly begins anew
                _end(queue)

    async def _feel_pulse(self) -> None:
        """A daemon that stands still keeps its stream open: only a question finds that out."""
        while True:
            await asyncio.sleep(PULSE)
            try:
                await self.engine.ping()
            except RuntimeSilent:
                if self.alive:
                    self.break_off()
            except Exception as error:
                log.warning("the Engine's answer to a ping is strange: %s", error)


def _say(ended: asyncio.Future[str], why: str) -> None:
    if not ended.done():
        ended.set_result(why)


def read_state(found: dict[str, Any], network: str) -> ServerState:
    """What ``docker inspect`` says, as far as we care."""
    created = _seconds(found.get("Created", ""))
    state, networks = found["State"], found["NetworkSettings"].get("Networks") or {}
    marks = found["Config"].get("Labels") or {}
    return ServerState(
        handle=found["Id"],
        user=marks.get(labels.USER, ""),
        server=marks.get(labels.SERVER, ""),
        status=state["Status"],
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        address=(networks.get(network) or {}).get("IPAddress") or "",
        created=created,
        machine_restarted=0 < created < machine_started(),
        labels=_ours(marks),
        devices=_devices(found),
        token=_variable(found, "JUPYTERHUB_API_TOKEN"),
    )


def _all_began_after(api: Any, ended: float) -> bool:
    """Whether nothing that runs on the Engine ran when something ended, so that all did then.

    No Engine says when it was started, but without live-restore it ends all that runs.
    """
    for item in api.containers():
        with suppress(NotFound):
            began = api.inspect_container(item["Id"])["State"].get("StartedAt", "")
            if _seconds(began) < ended:
                return False
    return True


@cache
def machine_started() -> float:
    """When this machine was started, seconds since 1970; 0 where it does not say."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/stat").read_text("ascii").splitlines()
        return float(next(line for line in lines if line.startswith("btime ")).split()[1])
    return 0.0


def _ours(marks: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in marks.items() if key.startswith("labcommons.")}


def _seconds(text: str) -> float:
    with suppress(ValueError):
        return datetime.fromisoformat(text).timestamp()
    return 0.0


def _devices(found: dict[str, Any]) -> tuple[str, ...]:
    """The GPUs that were asked for: by request, or (simulated) by variable."""
    requests = found.get("HostConfig", {}).get("DeviceRequests") or []
    names = (name for request in requests for name in request.get("DeviceIDs") or [])
    ids = [name.removeprefix(CDI) for name in names]
    simulated = _variable(found, "NVIDIA_VISIBLE_DEVICES")
    if simulated and simulated != "void":
        ids += simulated.split(",")
    return tuple(dict.fromkeys(ids))


def _variable(found: dict[str, Any], name: str) -> str:
    """A variable that a container was made with: nothing inside can change it."""
    pairs = (variable.partition("=") for variable in found["Config"].get("Env") or ())
    return next((value for key, _, value in pairs if key == name), "")


def _end(queue: asyncio.Queue[Event | None]) -> None:
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)
