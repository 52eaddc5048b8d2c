"""The hub's process: JupyterHub, and what must be true before, beside and after it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Coroutine
from contextlib import suppress
from functools import cached_property, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import jupyterhub.traitlets
import tornado.httpserver
from sqlalchemy.orm import Session
from tornado.log import access_log, app_log
from traitlets import default

from commons import reserve
from commons.audit import make_event
from commons.broadcasts import Board
from commons.errors import LabError
from commons.i18n import gettext_for, language_for, timezone_for
from commons.leases import ServerKey, job_of
from commons.messages import Locale
from commons.principal import Principal
from commons.site import site_digest
from commons.store import StoreError, room
from commons.store.ends import Ending
from commons.store.models import utcnow
from commons.store.trouble import DatabaseUnavailable, Trouble
from commons.web import proxied
from commons.work import Keyed, Periodic
from courses import ahead, exam_keeper
from courses.exam_keeper import ExamKeeper
from courses.grade_keeper import GradeKeeper
from courses.handin_keeper import HandInKeeper
from courses.material_keeper import MaterialKeeper
from courses.people import Rosters
from courses.term_keeper import TermKeeper
from environments.builds.runner import Runner
from hub_ext import (
    blocks,
    disk_prune,
    disk_watch,
    hub_database,
    hub_settings,
    maintenance,
    shared_keeper,
    site_agreement,
    standing,
    stops,
)
from hub_ext.blocks import Blocks
from hub_ext.disk_prune import NightlyPrune
from hub_ext.disk_watch import DiskWatch
from hub_ext.doctor import rounds as doctor
from hub_ext.guarded_hub import GuardedHub
from hub_ext.log_lines import Lowered
from hub_ext.mail import Addressee, Postman
from hub_ext.maintenance import Maintenance
from hub_ext.nightly_scan import NightlyScan
from hub_ext.routes import TimedProxy, use_of
from hub_ext.servers import HubServers, owners, unfinished_starts
from hub_ext.shared_keeper import SharedKeeper
from hub_ext.usage_letter import ReportPostman
from hub_ext.waiting import Waiting
from jobs.beside import ServersAndJobs
from jobs.keeper import JobKeeper
from spawner.culling.culler import Culler
from spawner.gpu.devices.inventory import InventoryError
from spawner.gpu.quotas import quota_store
from spawner.gpu.watch import monitor
from spawner.gpu.watch.lease_controller import LeaseController
from spawner.gpu.watch.server_activity import Asker, Jupyter
from spawner.reconcile import Reconciler
from spawner.resources import Resources, of_this_machine
from spawner.runtime.protocol import ServerState
from spawner.settings import server as server_settings
from spawner.settings.check import problems
from spawner.settings.server import ServerSettings
from spawner.spawner import LabSpawner
from spawner.starts import kept as requests
from spawner.starts.kept import Kept
from spawner.usage.rollup import UsageKeeper
from spawner.warm.keeper import WarmKeeper
from spawner.warm.records import held

CONFIG = "/etc/labcommons"
CONFIG_FILE = f"{CONFIG}/jupyterhub_config.py"
RECONCILE_INTERVAL = 30  # seconds
PROXY_INTERVAL = 5  # seconds
BEGUN_AT_ONCE = 10  # starts of an earlier hub: each asks the directory
HUB_URL = "http://hub-control:8081"  # as in jupyterhub_config.py
LONGEST = 30.0  # seconds between two tries for a database
COURSES = 60  # seconds between two looks at what classes are to come
RESERVED = 600  # seconds between two looks at the file that is kept
PATIENCE = 2  # seconds between two tries for the agent, and for its list of what runs


# It would look through all packages again for each of the ten settings that can name one of theirs.
jupyterhub.traitlets.entry_points = entry_points().select


class LabCommonsHub(GuardedHub):
    """JupyterHub that waits for the agent, keeps the GPU ledger true and its proxy routed."""

    @default("proxy_class")
    def _proxy_class(self) -> type[TimedProxy]:
        return TimedProxy

    async def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Agent and database first: JupyterHub takes a server it cannot poll for stopped."""
        for log in (self.log, app_log, access_log):
            log.addFilter(Lowered())
        self._background: set[asyncio.Task[None]] = set()
        LabSpawner.shared = self.resources = Resources.from_environment()
        self._site_digest = site_digest()  # of the file as it was read just now
        self.resources.audit.record(
            make_event("site-file", "success", user="", details={"digest": self._site_digest})
        )
        self._waiting = Waiting(os.environ.get("LABCOMMONS_HUB_URL", HUB_URL))
        await self._wait_for_databases()
        await self._wait_for_agent()
        await self._waiting.over()
        self._keep_going(self.resources.watch.run())
        with suppress(TimeoutError):  # then each server is asked about
            await asyncio.wait_for(self.resources.watch.whole(), PATIENCE)
        await self._read_gpus()
        await super().initialize(*args, **kwargs)
        self._servers = HubServers(self)
        if gone := self._servers.take_tokens_back():
            self.log.info("took back the tokens of %s servers that are gone", gone)
        self._stops = Keyed("stops of servers", self.log)
        shared = self.resources
        shared.watch.ended = self._ended
        shared.failed = self._servers.look_soon
        self._jobs = JobKeeper(shared, self._requester, self._settings_of, self.log)
        with suppress(StoreError):  # until they are read, nothing is taken for lost
            await self._jobs.load()
        both = ServersAndJobs(self._servers, self._jobs)
        self._reconciler = Reconciler(
            shared.runtime,
            shared.store,
            both.known,
            self.log,
            self._stop_server,
            self._servers.running,
            self._servers.look_soon,
        )
        # Before the first request: a ledger that lost leases gives their GPUs to nobody else.
        await self._reconcile()
        await self._take_up_starts()

    def _ended(self, state: ServerState) -> None:
        """The runtime says that a container runs no more."""
        if job_of(state.server) is not None:
            self._jobs.wake()
        else:
            self._servers.look_soon((state.user, state.server))

    def init_db(self) -> None:
        """JupyterHub's, whose transactions the loop waits for."""
        hub_database.write_ahead(self.db_url)
        super().init_db()
        hub_database.without_pings(self.db.get_bind())

    async def init_spawners(self) -> int:
        """JupyterHub's, which forgets what was starting; how many there are."""
        _held = owners(self.db)
        self._unfinished = unfinished_starts(self.db)
        return int(await super().init_spawners())

    async def _take_up_starts(self) -> None:
        """What was starting when an earlier hub ended is to be begun again, in the order in which
        it was asked for; what is not worth that is told to be lost. What has a lease, or waits for
        one, is begun again by the keeper of leases.
        """
        known = self._servers.known()
        unfinished = [one for one in self._unfinished if one[0] not in known]

        def work(session: Session) -> list[Kept]:
            left = [one for one in requests.left(session) if one.server not in known]
            # What was started ahead of time is begun again by its own keeper.
            for server in (ahead := held(session)):
                requests.over(session, *server)
            left = [one for one in left if one.server not in ahead]
            again = {one.server for one in left if one.again}
            lost = [one for one in unfinished if one[0] not in again]
            standing.note_lost(session, lost)
            for one in left:
                if not one.again:
                    requests.over(session, *one.server)
            return [one for one in left if one.again]

        try:
            self._left = await self.resources.store.run(work)
        except StoreError as error:
            self._left = []
            self.log.error("earlier starts are not taken up: %s", error)

    async def _begin_again(self, one: Kept) -> None:
        try:
            await self._servers.start(*one.server, one.options)
            self.log.info("%s/%s starts again", *one.server)
        except Exception as error:  # whatever the hub says: it is told, and not tried again
            self.log.error("%s/%s is not started again: %s", *one.server, error)

            def write(session: Session) -> None:
                requests.over(session, *one.server)
                standing.note_lost(session, [(one.server, utcnow())])

            await self.resources.store.run(write)

    def init_tornado_settings(self) -> None:
        """With what is kept of how people read."""
        self.tornado_settings["readers"] = self.resources.readers
        self.tornado_settings["audit"] = self.resources.audit
        self.tornado_settings["board"] = Board(self.resources.store)
        self._blocks = Blocks(self, self.resources.store, self.log)
        self.tornado_settings["blocks"] = self._blocks
        super().init_tornado_settings()

    def load_config_file(self, *args: Any, **kwargs: Any) -> None:
        """JupyterHub's; then nothing starts with a setting that would not do what it says."""
        super().load_config_file(*args, **kwargs)
        found = hub_settings.problems(self.config, self.resources.site)
        if not issubclass(self.spawner_class, LabSpawner):
            found.append("c.JupyterHub.spawner_class: must be labcommons-docker, or made of it")
        else:
            found += problems(self.config, self.spawner_class, self.resources.site)
        if found:
            lines = "".join(f"\n  {line}" for line in found)
            click.echo(f"the hub's configuration cannot be followed:{lines}", err=True)
            self.exit(1)

    async def _reconcile(self) -> None:
        try:
            await self._reconciler.once()
        except (LabError, StoreError) as error:
            self.log.error("reconcile: %s", error)

    def _stop_server(self, server: ServerKey) -> None:
        """Its GPUs are another's in the ledger."""
        both = ServersAndJobs(self._servers, self._jobs)
        self._stops.start(server, partial(both.stop, *server, Ending("gpus_taken")))

    async def _wait_for_databases(self) -> None:
        """Return when both can be written, and tell until then, with the remedy, why they cannot.

        The hub does not end for it: it would be started again and again.
        """
        store, data = self.resources.store, self.resources.data
        hub_file = os.environ.get("LABCOMMONS_HUB_DATABASE_URL", "")
        said, pause = "", float(PATIENCE)
        while True:
            try:
                await asyncio.to_thread(hub_database.check, hub_file)
                await asyncio.to_thread(store.migrate)
                await asyncio.to_thread(store.check)
                return
            except StoreError as error:
                if error.trouble is Trouble.FULL and room.give_up(data):
                    self.log.warning("the disk is full: what was kept for a start is given up")
                    continue
                if str(error) != said:
                    said = str(error)
                    click.echo(f"waiting for the database: {said}", err=True)
                self._waiting.say(DatabaseUnavailable(error.trouble))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST)

    async def _wait_for_agent(self) -> None:
        """Return when what runs is known, or at least the agent answers."""
        said = ""
        while True:
            try:
                await self.resources.runtime.nodes()
                return
            except LabError as error:
                if str(error) != said:
                    said = str(error)
                    click.echo(f"waiting for the agent: {said}", err=True)
                self._waiting.say(error)
                await asyncio.sleep(PATIENCE)

    async def _read_gpus(self) -> None:
        """Bring the inventory up to date; where it cannot be read, keep what was known."""
        try:
            shared = self.resources
            await monitor.refresh(shared.store, shared.site.gpus, shared.runtime)
        except (InventoryError, LabError) as error:
            click.echo(f"GPUs: {error}", err=True)

    async def _begin_quotas(self) -> None:
        """Limits that are fair, on a site that has set nothing."""
        gpus = self.resources.site.gpus
        if gpus.source == "none":
            return
        try:
            if await self.resources.store.run(partial(quota_store.begin, most=gpus.max_per_server)):
                self.log.info("GPUs: the limits of a new site are set; see the page Quotas")
        except StoreError as error:
            self.log.error("GPUs: limits of a new site: %s", error)

    async def start(self) -> None:
        """Start JupyterHub, then reconcile, and go on doing so."""
        # Of this class is the server that JupyterHub makes.
        tornado.httpserver.HTTPServer.configure(proxied.HTTPServer)
        await proxied.proxies.begin()
        shared = self.resources
        window = Maintenance(
            shared.store,
            self._servers,
            shared.turns,
            shared.admission,
            self._goes_on,
            self.log,
        )
        with suppress(StoreError):  # until it answers, nobody's turn comes
            await window.look()
        if hasattr(self.authenticator, "rosters"):
            self.authenticator.rosters = Rosters(shared.store).of
            self.authenticator.blocked = self._blocks.ask
        with suppress(StoreError):  # read again soon
            await self._blocks.look()
        await super().start()
        await self._begin_quotas()
        await self._reconcile()
        both = ServersAndJobs(self._servers, self._jobs)
        self._keeper = LeaseController(shared.admission, both, self.log)
        self._warm = WarmKeeper(
            shared.store, self._servers, shared.turns.ahead, self._servers.members, self.log
        )
        self._together = SharedKeeper(
            self,
            self._servers,
            shared.store,
            shared.site,
            shared.audit,
            getattr(self.authenticator, "rosters", None),
        )
        self._exams = ExamKeeper(
            shared.store, shared.runtime, self._servers, shared.audit, self.log
        )
        watch = monitor.Monitor(
            shared.store, shared.runtime, shared.site.gpus, self._goes_on, self.log
        )
        self._begun_again = Keyed("starts of an earlier hub", self.log, at_once=BEGUN_AT_ONCE)
        for one in self._left:
            self._begun_again.start(one.server, partial(self._begin_again, one))
        postman = Postman(shared.store, shared.site, self._addressee, self.log)
        culler = Culler(
            shared.store, shared.site.servers.culling, self._servers, self._goes_on, self.log
        )
        announced = stops.AnnouncedStops(shared.store, self._servers)
        look = DiskWatch(
            shared.store,
            shared.runtime,
            shared.site.storage,
            self._servers.running,
            self._servers.answerable,
            self.log,
        ).once
        expected = (LabError, StoreError)
        disk = Periodic("disk use", look, disk_watch.EVERY, self.log, expected=expected, first=60)
        prune = NightlyPrune(
            shared.store,
            shared.runtime,
            shared.site,
            Path(os.environ.get("LABCOMMONS_CONFIG", CONFIG)) / "environments",
            shared.audit,
            self.log,
        ).once
        scanned = NightlyScan(shared.store, shared.runtime, shared.site, self.log).once
        builds = Runner(
            shared.runtime,
            shared.store,
            shared.site,
            shared.data,
            self._requester,
            shared.audit,
            self.log,
            of_this_machine(),
        )
        materials = MaterialKeeper(
            shared.runtime, shared.store, shared.site, of_this_machine(), self.log
        )
        hand_ins, gradings = (
            keeper(
                shared.runtime,
                shared.store,
                shared.site,
                self._requester,
                shared.audit,
                self.log,
                os.environ.get("LABCOMMONS_PUBLIC_URL", ""),
            )
            for keeper in (HandInKeeper, GradeKeeper)
        )
        terms = TermKeeper(
            shared.runtime,
            shared.store,
            shared.site,
            shared.audit,
            self.log,
            self._servers.answerable,
            self._servers.positions,
            os.environ.get("LABCOMMONS_PUBLIC_URL", ""),
        )
        for work in (
            terms.run(),
            self._jobs.run(),
            hand_ins.run(),
            gradings.run(),
            materials.run(),
            self._reconciler.forever(RECONCILE_INTERVAL),
            UsageKeeper(shared.store, self.log).run(),
            ReportPostman(shared.store, shared.site, self.log).run(),
            shared.admission.run(),
            self._keeper.run(),
            self._warm.run(),
            Periodic(
                "site file", self._compare, site_agreement.EVERY, self.log, expected=(LabError,)
            ).run(),
            Periodic("routes of the proxy", self._keep_routes, PROXY_INTERVAL, self.log).run(),
            watch.run(),
            culler.run(),
            postman.run(),
            Periodic("maintenance", window.look, maintenance.INTERVAL, self.log).run(),
            Periodic("announced stops", announced.look, stops.INTERVAL, self.log).run(),
            Periodic("room on the disk", self._keep_room, RESERVED, self.log).run(),
            Periodic("blocks", self._blocks.look, blocks.INTERVAL, self.log).run(),
            *([disk.run()] if shared.site.storage.measure else []),
            Periodic("disk prune", prune, disk_prune.EVERY, self.log, expected=expected).run(),
            Periodic("known holes", scanned, disk_prune.EVERY, self.log, expected=expected).run(),
            builds.forever(),
            Periodic(
                "doctor",
                doctor.Rounds(shared.store).once,
                doctor.LOOK,
                self.log,
                expected=(StoreError, OSError),
                first=doctor.FIRST,
            ).run(),
            Periodic(
                "courses", self._plan_courses, COURSES, self.log, expected=(StoreError,)
            ).run(),
            Periodic(
                "shared servers",
                self._together.look,
                shared_keeper.LOOK,
                self.log,
                expected=(StoreError,),
            ).run(),
            Periodic(
                "exams", self._exams.look, exam_keeper.INTERVAL, self.log, expected=(StoreError,)
            ).run(),
            proxied.proxies.keep(),
        ):
            self._keep_going(work)

    async def _keep_room(self) -> None:
        """For both databases, and to open them, on a disk that others fill."""
        for engine in (self.db.get_bind(), self.resources.store.engine):
            file = engine.url.database
            if engine.dialect.name == "sqlite" and file not in (None, "", ":memory:"):
                with suppress(sqlite3.Error, OSError):  # a full disk: what there is has to do
                    await asyncio.to_thread(room.hold, Path(file))
        with suppress(OSError):  # others were faster
            for folder in await asyncio.to_thread(room.folders, self.resources.data):
                await asyncio.to_thread(reserve.keep, folder)

    async def _plan_courses(self) -> None:
        """Servers of classes of the next day."""
        site = self.resources.site
        await self.resources.store.run(lambda s: ahead.plan(s, site, time.time()))

    async def _compare(self) -> None:
        await site_agreement.compare(self.resources.runtime, self._site_digest)

    def _keep_going(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_ended)

    _asker = cached_property(lambda _self: Asker())

    async def _goes_on(self, server: ServerKey) -> Jupyter:
        """What goes on in a person's server; unknown where it is not up."""
        user = self.users.get(server[0])
        spawner = user.spawners.get(server[1]) if user else None
        if spawner is None or not spawner.ready:
            return Jupyter()
        # From the same look: an address that is another's by now would get this one's token.
        there = await spawner.whereabouts()
        return await self._asker(*there) if there else Jupyter()

    async def _addressee(self, username: str) -> Addressee | None:
        """Where a person's mail goes, as the directory said at their last login."""
        user = self.users.get(username)
        known = await user.get_auth_state() if user else None
        if not known or not known.get("mail"):
            return None
        readers = self.resources.readers
        reader = await readers.meet(username, directory=str(known.get("language") or ""))
        language = language_for(reader, site=readers.language)
        locale = Locale(gettext_for(language), timezone_for(reader, site=readers.timezone))
        return Addressee(str(known["mail"]), locale)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        """A defect in a guard must be seen: without it the hub would go on unguarded."""
        self._background.discard(task)
        if not task.cancelled() and task.exception():
            self.log.critical("background task ended", exc_info=task.exception())
            self.exit(1)

    async def shutdown_cancel_tasks(self, sig: Any = None) -> None:
        """The hub goes down: who waits for GPUs keeps the place for the next one."""
        if hasattr(self, "resources"):  # it may be told to while it starts
            self.resources.admission.stopping = True
        await super().shutdown_cancel_tasks(sig)

    async def _requester(self, name: str) -> Principal | None:
        """Somebody who asked for a build, as the directory says now; None for nobody."""
        if name not in self.users:
            return None
        user = self.users[name]
        fresh = await self.authenticator.refresh_user(user)
        if not fresh:
            return None
        model = fresh if isinstance(fresh, dict) else {}
        state = model.get("auth_state") or await user.get_auth_state() or {}
        admin = user.admin if model.get("admin") is None else model["admin"]
        return Principal.from_auth_state(name, bool(admin), state)

    async def _settings_of(self, name: str, who: Principal) -> ServerSettings:
        """What the hub's settings say of somebody's servers, for their jobs."""
        spawner = self.users[name].spawners[""]
        return await server_settings.read(
            spawner, self.resources.site, [scope.source for scope in who.scopes]
        )

    async def _keep_routes(self) -> None:
        """A proxy that was restarted has no routes: give them back within seconds.

        JupyterHub itself looks every five minutes (``last_activity_interval``).
        """
        routes = await self.proxy.get_all_routes()
        if self.hub.routespec not in routes:
            self.log.warning("the proxy has lost its routes: restoring them")
            await self.proxy.check_routes(self.users, self._service_map, routes)
        await self._warm.opened(await self._keeper.note_activity(use_of(routes)))


@click.command()
def hub() -> None:
    """Run the hub (settings: jupyterhub_config.py beside the site file)."""
    config = os.environ.get("LABCOMMONS_HUB_CONFIG", CONFIG_FILE)
    if not Path(config).is_file():
        raise click.ClickException(f"{config} is missing; set LABCOMMONS_HUB_CONFIG to its place")
    LabCommonsHub.launch_instance(["--config", config])
