"""Server extension: what the server uses of its container, and why kernels in it died.

A look costs a few small files; it is at what the kernel counts (``kernels.cgroup``), not at the
machine. What there is to tell goes to the console, from where it comes back as a notice; the page
asks for figures here. Each crossing of a limit is told once.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import labcommons_away
from jupyter_server.utils import ensure_async, url_path_join
from labcommons_notices import Base, Console, shared_console
from tornado.web import HTTPError, authenticated

from kernels import cgroup, deaths

HIGH, LOW = 0.85, 0.75  # shares: told above the one, told anew after it was below the other
CLOSE = 0.5  # share of memory from which on processes are looked at, and more often
SLOW, QUICK = 5.0, 1.0  # seconds between two looks
DISK = 30.0  # seconds between two looks at the disk
# Seconds within which a kernel that was killed for its memory is noticed: Jupyter looks every 3.
NOTICED = 6.0
MOST_UNTOLD = 20  # events that are kept while the console is away
ANSWER = 10.0  # seconds that a page waits for the reason of a death
IN_MEMORY = ("/tmp", "/dev/shm")  # noqa: S108

# Gives the number of the notice; 0 where there is nothing more to tell, None: try again later.
Tell = Callable[[dict[str, Any]], Awaitable[int | None]]


class Watch:
    """Looks after one container.

    Args:
        tell: sends an event to the console.
        kernels: the process of each kernel: pid -> (kernel's id, what it is called).
    """

    def __init__(
        self,
        home: str,
        tell: Tell,
        kernels: Callable[[], Awaitable[dict[int, tuple[str, str]]]],
        read: Callable[[], cgroup.Usage | None] = cgroup.read,
        processes: Callable[[], dict[int, cgroup.Process]] = cgroup.processes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home, self._tell, self._kernels = home, tell, kernels
        self._read, self._processes, self._clock = read, processes, clock
        self.usage = read()
        self.cores = 0.0
        self.disk: tuple[int, int] | None = None
        self.news = 0  # grows with each thing that was told
        self._cpu = (clock(), self.usage.cpu_seconds if self.usage else 0.0)
        self._disk_at = -DISK
        self._killed = self.usage.killed if self.usage else 0
        self._kills: list[tuple[float, cgroup.Process | None]] = []  # not yet told
        self._before: dict[int, cgroup.Process] = {}
        self._short: dict[int, cgroup.Process] = {}  # as it was when memory was short
        self._names: dict[int, tuple[str, str]] = {}
        self._high: set[str] = set()
        self._untold: list[dict[str, Any]] = []
        self.told: dict[str, asyncio.Future[int | None]] = {}  # kernel's id -> notice of its death

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            near = self.usage is not None and self.usage.share > CLOSE
            await asyncio.sleep(QUICK if near else SLOW)

    async def look(self) -> None:
        """Look once, and tell what there is to tell."""
        self._measure()
        usage = self.usage
        if usage is None:
            return
        if usage.share > CLOSE or self._kills:
            self._names = await self._kernels()
        await self._tell_kills()
        await self._tell_later()
        used: dict[str, tuple[int, int]] = {}
        if usage.limit:
            used["memory_high"] = (usage.memory, usage.limit)
        for place in IN_MEMORY:
            if found := _space(place):
                used[f"tmp_high:{place}"] = found
        if self.disk:
            used["disk_high"] = self.disk
        for what, (taken, most) in used.items():
            await self._compare(what, taken, most)

    def _measure(self) -> None:
        """Read the counters, and note who was killed."""
        now = self._clock()
        usage = self._read()
        if usage is None:
            return
        passed = now - self._cpu[0]
        if passed >= QUICK:
            self.cores = max(0.0, (usage.cpu_seconds - self._cpu[1]) / passed)
            self._cpu = (now, usage.cpu_seconds)
        if now - self._disk_at >= DISK:
            self.disk, self._disk_at = _space(self._home), now
        near = usage.share > CLOSE
        new = usage.killed - self._killed
        there = self._processes() if near or new > 0 else {}
        if new > 0:
            missing = [
                one
                for pid, one in self._before.items()
                if pid not in there or not there[pid].memory
            ]
            missing.sort(key=lambda one: -one.memory)
            self._short = self._short or self._before
            victims: list[cgroup.Process | None] = [*missing[:new], *[None] * new][:new]
            self._kills += [(now, victim) for victim in victims]
        self._killed, self.usage = usage.killed, usage
        if near or new > 0:
            self._before = there
        elif usage.share < CLOSE / 2:
            self._before = {}

    # -- deaths ------------------------------------------------------------------------------------

    def died(self, death: deaths.Death) -> None:
        """A kernel ended by itself: tell why."""
        before = self.usage
        self._measure()
        by_memory = death.status == -signal.SIGKILL and bool(self._kills)
        if by_memory:
            self._kills.pop(0)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int | None] = loop.create_future()
        self.told[death.kernel] = answer
        while len(self.told) > 100:
            del self.told[next(iter(self.told))]
        task = loop.create_task(self._tell_death(death, by_memory, before, answer))
        task.add_done_callback(lambda _: answer.done() or answer.set_result(None))

    async def _tell_death(
        self,
        death: deaths.Death,
        by_memory: bool,
        before: cgroup.Usage | None,
        answer: asyncio.Future[int | None],
    ) -> None:
        names = await self._kernels()
        what = next((name for one, name in names.values() if one == death.kernel), death.shown)
        event: dict[str, Any] = {"code": "kernel_ended", "what": what, "how": _how(death.status)}
        if by_memory:
            event = {"code": "kernel_out_of_memory", "what": what, **self._figures(before)}
            # Known though nobody looked at it in time.
            event["peak_bytes"] = death.peak
        answer.set_result(await self._send(event))

    async def _tell_kills(self) -> None:
        """Of processes that are no kernel's first: once it is clear that no kernel died."""
        if not self._kills or self._clock() - self._kills[-1][0] < NOTICED:
            return
        kills, self._kills = self._kills, []
        whose = Counter(self._whose(victim) for _, victim in kills)
        what = whose.most_common(1)[0][0]
        await self._send(
            {
                "code": "process_out_of_memory",
                "what": what,
                "count": len(kills),
                **self._figures(self.usage),
            }
        )

    def _whose(self, process: cgroup.Process | None) -> str:
        """The notebook that a process is of; empty where it is none's."""
        return self._names.get(process.session, ("", ""))[1] if process else ""

    def _figures(self, usage: cgroup.Usage | None) -> dict[str, Any]:
        if usage is None or not usage.limit:
            return {}
        found: dict[str, Any] = {
            "used_bytes": usage.memory,
            "limit_bytes": usage.limit,
            "shared_bytes": usage.shared,
        }
        there = (self._short or self._before).values()
        if not self._kills:
            self._short = {}
        if largest := max(there, key=lambda one: one.memory, default=None):
            found["largest"] = {
                "name": largest.name,
                "what": self._whose(largest),
                "memory_bytes": largest.memory,
            }
        return found

    # -- what is nearly full -----------------------------------------------------------------------

    async def _compare(self, what: str, taken: int, most: int) -> None:
        share = taken / most if most else 0.0
        if share < LOW:
            self._high.discard(what)
        if share < HIGH or what in self._high:
            return
        self._high.add(what)
        code, _, place = what.partition(":")
        figures = self._figures(self.usage) if code == "memory_high" else {}
        await self._send(
            {"code": code, **figures, "used_bytes": taken, "limit_bytes": most}
            | ({"place": place} if place else {})
        )

    async def _send(self, event: dict[str, Any]) -> int | None:
        """Tell the console; the number of the notice. What it does not take is told later."""
        event = {**event, "event": uuid.uuid4().hex}
        found = await self._tell(event)
        if found is None:
            self._untold = [*self._untold, event][-MOST_UNTOLD:]
        self.news += 1
        return found or None

    async def _tell_later(self) -> None:
        """The oldest of what the console has not taken: it knows an event by its number."""
        if self._untold and await self._tell(self._untold[0]) is not None:
            self._untold.pop(0)
            self.news += 1

    def document(self) -> dict[str, Any]:
        """For the page: bytes and cores."""
        usage = self.usage
        now = self._clock()
        if usage is not None and now - self._cpu[0] >= QUICK:
            self._measure()
            usage = self.usage
        return {
            "memory": usage and {"used": usage.memory, "limit": usage.limit},
            "cpu": usage and {"used": round(self.cores, 2), "limit": usage.cpus},
            "disk": self.disk and {"used": self.disk[0], "limit": self.disk[1]},
            "tmp": [
                {"place": place, "used": found[0], "limit": found[1]}
                for place in IN_MEMORY
                if (found := _space(place))
            ],
            "high": HIGH,
            "news": self.news,
        }


def _space(place: str) -> tuple[int, int] | None:
    """Bytes used and in all of the file system that a place is on."""
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    # As df has it: what is kept for the administrator counts as used.
    free, blocks = found.f_bavail, found.f_blocks - found.f_bfree + found.f_bavail
    return ((blocks - free) * found.f_frsize, blocks * found.f_frsize) if blocks else None


def _how(status: int) -> str:
    """``SIGSEGV``, or the exit status."""
    if status >= 0:
        return str(status)
    try:
        return signal.Signals(-status).name
    except ValueError:
        return str(-status)


class Resources(Base):
    """``GET labcommons/resources``."""

    def initialize(self, console: Console, watch: Watch) -> None:
        super().initialize(console)
        self.watch = watch

    @authenticated
    async def get(self) -> None:
        """What is used now."""
        self.finish(json.dumps(self.watch.document()))


class Deaths(Resources):
    """``GET labcommons/deaths/KERNEL``."""

    @authenticated
    async def get(self, kernel: str) -> None:
        """The number of the notice that says why this kernel died; waits until it is known."""
        deadline = time.monotonic() + ANSWER
        while (told := self.watch.told.get(kernel)) is None:
            # The page hears of a restart a moment before we do.
            if time.monotonic() > deadline:
                raise HTTPError(404)
            await asyncio.sleep(0.2)
        notice = await asyncio.wait_for(asyncio.shield(told), ANSWER)
        self.finish(json.dumps({"notice": notice}))


async def _kernels(app: Any) -> dict[int, tuple[str, str]]:
    """The process of each kernel, and its notebook; without one, its kernelspec's display name."""
    sessions: Iterable[Any] = await ensure_async(app.session_manager.list_sessions())
    paths = {one["kernel"]["id"]: str(one["path"]) for one in sessions if one.get("kernel")}
    found = {}
    for kernel in app.kernel_manager.list_kernel_ids():
        try:
            manager = app.kernel_manager.get_kernel(kernel)
            pid = manager.provisioner.pid
        except (KeyError, AttributeError):
            continue
        if pid:
            named = os.path.basename(paths.get(kernel, "")) or manager.kernel_spec.display_name
            found[pid] = (kernel, named[:200])
    return found


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "labcommons_resources"}]


def _load_jupyter_server_extension(app: Any) -> None:
    url, token = os.environ.get("LABCOMMONS_CONSOLE_URL"), os.environ.get("JUPYTERHUB_API_TOKEN")
    if not url or not token:
        return
    console = shared_console(app, url, token)

    async def tell(event: dict[str, Any]) -> int | None:
        try:
            status, answer = await console.ask("POST", "notices", "", event)
        except HTTPError as error:
            labcommons_away.in_vain.set(False)  # this task has more to say
            app.log.info("%s: %s", event, error.log_message)
            return None
        console.forget()
        if status != 200:
            app.log.warning("the console does not take %s: %s", event, answer)
            return 0  # nor will it
        # 0: it was told before.
        return (answer.get("id") or 0) if isinstance(answer, dict) else 0

    watch = Watch(app.root_dir, tell, lambda: _kernels(app))
    deaths.listen(watch.died)
    here = url_path_join(app.web_app.settings["base_url"], "labcommons/")
    given = {"console": console, "watch": watch}
    app.web_app.add_handlers(
        ".*$",
        [
            (here + "resources", Resources, given),
            (here + r"deaths/([0-9a-f-]{36})", Deaths, given),
        ],
    )

    async def run() -> None:
        while True:
            try:
                await watch.run()
            except Exception:
                app.log.exception("What the server uses was not looked at; it is tried again")
                await asyncio.sleep(SLOW)

    app.io_loop.add_callback(run)
