"""``Runtime`` and ``ImageStore`` on one Docker Engine: what the agent serves."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from docker.errors import APIError, NotFound

from commons.errors import LabError, RuntimeRefused
from commons.scopes import Keeper, personal
from commons.site.storage import AREAS, Area
from spawner.runtime import labels
from spawner.runtime.docker import driver, free, materials, measure
from spawner.runtime.docker import engine as engines
from spawner.runtime.docker.archives import ARCHIVE, REMOVAL
from spawner.runtime.docker.body import BUILD, MADE, PURPOSE, STEP, Ground, server_body
from spawner.runtime.docker.devices import Inventory, check_free
from spawner.runtime.docker.engine import Engine, silent
from spawner.runtime.docker.exams import EXAM_FOLDER_NOT_MADE, NO_NAMES, NOT_APART, Exams
from spawner.runtime.docker.grading import Grading
from spawner.runtime.docker.images import Images, publisher
from spawner.runtime.docker.job_folders import JobFolders
from spawner.runtime.docker.logs import follow
from spawner.runtime.docker.places import Places, home_of_another
from spawner.runtime.docker.quotas import Quotas
from spawner.runtime.docker.rules import against_rules, check_account
from spawner.runtime.docker.settings import AgentSettings
from spawner.runtime.docker.shared import Locks, Shared
from spawner.runtime.docker.snapshots import Snapshots
from spawner.runtime.docker.tasks import Tasks, key_of
from spawner.runtime.docker.usage import Meter
from spawner.runtime.docker.watch import Watch
from spawner.runtime.messages import (
    FOLDER_NOT_MADE,
    HOME_NOT_MADE,
    NO_SUCH_TASK,
    NOT_RUNNING,
    SCOPE_GONE_HERE,
)
from spawner.runtime.names import escaped, server_key
from spawner.runtime.protocol import (
    IMAGES_SECONDS,
    AreaLimits,
    Event,
    FolderUse,
    Free,
    Node,
    ServerState,
    TaskEnd,
    Usage,
)
from spawner.runtime.spec import (
    CloseExam,
    Device,
    Fetched,
    FetchMaterials,
    Graded,
    GradeFiles,
    KeepFiles,
    Listed,
    ListFiles,
    LongTask,
    MakeExam,
    MakeFolder,
    ServerSpec,
    ShortTask,
    TakeFiles,
    Taken,
)
from spawner.runtime.wire import protocol_version

log = logging.getLogger(__name__)

# Opens every GPU that the server has, and what all GPUs need: of a driver that was loaded anew,
# nvidia-uvm alone may have another number. 3: one cannot be opened. Subshells, since a shell ends
# where a redirection fails. What it prints is nobody's business.
_PROBE = (
    "sh",
    "-c",
    "for d in /dev/nvidia[0-9]* $(ls -d /dev/nvidiactl /dev/nvidia-uvm 2>/dev/null); do "
    '(exec <"$d") 2>/dev/null || exit 3; done',
)
_MAKING = 120  # seconds for a folder
_LOG = 20_000  # bytes
UNSTARTED = ("created", "removing", "dead")  # of a container: it has not run, or goes away
_FETCHES = 2  # of materials at the same time
PERIMETER = "com.docker.compose.service=perimeter"
# Of containers that nobody waits for any more when an agent starts.
_MOMENTARY = ("home", "folder", "trial", "look", "quota", "snapshot", "materials", "grading")


class DockerRuntime(Images):
    """One machine's Engine."""

    def __init__(
        self, settings: AgentSettings, timeout: int | None = None, threads: int | None = None
    ) -> None:
        servers = settings.site.servers
        self.servers = Engine(timeout or servers.engine_timeout, threads or servers.engine_threads)
        places = Places(settings)
        super().__init__(Engine(IMAGES_SECONDS, 4), settings, places)
        self.folders = JobFolders(settings.data, settings.host_data)
        self.table = Tasks(settings, places, self.folders)
        self.quotas = Quotas(settings, places, partial(self._hear, why=True))
        self.snapshots = Snapshots(settings, places, self.folders)
        self.grading = Grading(settings, places, self.folders, self)
        self.gpus = Inventory(settings.site.gpus)
        self.watch = Watch(self.servers, settings.site_id, settings.network)
        self._meter = Meter()
        self._shared, self._names = Shared(), Locks()
        self._gpus_given, self._looking = asyncio.Lock(), asyncio.Lock()
        self._fetching = asyncio.Semaphore(_FETCHES)
        self.exams, self._addresses_given = Exams(settings, places), asyncio.Lock()

    async def begin_watch(self) -> None:
        """Listen to the Engine, and clear away what a killed agent left. Raises RuntimeSilent."""
        self.watch.begin()
        await self.tidy()

    async def apart(self) -> bool:
        """Whether the rules of the machine's network are there, as the perimeter says itself.

        After a start of the machine Docker starts agent and perimeter at the same moment. Without
        the service, nobody says. Raises RuntimeSilent.
        """
        filters = {"label": [f"com.docker.compose.project={self.site_id}", PERIMETER]}

        def work(api: Any) -> bool:
            with suppress(NotFound):
                for item in api.containers(all=True, filters=filters):
                    state = api.inspect_container(item["Id"])["State"]
                    if (state.get("Health") or {}).get("Status", "healthy") != "healthy":
                        return False
            return True

        return await self.servers.call(work)

    async def tidy(self) -> None:
        """Remove containers that were made and never started, and those of a moment.

        This agent alone makes containers of this site: nobody is at them.
        """
        filters = {"label": f"{labels.SITE}={self.site_id}"}
        found = await self.servers.call(lambda api: api.containers(all=True, filters=filters))
        live: set[str] = set()
        for item in found:
            marks = item.get("Labels") or {}
            purpose = marks.get(PURPOSE)
            names = [name.lstrip("/") for name in item.get("Names") or ()]
            unstarted = item["State"] == "created" and (
                MADE in marks or any(name.startswith(publisher(self.site_id)) for name in names)
            )
            if unstarted or (purpose in _MOMENTARY and labels.USER not in marks):
                log.warning("removing %s, which nobody waits for", names)
                await self._remove(item["Id"])
            elif purpose in ("build", ARCHIVE, REMOVAL):
                kind = "build" if purpose == "build" else "course"
                live.update(name.removeprefix(f"{self.site_id}-{kind}-") for name in names)
        await asyncio.to_thread(self.folders.tidy, live)

    async def close(self) -> None:
        await self.watch.close()
        self.servers.close()
        self.engine.close()
        self.snapshots.close()
        self.grading.close()

    # -- the machine -----------------------------------------------------------------------------

    async def nodes(self) -> list[Node]:
        info = await self.servers.call(lambda api: api.info())
        return [
            Node(
                name=self.settings.node,
                cpu=int(info["NCPU"]),
                memory=int(info["MemTotal"]),
                version=protocol_version(),
                site_digest=self.settings.site_digest,
            )
        ]

    async def free(self) -> list[Free]:
        return [await asyncio.to_thread(free.look, self.settings.node, self.settings.data)]

    async def list_folders(self, area: Area) -> list[str]:
        return await asyncio.to_thread(self.places.folders, area)

    async def measure(self, area: Area, name: str) -> FolderUse | None:
        folder = await asyncio.to_thread(self.places.folder, area, name)
        if folder is None:
            return None
        body = measure.body(self.site_id, self.settings.maker_image, str(folder))
        async with self._looking:
            return measure.read(
                *await self._hear(f"{self.site_id}-look", body, measure.SECONDS + 30)
            )

    async def _hear(
        self, name: str, body: dict[str, Any], seconds: float, why: bool = False
    ) -> tuple[bytes, int]:
        """Run a container of a moment to its end; the end of what it said, and its exit code.

        ``why``: of one that fails, also what it complained of.
        """

        def work(api: Any) -> tuple[bytes, int]:
            made = engines.create(api, name, body)
            try:
                api.start(made)
                code = int(api.wait(made, timeout=seconds)["StatusCode"])
                return bytes(api.logs(made, stderr=why and code != 0))[-measure.MOST :], code
            finally:
                engines.remove(api, made)

        return await self.engine.call(work, seconds + 90)

    async def disk_limits(self) -> list[AreaLimits]:
        return self.quotas.limits()

    async def limit_folder(self, area: Area, name: str, limit: int) -> None:
        await self.quotas.limit_folder(area, name, limit)

    async def read_gpus(self, seconds: float) -> str:
        return json.dumps(await driver.ask(seconds))

    # -- servers ---------------------------------------------------------------------------------

    async def start(self, spec: ServerSpec) -> str:
        # Not ended by a caller that goes away: what is begun is whole or undone.
        return await asyncio.shield(asyncio.ensure_future(self._start(spec)))

    async def _start(self, spec: ServerSpec) -> str:
        async with self._names.of(server_key(self.site_id, spec.user, spec.server)):
            if spec.job is not None and (there := await self._begun(spec)):
                return there
            if spec.exam is not None:
                made = await self._create_closed(spec)
            else:
                made = await (self._create_with_gpus if spec.gpus else self._create)(spec)
            self.watch.forget()
            try:
                await self.servers.call(lambda api: api.start(made))
            except BaseException:
                await self._remove(made)
                raise
            return made

    async def _begun(self, spec: ServerSpec) -> str:
        """The container of this attempt of a job, where it was started before; "" for none."""
        assert spec.job is not None
        marks = labels.of_server(self.site_id, spec.user, spec.server)
        marks = {**marks, labels.JOB: spec.job.mark}
        filters = {"label": [f"{label}={value}" for label, value in marks.items()]}

        def work(api: Any) -> str:
            found = api.containers(all=True, filters=filters)
            return next((str(i["Id"]) for i in found if i["State"] not in UNSTARTED), "")

        return await self.servers.call(work)

    async def _create_with_gpus(self, spec: ServerSpec) -> str:
        """One after another: what is created has its GPUs, and the next one sees that."""
        assert spec.gpus is not None
        whole = await self.gpus.check(spec.gpus.devices)
        # Two sites may play with the same simulated ones.
        held = f"{labels.SITE}={self.site_id}" if self.gpus.simulated else labels.GPUS
        async with self._gpus_given:
            found = await self.servers.call(
                lambda api: api.containers(all=True, filters={"label": held})
            )
            check_free(whole, found, but=labels.of_server(self.site_id, spec.user, spec.server))
            return await self._create(spec, whole)

    async def _create_closed(self, spec: ServerSpec) -> str:
        """One after another: what is created has its address, and the next one sees that."""
        self.exams.check(spec)
        if not await self.apart():
            raise RuntimeRefused(NOT_APART())
        held = {"label": [f"{labels.SITE}={self.site_id}", labels.ADDRESS]}
        async with self._addresses_given:
            found = await self.servers.call(lambda api: api.containers(all=True, filters=held))
            return await self._create(spec, address=self.exams.address(found))

    async def _create(
        self, spec: ServerSpec, devices: Collection[Device] = (), address: str = ""
    ) -> str:
        def work(api: Any) -> str:
            self.check_startable(api, spec.image, spec.environment, spec.version)
            key = server_key(self.site_id, spec.user, spec.server)
            missing: set[str] = set()
            while True:
                body = self.server_body(spec, devices, missing, address)
                self._remove_server(api, spec.user, spec.server)
                try:
                    return engines.create(api, f"{spec.name}-{key}", body)
                except APIError as error:
                    # A file server that is away must not keep people from their work.
                    gone = self.places.missing(spec, str(error.explanation).strip()) - missing
                    if not gone:
                        raise
                    missing |= gone

        return await self.servers.call(work)

    def server_body(
        self,
        spec: ServerSpec,
        devices: Collection[Device],
        missing: Collection[str] = (),
        address: str = "",
    ) -> dict[str, Any]:
        """A server's create body, with these GPUs at most, without the mounts that are missing.

        Raises RuntimeRefused, NotAllowed.
        """
        check_account(spec.account, self.settings)
        if spec.exam is not None:
            self.exams.check(spec)
            ground = Ground(
                self.site_id,
                self.settings.network,
                self.exams.home(spec.exam, spec.user, spec.account.uid),
                self.places.registry(spec),
                address=address,
                name_servers=NO_NAMES,
            )
            return server_body(spec, ground)
        ids, request = {device.id for device in devices}, self.gpus.gpus.request
        ground = Ground(
            self.site_id,
            self.settings.network,
            self.places.home(spec.user, spec.account.uid),
            self.places.registry(spec),
            self.places.server_folders(spec, missing),
            missing,
            devices=frozenset(ids),
            simulated=self.gpus.simulated,
            request=request,
            nodes={id_: self.gpus.node(id_) for id_ in ids} if request == "devices" else {},
        )
        return server_body(spec, ground)

    async def _remove(self, name: str) -> None:
        """By id or name; by name, what goes away is not known."""
        await self.servers.call(lambda api: engines.remove(api, name))
        self.watch.forget()

    async def inspect(self, handles: Sequence[str]) -> Mapping[str, ServerState | None]:
        self.watch.begin()
        found = await asyncio.gather(*(self.watch.state(handle) for handle in handles))
        return dict(zip(handles, found, strict=True))

    async def list(self) -> list[ServerState]:
        return await self.watch.list()

    async def stop(self, handle: str, grace: int) -> None:
        state = await self.watch.state(handle)
        if state is None:
            return

        def work(api: Any) -> None:
            with suppress(NotFound):
                api.stop(state.handle, timeout=grace)

        await self.servers.call(work, self.servers.timeout * 2 + grace)
        self.watch.forget(state.handle)

    async def remove(self, handle: str) -> None:
        state = await self.watch.state(handle)
        if state is None:
            return
        await self._remove(state.handle)
        if job := state.labels.get(BUILD):
            step = state.labels.get(STEP, "")
            # An installation is a job's last step: what was fetched for it is not needed again.
            over = job if step == "install" else ""
            await asyncio.to_thread(self.folders.forget, f"{job}-{step}", over)

    async def remove_server(self, user: str, server: str) -> None:
        async with self._names.of(server_key(self.site_id, user, server)):
            await self.servers.call(lambda api: self._remove_server(api, user, server))
            self.watch.forget()

    def _remove_server(self, api: Any, user: str, server: str) -> None:
        """Found by its labels: its name may come of another setting, environment or version."""
        marks = labels.of_server(self.site_id, user, server)
        filters = {"label": [f"{label}={value}" for label, value in marks.items()]}
        for item in api.containers(all=True, filters=filters):
            engines.remove(api, item["Id"])

    async def logs(self, handle: str, lines: int = 30) -> str:
        state = await self.watch.state(handle)
        if state is None:
            return ""

        def work(api: Any) -> str:
            with suppress(NotFound):
                return bytes(api.logs(state.handle, tail=lines))[-_LOG:].decode("utf-8", "replace")
            return ""

        return await self.servers.call(work)

    def events(self) -> AsyncIterator[Event]:
        self.watch.begin()
        return self.watch.events()

    async def usage(self, handles: Sequence[str]) -> Mapping[str, Usage]:
        async def one(handle: str) -> Usage | None:
            state = await self._running(handle)
            if state is None:
                return None
            return await self.servers.call(lambda api: self._meter.read(api, state.handle))

        found = await asyncio.gather(*(one(handle) for handle in handles))
        return {handle: use for handle, use in zip(handles, found, strict=True) if use}

    async def _running(self, handle: str) -> ServerState | None:
        state = await self.watch.state(handle)
        return state if state is not None and state.status == "running" else None

    async def _server(self, handle: str) -> ServerState:
        state = await self._running(handle)
        if state is None or not state.user:
            raise RuntimeRefused(NOT_RUNNING())
        return state

    async def gpu_processes(self, handle: str) -> frozenset[int]:
        state = await self._server(handle)
        found = await self.servers.call(lambda api: api.top(state.handle))
        try:
            column = found["Titles"].index("PID")
            return frozenset(int(row[column]) for row in found["Processes"] or ())
        except (KeyError, ValueError, IndexError) as error:
            raise engines.refused("no process ids") from error

    async def probe_gpus(self, handle: str) -> int:
        state = await self._server(handle)

        def work(api: Any) -> int:
            run = api.exec_create(state.handle, list(_PROBE), stdout=False, stderr=False)
            api.exec_start(run, detach=True)
            deadline = time.monotonic() + self.servers.timeout
            while True:
                found = api.exec_inspect(run)
                if not found["Running"]:
                    return int(found["ExitCode"] if found["ExitCode"] is not None else -1)
                if time.monotonic() > deadline:
                    raise silent("time-out")
                time.sleep(0.1)

        return await self.servers.call(work)

    async def versions_in_use(
        self, scope: str, owner: str, name: str
    ) -> Mapping[str, frozenset[str]]:
        """Seen by the command lines of processes: ``""`` is the one that the link leads to."""
        mine = scope == personal(owner).source
        found = personal(owner) if mine else self.places.scope(scope)
        if found is None:
            raise against_rules(SCOPE_GONE_HERE(scope=scope[:40]))
        envs = re.escape(str(found.environments))
        of = re.escape(name)
        pattern = re.compile(rf"{envs}/(?:\.versions/{of}/([^/\s]+)|{of})/")

        async def one(state: ServerState) -> set[str]:
            try:
                found = await self.servers.call(lambda api: api.top(state.handle, "-eo pid,args"))
            except RuntimeRefused:  # it has ended meanwhile
                return set()
            commands = (" ".join(row[1:]) for row in found.get("Processes") or [])
            return {match[1] or "" for line in commands for match in pattern.finditer(line)}

        servers = [
            state
            for state in await self.list()
            if state.status == "running" and (not mine or state.user == owner)
        ]
        used: dict[str, frozenset[str]] = {}
        for state, versions in zip(servers, await asyncio.gather(*map(one, servers)), strict=True):
            if versions:
                used[state.user] = used.get(state.user, frozenset()) | versions
        return used

    # -- tasks -----------------------------------------------------------------------------------

    async def run_task(self, task: ShortTask) -> None:
        await self._shared.do(task, lambda: self._run_task(task))

    async def _run_task(self, task: ShortTask) -> None:
        if isinstance(task, MakeExam | CloseExam):
            return await self._exam(task)
        if isinstance(task, MakeFolder):
            return await self._make_folder(task)
        name, body = self.table.home(task)
        async with self._names.of(name):
            owner = await asyncio.to_thread(self.places.home_owner, task.user)
            # Root's is what a maker leaves that was killed half-way; it is made again.
            if owner in (None, 0):
                why = await self._run(name, body)
                owner = await asyncio.to_thread(self.places.home_owner, task.user)
                if why or owner in (None, 0):
                    raise RuntimeRefused(
                        HOME_NOT_MADE(user=task.user, reason=why or "it is not there")
                    )
                await self._limit("homes", task.user)
            if owner != task.uid:
                raise home_of_another(task.user, owner or 0, task.uid)

    async def _exam(self, task: MakeExam | CloseExam) -> None:
        name, body = self.exams.task(task)
        marks = {
            labels.SITE: self.site_id,
            labels.USER: task.user,
            labels.EXAM: f"{task.place.course}/{task.place.exam}",
        }

        def remove(api: Any) -> None:
            filters = {"label": [f"{label}={value}" for label, value in marks.items()]}
            for item in api.containers(all=True, filters=filters):
                engines.remove(api, item["Id"])

        async with self._names.of(name):
            owner = await asyncio.to_thread(self.exams.owner, task.place, task.user)
            if isinstance(task, CloseExam):
                await self.servers.call(remove)
                self.watch.forget()
            elif owner == task.uid:
                return
            if why := await self._run(name, body):
                raise RuntimeRefused(EXAM_FOLDER_NOT_MADE(reason=why))

    async def _make_folder(self, task: MakeFolder) -> None:
        scope = self.places.scope(task.scope)
        if scope is None:
            raise against_rules(SCOPE_GONE_HERE(scope=task.scope[:40]))
        if scope.keeper is Keeper.SITE:  # made with the data folder
            return
        name, body = self.table.folder(task)
        async with self._names.of(name):
            if await asyncio.to_thread(self.places.folder_made, scope):
                return
            if why := await self._run(name, body):
                raise RuntimeRefused(FOLDER_NOT_MADE(scope=task.scope, reason=why))
            area, folder = scope.folder.parts
            if area in AREAS:
                await self._limit(area, folder)

    async def _limit(self, area: Area, name: str) -> None:
        """A new folder's, which is none the worse without: the next round tries again."""
        try:
            await self.quotas.keep(area, name)
        except LabError as error:
            log.warning("%s/%s: %s", area, name, error)

    async def _run(self, name: str, body: dict[str, Any]) -> str:
        """Run a container to its end; why it failed, or nothing."""

        def work(api: Any) -> str:
            made = engines.create(api, name, body)
            try:
                api.start(made)
                code = int(api.wait(made, timeout=_MAKING)["StatusCode"])
                said = bytes(api.logs(made, tail=30)) if code else b""
            finally:
                engines.remove(api, made)
            text = said.decode("utf-8", "replace").strip()[-200:]
            return (text or f"exit code {code}") if code else ""

        return await self.servers.call(work, _MAKING + 2 * self.servers.timeout)

    async def take(self, task: TakeFiles) -> Taken:
        return await self.snapshots.take(task)

    async def list_files(self, task: ListFiles) -> Listed:
        return await self.snapshots.list_files(task)

    async def keep(self, task: KeepFiles) -> bool:
        return await self.snapshots.keep(task)

    async def drop(self, snapshot: str) -> None:
        await self.snapshots.drop(snapshot)

    async def grade(self, task: GradeFiles) -> Graded:
        return await self.grading.grade(task)

    async def fetch_materials(self, task: FetchMaterials) -> Fetched:
        return await self._shared.do(f"materials-{task.scope}", lambda: self._fetch(task))

    async def _fetch(self, task: FetchMaterials) -> Fetched:
        body = await asyncio.to_thread(materials.body, task, self.settings, self.places)
        name = f"{self.site_id}-materials-{escaped(task.scope)}"
        async with self._fetching:
            return materials.read(*await self._hear(name, body, materials.SECONDS, why=True))

    async def begin(self, task: LongTask) -> str:
        return await self._shared.do(self.table.name(task), lambda: self._begin(task))

    async def _begin(self, task: LongTask) -> str:
        name = self.table.name(task)

        def work(api: Any) -> str:
            if found := engines.of_site(api, name, self.site_id):
                with suppress(NotFound):
                    if api.inspect_container(found)["State"]["Status"] in ("running", "exited"):
                        return found
            body = self.table.build(task)
            made = engines.create(api, name, body)
            try:
                api.start(made)
            except BaseException:
                engines.remove(api, made)
                self.folders.forget(key_of(task))
                raise
            return made

        return await self.servers.call(work)

    async def follow(self, handle: str, after: int = 0) -> AsyncIterator[bytes]:
        state = await self._task(handle)
        async for line in follow(self.servers, state.handle, after):
            yield line

    async def task_end(self, handle: str) -> TaskEnd | None:
        state = await self._task(handle)
        if state.status in ("running", "paused", "restarting", "created"):
            return None
        return TaskEnd(
            exit_code=state.exit_code,
            oom_killed=state.oom_killed,
            output=await self.logs(state.handle),
        )

    async def _task(self, handle: str) -> ServerState:
        state = await self.watch.state(handle)
        if state is None or not {BUILD, labels.JOB} & set(state.labels):
            raise RuntimeRefused(NO_SUCH_TASK())
        return state

    async def tasks(self) -> Mapping[str, str]:
        filters = {"label": [f"{labels.SITE}={self.site_id}", f"{PURPOSE}=build", BUILD]}
        found = await self.servers.call(lambda api: api.containers(all=True, filters=filters))
        return {item["Id"]: item["Labels"][BUILD] for item in found}
