"""LabSpawner: a server's life, from the request to the end of its lease.

Thin on purpose: what may be asked is in ``options``, what people see in ``dialogue``, who gets
which GPU in ``gpu``, what runs servers is behind ``runtime``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from jupyterhub.utils import maybe_future
from sqlalchemy.orm import Session
from traitlets import Any as AnyTrait
from traitlets import Int, Unicode

from commons import frozen, maintenance, notices
from commons.audit import make_event
from commons.errors import BadRequest, LabError, NotAllowed, NotAvailable, RuntimeSilent
from commons.i18n import N_
from commons.leases import JOB
from commons.messages import Text, listed
from commons.principal import Principal
from commons.scopes import Scope
from commons.shared_accounts import scope_of
from commons.site import Site, Size, parse_bytes, words_in
from commons.store import StoreError, ends, runs
from commons.store.ends import Ending
from commons.store.models import ExamSitting
from commons.web.refused import Refused
from environments.signed import as_image
from spawner import (
    endings,
    exams,
    last_words,
    options,
    readiness,
    server_mounts,
    server_runs,
    storage,
)
from spawner.dialogue import Dialogue
from spawner.gpu import waiting
from spawner.gpu.ledger import recovery, transitions
from spawner.gpu.ledger.batches import Ask
from spawner.gpu.ledger.snapshot import read_devices
from spawner.options.choice import Choice
from spawner.runtime import labels
from spawner.runtime.protocol import ServerState
from spawner.runtime.spec import SERVER_PORT, Account, Device, Gpus, Limits, ServerSpec
from spawner.settings.server import ServerSettings
from spawner.starts import kept as requests
from spawner.starts.room import Need
from spawner.starts.turns import Closed

LOG_TIMEOUT = 5  # seconds for the end of a server's log
# Ends of a server that the stopping hub does not undo: there is nothing to start again.
ENDINGS = ("container ended", "stopped")
LEASE_TAKEN_BACK = Text(
    "lease_taken_back",
    N_("The GPUs of this server were taken back while it was starting. Try again."),
)
NAME_OF_JOBS = Text(
    "server_name_of_jobs", N_("“job:” begins the names of jobs. Give the server another name.")
)
NOT_CONFIRMED = Text(
    "account_not_confirmed",
    N_(
        "The directory does not confirm your account now. Log in again and start anew, or ask an "
        "administrator."
    ),
)


class LabSpawner(Dialogue):
    """Starts each server in a container of its own, with the GPUs it has leased."""

    api_token: str

    identity_hook = AnyTrait(
        None,
        allow_none=True,
        config=True,
        help="""Callable(spawner, auth_state) -> spawner.runtime.spec.Account, where the
        directory's uid, gid and gids in auth_state are not what should be used.""",
    )

    # What the hub keeps between its restarts.
    container_ref = Unicode("")
    # "name:version" of what runs, for the pages: what was asked for may name no version.
    running_environment = Unicode("")
    running_port = Int(SERVER_PORT)
    lease_id = Unicode("")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Why the server is about to be stopped, said by whoever asks for it; None: by its owner.
        self.ending: Ending | None = None
        self._choice: options.Choice | None = None
        self._grant: Gpus | None = None
        self._made = False  # a container was asked for, whether or not it is known by now
        self._exit: int | None = None
        self._ended = ""  # the last container whose end is in the audit trail
        self.called = asyncio.Event()  # the server has called the hub
        self._has_turn = False
        self._kept = False  # what was asked for is in the store
        self._settings: ServerSettings | None = None
        self._exam: ExamSitting | None = None  # whose server it is
        self._frozen: frozenset[str] = frozenset()  # courses

    # A server never comes back in its old container: the hub then takes back its tokens.
    will_resume = False

    async def _get_oauth_client_allowed_scopes(self) -> list[str]:
        """JupyterHub's; it goes on to write."""
        await self.resources.one_by_one(1)
        found: list[str] = await super()._get_oauth_client_allowed_scopes()
        return found

    async def run_pre_spawn_hook(self) -> None:
        """Refuse at the door what cannot be filled; wait for GPUs and for the turn to start.

        All of this is before ``start`` and its time-out.
        """
        await maybe_future(super().run_pre_spawn_hook())
        self._steps.clear()
        try:
            if self.name.startswith(JOB):
                raise BadRequest(NAME_OF_JOBS())
            self._settings = settings = await self._read_settings()
            # The hub's own session is of its loop alone: nothing of it goes into a thread.
            username, server = self.user.name, self.name
            self._exam = exam = await self.resources.store.read(
                lambda s: exams.check(s, username, server)
            )
            asked = dict(self.user_options) if exam is None else dict(exam.options)
            request = options.parse(settings.asked(asked))
            person = self._person()
            admin = bool(self.user.admin)
            _open, self._frozen, found, since = await self.resources.store.run(
                lambda s: (
                    maintenance.check(s, username, server, admin),
                    frozen.courses(s),
                    options.offered(s, person, packages=False),
                    requests.keep(s, username, server, asked, admin),
                )
            )
            self._kept = True
            entries = settings.catalog(found)
            site = settings.site(self.resources.site)
            self._choice = options.resolve(request, entries, site, person)
            await self._prove(self._choice)
            if request.course or request.account or request.gpus:
                frozen.check_account(self._choice.account, self._frozen)
            self._identity()
            kept: dict[str, Any] = self._choice.user_options()
            if request.version:
                kept["environment"] += f":{request.version}"
            await self._write_options(kept)
            while True:
                if self._choice.gpus and await self._obtain_gpus(self._choice):
                    await self._ask_directory()
                    person = self._person()
                    options.resolve(request, entries, site, person)
                sizes = options.sizes_for(person, site)
                if exam is None:  # which does not use the home
                    await self._has_room(person, self._choice, sizes, site)
                try:
                    await self._wait_for_turn(self._choice, since, sizes)
                    break
                except Closed:
                    await self._give_gpus_back()
        except LabError as error:
            await self._clean_up(f"refused: {error.code}")
            raise Refused(error, self._) from error
        except StoreError as error:
            await self._clean_up("start failed")
            raise self._without_store(error) from error
        except BaseException:
            await asyncio.shield(self._clean_up("cancelled"))
            raise

    async def _prove(self, choice: Choice) -> None:
        """Raises NotAvailable for an image that is not signed, where the site wants that; before
        anything is waited for. The agent looks again at what it starts.
        """
        image = as_image(choice.entry.runs_in)
        refusal = await asyncio.to_thread(self.resources.signatures.refusal, image)
        if refusal is not None:
            raise NotAvailable(refusal)

    async def _has_room(
        self, person: Principal, choice: Choice, sizes: Mapping[str, Size], site: Site
    ) -> None:
        """Raises NotAvailable where a folder that the person fills is over its limit."""
        size, gpus = choice.size_name, choice.gpus
        await self.resources.store.read(
            lambda session: storage.check(session, person, size, gpus, sizes, site)
        )

    async def _ask_directory(self) -> None:
        """What the person is now: who waited for days may have left the team that is charged."""
        fresh = await maybe_future(self.authenticator.refresh_user(self.user))
        if not fresh:
            raise NotAllowed(NOT_CONFIRMED())
        if isinstance(fresh, dict):
            await self.run_auth_state_hook(fresh.get("auth_state"))

    async def _write_options(self, options: dict[str, Any]) -> None:
        """What was chosen, as it was understood. Committed before anything is waited for: any
        request that ends takes back what is not, and has all that the hub knows read anew.
        """
        await self.resources.one_by_one(3)
        self.user_options = self.orm_spawner.user_options = options
        self.user.db.commit()

    async def _obtain_gpus(self, choice: options.Choice) -> bool:
        """Wait in the queue until the GPUs are this server's own. Whether there was a wait."""
        shared = self.resources
        # A container of this server that an earlier life left must go before its lease does.
        await shared.runtime.remove_server(self.user.name, self.name)
        self._say(5, N_("Asking for {count} GPU"), count=choice.gpus)
        ask = Ask(
            self.user.name,
            self.name,
            choice.account,
            choice.gpus,
            choice.gpu_type,
            choice.time_limit,
            self.user_options,
            choice.wait,
            anytime=bool(self.user.admin),
        )
        standing = await waiting.obtain(shared.admission, ask, self._tell)
        self.lease_id, waited = standing.lease, bool(self.waits_for)
        ids = {slot.device for slot in standing.slots}
        known = await shared.store.read(read_devices)
        devices = [device for device in known if device.id in ids]
        simulated = any(device.simulated for device in devices)
        self._grant = Gpus(
            lease=standing.lease,
            devices=tuple(Device(id=slot.device, index=slot.index) for slot in standing.slots),
            account=choice.account,
            time_limit=choice.time_limit,
        )
        self._say(
            15,
            N_("Got {devices} (simulated)") if simulated else N_("Got {devices}"),
            devices=partial(listed, [device.model for device in devices]),
        )
        return waited

    async def _wait_for_turn(
        self, choice: options.Choice, since: float, sizes: Mapping[str, Size]
    ) -> None:
        needs = {name: Need(size.guaranteed_bytes, size.cpu) for name, size in sizes.items()}
        turns, key = self.resources.turns, (self.user.name, self.name)
        need, tell = needs[choice.size_name], partial(self._tell_place, needs)
        await turns.take(key, need, since, tell, choice.wait, leaves=self._grant is not None)
        self._has_turn = True

    async def _give_gpus_back(self) -> None:
        """Maintenance has begun: who waits holds no GPUs, and has their old place in the queue."""
        lease = self.lease_id

        def work(session: Session) -> bool:
            goes_on = maintenance.current(session) is not None
            if goes_on:
                recovery.again(session, lease, "maintenance")
            return goes_on

        if await self.resources.admission.change(work):
            self._grant, self.lease_id = None, ""
        else:
            await asyncio.sleep(1)  # it is over, and the line opens in a moment

    def _give_turn_back(self, answered: bool | None = None) -> None:
        if self._has_turn:
            self._has_turn = False
            self.resources.turns.give_back((self.user.name, self.name), answered)

    def _identity(self) -> Account:
        if self.identity_hook is not None and scope_of(self.user.name) is None:
            found = self.identity_hook(self, self._auth_state)
            assert isinstance(found, Account)
            return found
        uid, gid, gids = self._person().numbers()
        return Account(uid=uid, gid=gid, gids=gids)

    # -- life -----------------------------------------------------------------------------

    async def start(self) -> str:
        """Create, start, wait until it answers. Leaves nothing behind when it fails."""
        try:
            url = await self._start()
            self._give_turn_back(answered=True)
            self._audit("server-start", environment=self.running_environment, lease=self.lease_id)
            await self.resources.one_by_one(4)
            return url
        except RuntimeSilent as error:
            self._give_turn_back(answered=False)
            await self._clean_up(f"start failed: {error.code}")
            raise Refused(error, self._) from error
        except LabError as error:
            failed = Ending("start_failed", data={"reason": error.message.as_json()})
            await self._record(failed, told=True)
            await self._clean_up(f"start refused: {error.code}")
            raise Refused(error, self._) from error
        except StoreError as error:
            await self._clean_up("start failed")
            raise self._without_store(error) from error
        except BaseException as error:
            # Cancelled (by the person, or by start_timeout) as well as unforeseen.
            await asyncio.shield(self._clean_up(f"start broken off: {type(error).__name__}"))
            raise
        finally:
            self._give_turn_back()

    async def _start(self) -> str:
        choice, grant, settings = self._choice, self._grant, self._settings
        self._exit = None
        if (begun := self._spawn_future) is not None:
            begun.add_done_callback(self._see_end)
        if choice is None or settings is None:
            raise RuntimeError("start without run_pre_spawn_hook")
        shared, who = self.resources, self._identity()
        if grant is None:
            # Whatever an earlier life of this server held ends with its container.
            await shared.runtime.remove_server(self.user.name, self.name)
            username, server = self.user.name, self.name
            if await shared.store.read(lambda s: transitions.of_server(s, username, server)):
                await shared.admission.change(
                    lambda s: transitions.end_of_server(s, username, server, "replaced")
                )
        self._say(20, N_("Preparing your home"))
        if self._exam is None:
            found = await server_mounts.prepare(shared, who, self._person())
        else:
            place = exams.place_of(self._exam)
            found = await server_mounts.prepare_exam(shared, who, self._person(), place)
        self._say(
            30,
            N_("Starting a container with {environment}"),
            environment=words_in(choice.entry.words.get("title") or choice.entry.name, self.lang),
        )
        self._made = True
        spec = self._spec(choice, found, grant, settings)
        self.container_ref = await shared.runtime.start(spec)
        self.running_environment = f"{choice.entry.name}:{choice.entry.version}"
        await self._write_run(spec, choice)
        self.running_port = self.port
        self._say(60, N_("Waiting for JupyterLab to answer"))
        url = await readiness.wait(
            shared.runtime,
            self._look,
            self.port,
            self.server.base_url,
            self.called,
            # Before JupyterHub gives up without a word.
            within=0.9 * self.start_timeout,
        )
        self._say(90, N_("JupyterLab answers"))
        await self._tell_missing(self.container_ref)
        return url

    def _see_end(self, begun: asyncio.Future[Any]) -> None:
        """The hub's own work at a start is over."""
        if not begun.cancelled() and begun.exception() is not None:
            self.resources.failed((self.user.name, self.name))

    async def _tell_missing(self, container: str) -> None:
        """Folders that the machine does not have just now: the server has started without them."""
        state = await self._look()
        names = (state.labels.get(labels.MISSING, "") if state else "").split()
        mounts, user = self.resources.site.servers.mounts, self.user.name
        server = self.name
        folders = [mounts[name].places(user)[1] for name in names if name in mounts]
        if folders:
            self._say(
                95, N_("Without {folders}: not there just now"), folders=partial(listed, folders)
            )
            await self.resources.store.run(
                lambda session: notices.add(
                    session,
                    username=user,
                    lease_id=None,
                    server=server,
                    code="folders_missing",
                    data={"folders": folders},
                    key=f"folders:{container}",
                )
            )

    async def _write_run(self, spec: ServerSpec, choice: Choice) -> None:
        """Its container runs, and its lease is in use."""
        container = self.container_ref

        def write(session: Session) -> None:
            if spec.gpus:
                transitions.activate(session, spec.gpus.lease, container)
            run = server_runs.of_spec(container, spec, choice.account, choice.entry.name)
            runs.begin(session, run)

        try:
            await self.resources.store.run(write)
        except transitions.LeaseMoveError as error:
            raise NotAvailable(LEASE_TAKEN_BACK()) from error

    def _spec(
        self,
        choice: options.Choice,
        found: server_mounts.Outfit,
        grant: Gpus | None,
        settings: ServerSettings,
    ) -> ServerSpec:
        entry, servers = choice.entry.runs_in, self.resources.site.servers
        language, timezone = self.owners
        limits = Limits(
            cpu=choice.size.cpu,
            memory=choice.size.memory_bytes,
            guaranteed=choice.size.guaranteed_bytes,
            pids=min(settings.ceiling.pids or servers.pids, servers.pids),
            shared_memory=settings.shared_memory(servers),
            tmp=parse_bytes(servers.tmp),
        )
        shut = {Scope("course", name).source for name in self._frozen}
        key = (self.user.name, self.name)
        return ServerSpec(
            user=self.user.name,
            server=self.name,
            account=found.who,
            # By its id: a tag may have moved since the catalog was read.
            image=entry.image_id,
            environment=entry.name,
            version=entry.version,
            limits=limits,
            scopes=found.scopes,
            read_only=tuple(s for s in found.scopes if s in shut),
            mounts=settings.mounts if self._exam is None else (),
            exam=None if self._exam is None else exams.place_of(self._exam),
            gpus=grant,
            env=self.get_env()
            | {
                "JUPYTER_IMAGE_SPEC": entry.image,
                # Of an environment outside images, whose kernel new notebooks get.
                **({} if choice.entry is entry else {"LABCOMMONS_CHOSEN": choice.entry.prefix}),
                "LABCOMMONS_FULL_NAME": str(self._auth_state.get("display_name") or ""),
                "LABCOMMONS_LANGUAGE": language,
                "LABCOMMONS_MAIL": str(self._auth_state.get("mail") or ""),
                "TZ": str(timezone),
                # Never in anybody's own server.
                **({"LABCOMMONS_TOGETHER": "1"} if scope_of(self.user.name) else {}),
                # Nobody waits for it yet.
                **({"LABCOMMONS_AHEAD": "1"} if key in self.resources.turns.ahead else {}),
                "MEM_LIMIT": str(limits.memory),
                "CPU_LIMIT": f"{limits.cpu:g}",
            }
            | found.env,
            command=tuple(self.cmd or ()),
            args=tuple(self.get_args()),
            port=self.port,
            addresses=os.environ.get("LABCOMMONS_ADDRESSES", ""),
            name=settings.name(entry),
        )

    async def _look(self) -> ServerState | None:
        """The server as it is now. Raises RuntimeSilent where that is not known."""
        return await self.resources.watch.look(self.container_ref)

    async def whereabouts(self) -> tuple[str, str] | None:
        """Where the server is now, and its own token; None where that is not known."""
        if not self.container_ref or not self.server:
            return None
        try:
            state = await self._look()
            if state is not None and state.runs:
                url = readiness.url_of(state, self.running_port) + str(self.server.base_url)
                return url, state.token
        except LabError as error:
            self.log.warning("%s: address not checked: %s", self._log_name, error)
        return None

    async def get_url(self) -> str:
        """Where the server is now; it may have got another address meanwhile."""
        there = await self.whereabouts()
        return there[0] if there else str(self.server.url) if self.server else ""

    async def poll(self) -> int | None:
        """None while it runs, and while nobody can say that it does not.

        JupyterHub drops a server whose poll fails; an Engine that is down for a minute would cost
        everybody their work.
        """
        if not self.container_ref:
            # JupyterHub asks once more when it has heard that a server ended.
            return self._exit or 0
        try:
            state = await self._look()
        except LabError as error:
            self.log.warning("%s: not polled: %s", self._log_name, error)
            return None
        if state is not None:
            # A restarted hub does not know it, and could not take it back when the server ends.
            self.api_token = self.api_token or state.token
        if state is not None and state.runs:
            return None
        await self._note_end(state)
        await self._clean_up("container ended")
        return self._exit or 0

    async def has_ended(self) -> bool:
        """Whether the hub takes for ready, even now that it has looked, what runs no more."""
        return self.ready and await self.poll_and_notify() is not None and bool(self.ready)

    async def _note_end(self, state: ServerState | None) -> None:
        """Keep and tell how a server ended that nobody stopped."""
        self._exit = state.exit_code if state is not None else None
        ending = endings.of_state(state)
        self.log.warning("%s ended: %s, exit code %s", self._log_name, ending.cause, self._exit)
        await self._record(ending, told=True)

    async def _record(self, ending: Ending, told: bool = False) -> None:
        """Write why this server ends, unless that is written; and tell its owner, where it has."""
        key, lease_id = self.container_ref or self.lease_id, self.lease_id or None
        username, server = self.user.name, self.name
        size = self.user_options.get("size")
        found = self.resources.site.sizes.get(str(size))
        data = {
            **({"environment": self.running_environment} if self.running_environment else {}),
            **({"size": size, "limit_bytes": found.memory_bytes} if found else {}),
            **ending.data,
        }
        if ending.cause in last_words.CAUSES and (said := await self._last_words()):
            data["log"] = said
        whole = replace(ending, data=data)

        def write(session: Session) -> tuple[str, str]:
            ends.record(session, key, username, server, whole, lease_id)
            if told:
                endings.tell(session, key, self.resources.site.sizes)
            known = ends.of(session, key)
            return (known.cause, known.by or "") if known is not None else (whole.cause, whole.by)

        if not key:
            return
        try:
            cause, by = await self.resources.store.run(write)
        except StoreError as error:
            self.log.error("%s: its end is not told: %s", self._log_name, error)
            cause, by = whole.cause, whole.by
        if told and self._ended != key:
            self._ended = key
            self._audit("server-end", reason=cause, by=by, lease=lease_id)

    def _audit(self, action: str, reason: str = "", **details: str | None) -> None:
        said = {"server": self.name, **details}
        options = ("size", "gpus", "gpu_type", "account", "course")
        if action == "server-start":
            said |= {name: self.user_options.get(name) for name in options}
        self.resources.audit.record(
            make_event(
                action,
                "failure" if reason == "start_failed" else "success",
                user=self.user.name,
                reason=reason,
                details={key: value for key, value in said.items() if value or key == "server"},
            )
        )

    async def _last_words(self) -> str:
        """The end of the server's log, where it can be had at once."""
        if not self.container_ref:
            return ""
        secrets = (self.api_token or "",)
        with suppress(LabError, TimeoutError):
            async with asyncio.timeout(LOG_TIMEOUT):
                output = await self.resources.runtime.logs(self.container_ref, last_words.LINES)
            return last_words.cleaned(output, secrets)
        return ""

    async def stop(self, now: bool = False) -> None:
        """SIGTERM, grace, SIGKILL; remove the container; end the lease."""
        # A start that failed is stopped by the hub itself.
        by_itself = Ending("start_failed") if self._still_starting else Ending("stopped")
        ending, self.ending = self.ending or by_itself, None
        handle = self.container_ref
        # Before: a hub that is killed meanwhile leaves the cause to the next one.
        await self._record(ending)
        if handle:
            grace = 0 if now else self.resources.site.servers.stop_timeout
            try:
                await self.resources.runtime.stop(handle, grace)
            except LabError as error:
                self.log.error("%s: not stopped: %s", self._log_name, error)
                await self._goes_on(handle)
                raise
        await self._record(ending, told=True)
        await self._clean_up("stopped")
        await self.resources.one_by_one(4)

    @property
    def _still_starting(self) -> bool:
        future = self._spawn_future
        return future is not None and not future.done()

    async def _goes_on(self, handle: str) -> None:
        """It was not stopped: what was written of its end is not so."""
        with suppress(StoreError):
            await self.resources.store.run(lambda session: ends.forget(session, handle))

    async def _clean_up(self, reason: str) -> None:
        """Remove the container, then end the lease: in this order, so that no device is free
        while something may still use it. Where it fails, the reconciler does it later. A hub
        that is stopping keeps the lease: the next one starts this server again.
        """
        lease_id, admission = self.lease_id, self.resources.admission
        made, self._made = self._made, False
        runtime = self.resources.runtime
        self._grant = None
        self._give_turn_back()
        if not admission.stopping:
            await self._forget_request()
        try:
            if self.container_ref:
                await runtime.remove(self.container_ref)
            elif lease_id or made:
                await runtime.remove_server(self.user.name, self.name)
            if lease_id and not (admission.stopping and reason not in ENDINGS):
                await admission.end(lease_id, reason)
        except LabError as error:
            self.log.error("%s: left to the reconciler (%s): %s", self._log_name, reason, error)
        except StoreError as error:
            self.log.error("%s: lease to be ended later (%s): %s", self._log_name, reason, error)
            admission.end_soon(lease_id, reason)
        self.container_ref = self.lease_id = self.running_environment = ""

    async def _forget_request(self) -> None:
        """What was asked for runs, or has come to nothing. Where the database does not answer, a
        later hub finds that out."""
        if self._kept:
            self._kept = False
            user, server = self.user.name, self.name
            try:
                await self.resources.store.run(lambda s: requests.over(s, user, server))
            except StoreError as error:
                self.log.error("%s: its request is not forgotten: %s", self._log_name, error)

    def start_polling(self) -> None:
        """JupyterHub's, by which it is about to write down that the server runs: from then on what
        was asked for need not be kept."""
        super().start_polling()
        if self._kept:
            self._forgetting = asyncio.create_task(self._forget_request())

    async def run_post_stop_hook(self) -> None:
        """The hub is through with this server: nothing of it may be left, whatever happened."""
        if self.lease_id:
            await self._clean_up("stopped")
        await maybe_future(super().run_post_stop_hook())

    # -- state and progress ---------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """What the hub keeps of a running server."""
        if not self.container_ref:
            return {}
        return {
            "container": self.container_ref,
            "lease": self.lease_id,
            "environment": self.running_environment,
            "port": self.running_port,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """What the hub kept; also after its restart."""
        self.container_ref = state.get("container", "")
        self.lease_id = state.get("lease", "")
        self.running_environment = state.get("environment", "")
        self.running_port = state.get("port", SERVER_PORT)

    def clear_state(self) -> None:
        """Forget; the next start begins anew."""
        self._give_turn_back()
        self._made = False
        self.ending = None
        self.container_ref = self.lease_id = self.running_environment = ""
