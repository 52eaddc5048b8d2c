"""A runtime that runs nothing: servers and tasks in a dictionary, for tests, and as an example.

It keeps the contract to the letter (docs/runtime.md), and can be told to fail at any step. Another
runtime can be read off it: whatever has no word here, no runtime has to do.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from commons.errors import NotAllowed, RuntimeRefused, RuntimeSilent
from spawner.runtime import labels
from spawner.runtime.messages import (
    ENGINE_REFUSED,
    ENGINE_SILENT,
    HOME_OF_ANOTHER,
    SNAPSHOT_GONE,
)
from spawner.runtime.protocol import (
    AreaLimits,
    Event,
    EventKind,
    FolderUse,
    Free,
    Node,
    Runtime,
    ServerState,
    TaskEnd,
    TooMuchSaid,
    Usage,
    output_limits,
)
from spawner.runtime.spec import (
    CourseStep,
    Fetched,
    FetchMaterials,
    Graded,
    GradeFiles,
    KeepFiles,
    Listed,
    ListedFile,
    ListFiles,
    LongTask,
    MakeHome,
    ServerSpec,
    ShortTask,
    TakeFiles,
    Taken,
    task_key,
)

KILLED = 137
_numbers = itertools.count(1)


@dataclass
class Task:
    """A long task: what it was asked, said so far, and how it ended."""

    job: LongTask | ServerSpec
    lines: list[bytes] = field(default_factory=list)
    end: TaskEnd | None = None
    news: asyncio.Condition = field(default_factory=asyncio.Condition)


class MemoryRuntime(Runtime):
    """Servers that are no more than words.

    Attributes:
        images: ids that can be started; empty: any.
        homes: uid of the owner by person; as `run_task` made them, or as a test says.
        disk: what folders have of it; ``kept_limits``: what the file system keeps;
            ``own_limits``: what it was told of single folders.
        files: what is in homes, by person and path; words with a slash are taken for what is in a
            folder. What is taken of them ``taken`` has by id.
        kept: what was laid into courses: digests by scope, area and place.
        made: how often each short task was really carried out, by its key.
        calls: how often each method was called.
        node, left: the machine, and what it says is left.
        faults: by step ("start", "start:created", "start:started", "run_task", …, or "*" for the
            beginning of each method): an error to raise there, or an event to wait for first.
    """

    def __init__(self, site: str = "memory") -> None:
        self.site = site
        self.images: set[str] = set()
        self.homes: dict[str, int] = {}
        self.disk: dict[tuple[str, str], FolderUse] = {}
        self.kept_limits: list[AreaLimits] = []
        self.own_limits: dict[tuple[str, str], int] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.taken: dict[str, str] = {}
        self.kept: dict[tuple[str, str, str], KeepFiles] = {}
        self.made: defaultdict[str, int] = defaultdict(int)
        self.calls: defaultdict[str, int] = defaultdict(int)
        self.faults: dict[str, Exception | asyncio.Event] = {}
        self.servers: dict[str, ServerState] = {}
        self.specs: dict[str, ServerSpec] = {}
        self.output: dict[str, str] = {}
        self.ran: list[str] = []  # attempts of jobs that were made
        self.long: dict[str, Task] = {}
        self.versions: dict[str, frozenset[str]] = {}
        self.processes: dict[str, frozenset[int]] = {}
        self.probes: dict[str, int] = {}  # exit codes of what looks after GPUs
        self.cores: dict[str, float] = {}  # of CPU that a server uses
        self.gpus = '{"devices": []}'
        self.node = Node(name="here", cpu=8, memory=2**40, version="memory")
        self.left = 2**40  # bytes of memory and disk
        self.materials: dict[str, Fetched] = {}  # what comes of a fetch, by scope
        self.fetches: list[FetchMaterials] = []
        self.graded: dict[str, Graded] = {}  # what comes of grading, by place
        self.gradings: list[GradeFiles] = []
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._doing: dict[str, asyncio.Task[None]] = {}
        self._fetching: dict[str, asyncio.Task[Fetched]] = {}
        self._waking: set[asyncio.Future[None]] = set()
        self._listeners: set[asyncio.Queue[Event | RuntimeSilent]] = set()

    # -- what tests do to it -------------------------------------------------------------------

    def silence(self, method: str = "*") -> None:
        """From now on nobody answers; ``faults.clear()`` ends it."""
        self.faults[method] = silent()
        if method == "*":
            self.break_events()

    def break_events(self) -> None:
        """Whoever listens to events hears that they broke off."""
        for listener in self._listeners:
            listener.put_nowait(silent("broken off"))

    def finish(self, handle: str, exit_code: int = 0, oom_killed: bool = False) -> None:
        """A server's process ends by itself."""
        self._end(handle, exit_code, oom_killed)

    async def print(self, handle: str, *lines: bytes, end: TaskEnd | None = None) -> None:
        """A long task prints lines, and ends where ``end`` says how."""
        task = self.long[handle]
        async with task.news:
            task.lines += lines
            task.end = end or task.end
            task.news.notify_all()

    # -- servers -------------------------------------------------------------------------------

    async def nodes(self) -> list[Node]:
        await self._step("nodes")
        return [self.node]

    async def free(self) -> list[Free]:
        await self._step("free")
        return [Free(node=self.node.name, memory=self.left, disk=self.left, engine=self.left)]

    async def list_folders(self, area: str) -> list[str]:
        await self._step("list_folders")
        return sorted(name for kind, name in self.disk if kind == area)

    async def measure(self, area: str, name: str) -> FolderUse | None:
        await self._step("measure")
        return self.disk.get((area, name))

    async def disk_limits(self) -> list[AreaLimits]:
        await self._step("disk_limits")
        return list(self.kept_limits)

    async def limit_folder(self, area: str, name: str, limit: int) -> None:
        await self._step("limit_folder")
        self.own_limits[area, name] = limit

    async def start(self, spec: ServerSpec) -> str:
        await self._step("start")
        # What was begun is ended, also where the caller goes away: as in an agent.
        return await asyncio.shield(asyncio.create_task(self._start(spec)))

    async def _start(self, spec: ServerSpec) -> str:
        async with self._locks[f"{spec.user}/{spec.server}"]:
            if self.images and spec.image not in self.images:
                raise RuntimeRefused(ENGINE_REFUSED(reason="No such image"))
            mark = spec.job.mark if spec.job else ""
            for there in self.servers.values():
                if mark and (there.user, there.labels.get(labels.JOB)) == (spec.user, mark):
                    return there.handle
            self._remove_named(spec.user, spec.server)
            handle = f"m{next(_numbers)}"
            gpus = spec.gpus
            said = {
                labels.SITE: self.site,
                labels.USER: spec.user,
                labels.SERVER: spec.server,
                labels.ENVIRONMENT: f"{spec.environment}:{spec.version}",
                labels.ADDRESSES: spec.addresses,
                **labels.of_use(spec.limits),
            }
            if mark:
                said[labels.JOB] = mark
                self.ran.append(mark)
                self.long[handle] = Task(spec)
            if gpus is not None:
                said |= {
                    labels.LEASE: gpus.lease,
                    labels.GPUS: labels.show_devices(gpus.devices),
                    labels.ACCOUNT: gpus.account,
                }
                if gpus.time_limit is not None:
                    said[labels.TIME_LIMIT] = f"{gpus.time_limit:.0f}"
            self.specs[handle] = spec
            self.servers[handle] = ServerState(
                handle=handle,
                user=spec.user,
                server=spec.server,
                status="created",
                created=time.time(),
                labels=said,
                devices=tuple(dict.fromkeys(device.id for device in gpus.devices)) if gpus else (),
                token=spec.env.get("JUPYTERHUB_API_TOKEN", ""),
            )
            try:
                await self._step("start:created", count=False)
                self._become(handle, status="running", address="127.0.0.1")
                self._tell(Event(kind=EventKind.STARTED, handle=handle, at=time.time()))
                await self._step("start:started", count=False)
            except BaseException:
                self._drop(handle)
                raise
            return handle

    async def inspect(self, handles: Sequence[str]) -> Mapping[str, ServerState | None]:
        await self._step("inspect")
        return {handle: self.servers.get(handle) for handle in handles}

    async def list(self) -> list[ServerState]:
        await self._step("list")
        return [
            state.model_copy(update={"token": "", "address": "", "exit_code": 0, "devices": ()})
            for state in self.servers.values()
        ]

    async def stop(self, handle: str, grace: int) -> None:
        await self._step("stop")
        self._end(handle, 0 if grace else KILLED)

    async def remove(self, handle: str) -> None:
        await self._step("remove")
        self._drop(handle)

    async def remove_server(self, user: str, server: str) -> None:
        await self._step("remove_server")
        async with self._locks[f"{user}/{server}"]:
            self._remove_named(user, server)

    async def logs(self, handle: str, lines: int = 30) -> str:
        await self._step("logs")
        said = self.output.get(handle, "").splitlines(keepends=True)
        return "".join(said[-lines:] if lines else [])[-20_000:]

    # -- tasks ---------------------------------------------------------------------------------

    async def run_task(self, task: ShortTask) -> None:
        await self._step("run_task")
        key = task_key(task)
        doing = self._doing.get(key)
        if doing is None:
            doing = self._doing[key] = asyncio.create_task(self._make(task))
            doing.add_done_callback(lambda _: self._doing.pop(key))
        await asyncio.shield(doing)

    async def _make(self, task: ShortTask) -> None:
        key = task_key(task)
        if isinstance(task, MakeHome):
            owner = self.homes.get(task.user, task.uid)
            if owner != task.uid:
                raise NotAllowed(HOME_OF_ANOTHER(user=task.user, owner=owner, uid=task.uid))
        await self._step("run_task:doing", count=False)
        self.made[key] += 1
        if isinstance(task, MakeHome):
            self.homes[task.user] = task.uid

    async def take(self, task: TakeFiles) -> Taken:
        await self._step("take")
        found = self.files.get((task.user, task.path))
        if found is None:
            return Taken(refusal="absent", path=task.path)
        digest = self.taken[task.id] = hashlib.sha256(found).hexdigest()
        await self._step("take:taken", count=False)
        top = {
            path.split("/")[0] for path in found.decode("utf-8", "replace").split() if "/" in path
        }
        return Taken(digest=digest, files=1, bytes=len(found), top=tuple(sorted(top)))

    async def list_files(self, task: ListFiles) -> Listed:
        await self._step("list_files")
        above = f"{task.path}/" if task.path else ""
        found: dict[str, int | None] = {}
        for (user, path), data in self.files.items():
            if user == task.user and path.startswith(above):
                name, _, inner = path.removeprefix(above).partition("/")
                found[name] = None if inner else len(data)
        if task.path and not found:
            return Listed(refusal="absent")
        rows = sorted(found.items(), key=lambda row: (row[1] is not None, row[0]))
        return Listed(files=tuple(ListedFile(name=name, bytes=size) for name, size in rows))

    async def keep(self, task: KeepFiles) -> bool:
        await self._step("keep")
        key = (task.scope, task.area, task.place)
        there = self.kept.get(key)
        if there is None or there.digest != task.digest or task.reader is not None:
            if self.taken.get(task.id) != task.digest:
                raise RuntimeRefused(SNAPSHOT_GONE())
            self.kept[key] = task
        await self._step("keep:kept", count=False)
        return True

    async def drop(self, snapshot: str) -> None:
        await self._step("drop")
        self.taken.pop(snapshot, None)

    async def grade(self, task: GradeFiles) -> Graded:
        await self._step("grade")
        self.gradings.append(task)
        found = self.graded.get(task.place, Graded(failure="source", detail=task.handin))
        if not found.failure:
            self.taken[task.id] = found.digest
        await self._step("grade:graded", count=False)
        return found

    async def fetch_materials(self, task: FetchMaterials) -> Fetched:
        await self._step("fetch_materials")
        key = f"materials-{task.scope}"
        doing = self._fetching.get(key)
        if doing is None:
            doing = self._fetching[key] = asyncio.create_task(self._fetch(task))
            doing.add_done_callback(lambda _: self._fetching.pop(key))
        return await asyncio.shield(doing)

    async def _fetch(self, task: FetchMaterials) -> Fetched:
        await self._step("fetch_materials:doing", count=False)
        self.made[f"materials-{task.scope}"] += 1
        self.fetches.append(task)
        return self.materials.get(task.scope, Fetched(failure="gone"))

    async def begin(self, task: LongTask) -> str:
        await self._step("begin")
        handle = task_key(task)
        self.long.setdefault(handle, Task(task))
        return handle

    async def follow(self, handle: str, after: int = 0) -> AsyncIterator[bytes]:
        await self._step("follow")
        task, limits = self._task(handle), output_limits()
        number = 0
        while True:
            async with task.news:
                while len(task.lines) == number and task.end is None:
                    await task.news.wait()
                new = task.lines[number:]
            if not new:
                return
            for line in limits.cut([b"%s\n" % line for line in new]):
                number += 1
                if number > after:
                    yield line
            if limits.over:
                raise TooMuchSaid

    async def task_end(self, handle: str) -> TaskEnd | None:
        await self._step("task_end")
        return self._task(handle).end

    async def tasks(self) -> Mapping[str, str]:
        await self._step("tasks")
        return {
            handle: task.job.job_id
            for handle, task in self.long.items()
            if not isinstance(task.job, CourseStep | ServerSpec)
        }

    def _task(self, handle: str) -> Task:
        if handle not in self.long:
            raise RuntimeRefused(ENGINE_REFUSED(reason="No such task"))
        return self.long[handle]

    # -- what servers use ----------------------------------------------------------------------

    async def usage(self, handles: Sequence[str]) -> Mapping[str, Usage]:
        await self._step("usage")
        alive = (handle for handle in handles if self._runs(handle))
        return {
            handle: Usage(memory=2**20, cpu=self.cores.get(handle, 0.0), pids=1) for handle in alive
        }

    async def gpu_processes(self, handle: str) -> frozenset[int]:
        await self._step("gpu_processes")
        self._must_run(handle)
        return self.processes.get(handle, frozenset())

    async def probe_gpus(self, handle: str) -> int:
        await self._step("probe_gpus")
        self._must_run(handle)
        return self.probes.get(handle, 0)

    async def versions_in_use(
        self, scope: str, owner: str, name: str
    ) -> Mapping[str, frozenset[str]]:
        await self._step("versions_in_use")
        return dict(self.versions)

    async def read_gpus(self, seconds: float) -> str:
        await self._step("read_gpus")
        return self.gpus

    # -- events --------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[Event]:
        await self._step("events")
        heard: asyncio.Queue[Event | RuntimeSilent] = asyncio.Queue()
        self._listeners.add(heard)
        try:
            yield Event(kind=EventKind.RESYNC, at=time.time())
            while True:
                event = await heard.get()
                if isinstance(event, RuntimeSilent):
                    raise event
                yield event
        finally:
            self._listeners.discard(heard)

    async def close(self) -> None:
        for task in (*self._doing.values(), *self._fetching.values()):
            task.cancel()

    # -- inside --------------------------------------------------------------------------------

    async def _step(self, name: str, count: bool = True) -> None:
        """Where a test may step in. Each method lets others go first, as any real one does."""
        if count:
            self.calls[name] += 1
        await asyncio.sleep(0)
        for fault in (self.faults.get("*") if count else None, self.faults.get(name)):
            if isinstance(fault, asyncio.Event):
                await fault.wait()
            elif fault is not None:
                raise fault

    def _runs(self, handle: str) -> bool:
        return handle in self.servers and self.servers[handle].runs

    def _must_run(self, handle: str) -> None:
        if not self._runs(handle):
            raise RuntimeRefused(ENGINE_REFUSED(reason="It does not run"))

    def _become(self, handle: str, **changed: object) -> None:
        self.servers[handle] = self.servers[handle].model_copy(update=changed)

    def _end(self, handle: str, exit_code: int, oom_killed: bool = False) -> None:
        if not self._runs(handle):
            return
        self._become(
            handle, status="exited", exit_code=exit_code, oom_killed=oom_killed, address=""
        )
        if (task := self.long.get(handle)) is not None:
            task.end = TaskEnd(exit_code=exit_code, oom_killed=oom_killed)
            self._waking.add(waking := asyncio.ensure_future(_wake(task)))
            waking.add_done_callback(self._waking.discard)
        self._tell(Event(kind=EventKind.ENDED, handle=handle, at=time.time(), exit_code=exit_code))

    def _drop(self, handle: str) -> None:
        self._end(handle, KILLED)
        self.long.pop(handle, None)
        self.servers.pop(handle, None)

    def _remove_named(self, user: str, server: str) -> None:
        for state in list(self.servers.values()):
            if (state.user, state.server) == (user, server):
                self._drop(state.handle)

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener.put_nowait(event)


async def _wake(task: Task) -> None:
    async with task.news:
        task.news.notify_all()


def silent(reason: str = "time-out") -> RuntimeSilent:
    """The error of a runtime that does not answer."""
    return RuntimeSilent(ENGINE_SILENT(reason=reason))
