"""LabSpawner: a server's life, from the request to the end of its lease.

Thin on purpose: what may be asked is in ``options``, who gets which GPU in ``gpu``, what
a container looks like in ``container``, how Docker is called in ``engine``.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from datetime import tzinfo
from typing import Any

from dockerspawner import DockerSpawner
from jupyterhub.utils import maybe_future
from traitlets import Any as AnyTrait
from traitlets import Unicode, default

from hub_ext.i18n import (
    LANGUAGE_COOKIE,
    N_,
    TIMEZONE_COOKIE,
    Gettext,
    choose_language,
    choose_timezone,
    gettext_for,
)
from hub_ext.site import parse_bytes
from hub_ext.store import StoreError
from spawner import answering, options, outfit
from spawner.container import (
    SERVER_PORT,
    ContainerSpec,
    GpuGrant,
    Identity,
    Limits,
    container_name,
    create_body,
)
from spawner.environments import catalog
from spawner.errors import NotAvailable, SpawnerError
from spawner.gpu import ledger, waiting
from spawner.gpu.admission import Ask
from spawner.gpu.offer import make_offers
from spawner.gpu.outlook import probe
from spawner.gpu.snapshot import read_devices, read_snapshot
from spawner.refusal import Refusal
from spawner.resources import Resources
from spawner.tiers.people import identity_of, person_in
from spawner.tiers.rights import Person

# Ends of a server that the stopping hub does not undo: there is nothing to start again.
ENDINGS = ("container ended", "stopped")


class LabSpawner(DockerSpawner):  # type: ignore[misc]
    """Starts each server in a container of its own, with the GPUs it has leased."""

    shared: Resources | None = None
    user_options: dict[str, Any]
    api_token: str

    network_name = Unicode(
        config=True,
        help="The Docker network of users' servers; the site file's servers.network by default.",
    )
    identity_hook = AnyTrait(
        None,
        allow_none=True,
        config=True,
        help="""Callable(spawner, auth_state) -> spawner.container.Identity, where the
        directory's uid, gid and gids in auth_state are not what should be used.""",
    )

    # What the hub keeps between its restarts.
    container_ref = Unicode("")
    # "name:version" of what runs, for the pages: what was asked for may name no version.
    running_environment = Unicode("")
    lease_id = Unicode("")

    @default("network_name")
    def _default_network_name(self) -> str:
        return os.environ.get("LABCOMMONS_USERS_NETWORK") or self.resources.site.servers.network

    @default("options_form")
    def _default_options_form(self) -> Any:
        return type(self)._form

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return self._from_form

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._auth_state: dict[str, Any] = {}
        self._steps: list[dict[str, Any]] = []
        self._step = asyncio.Event()
        self._choice: options.Choice | None = None
        self._grant: GpuGrant | None = None
        self._has_turn = False
        self.port = SERVER_PORT
        self.start_timeout = self.resources.site.servers.start_timeout

    # A server never comes back in its old container: the hub then takes back its tokens.
    will_resume = False

    @property
    def resources(self) -> Resources:
        """Made once for the process, at its first spawner."""
        if LabSpawner.shared is None:
            LabSpawner.shared = Resources.from_environment()
        return LabSpawner.shared

    @property
    def site_id(self) -> str:
        """The value of the label ``labcommons.site``."""
        return self.resources.site_id

    # -- language and errors ------------------------------------------------------------

    @property
    def lang(self) -> str:
        """The language of the request that is being served, else the directory's, else English."""
        if self.handler is None:
            return choose_language(None, str(self._auth_state.get("language") or ""))
        return choose_language(
            self.handler.get_cookie(LANGUAGE_COOKIE),
            self.handler.request.headers.get("Accept-Language")
            or str(self._auth_state.get("language") or ""),
        )

    @property
    def _(self) -> Gettext:
        return gettext_for(self.lang)

    @property
    def _timezone(self) -> tzinfo | None:
        """The person's, as their browser says it."""
        return choose_timezone(self.handler and self.handler.get_cookie(TIMEZONE_COOKIE))

    # -- what is asked ------------------------------------------------------------------

    async def _form(self) -> str:
        """The spawn page's model as JSON; the template draws it."""
        person = options.Person.of(self.user.name, self._auth_state)
        site, now = self.resources.site, time.time()
        probes = tuple(probe(person.name, account, now) for account in person.accounts)
        entries, available, snapshot = await self.resources.store.read(
            lambda session: (
                options.usable(catalog.newest(session), self._auth_state),
                ledger.availability(session),
                read_snapshot(session, now, probes=probes),
            )
        )
        most = min(site.gpus.max_per_server, available.total)
        # Looking ahead counts with every request that waits: off the event loop.
        offers = await asyncio.to_thread(
            make_offers, snapshot, person.name, person.accounts, most, self._, self._timezone
        )
        last = self.user_options or {}
        return json.dumps(
            options.form_model(entries, site, available, last, self.lang, self._, offers)
        )

    def _from_form(self, form: dict[str, Any]) -> dict[str, Any]:
        try:
            return options.from_form(form)
        except SpawnerError as error:
            raise Refusal.of(error, self._) from error

    async def run_auth_state_hook(self, auth_state: dict[str, Any] | None) -> None:
        """Keep what the directory said about the person, for ``start``."""
        self._auth_state = auth_state or {}
        await super().run_auth_state_hook(auth_state)

    async def run_pre_spawn_hook(self) -> None:
        """Refuse at the door what cannot be filled; wait for GPUs and for the turn to start.

        All of this is before ``start`` and its time-out.
        """
        await maybe_future(super().run_pre_spawn_hook())
        self._steps.clear()
        try:
            request = options.parse(self.user_options or {})
            found = await self.resources.store.read(catalog.newest)
            entries = options.usable(found, self._auth_state)
            person = options.Person.of(self.user.name, self._auth_state)
            self._choice = options.resolve(request, entries, self.resources.site, person)
            self._identity()
            kept: dict[str, Any] = self._choice.user_options()
            if request.version:
                kept["environment"] += f":{request.version}"
            self.user_options = kept
            self.orm_spawner.user_options = kept
            if self._choice.gpus:
                await self._obtain_gpus(self._choice)
            await self._wait_for_turn()
        except SpawnerError as error:
            await self._clean_up(f"refused: {error.code}")
            raise Refusal.of(error, self._) from error
        except StoreError as error:
            await self._clean_up("start failed")
            raise self._without_store(error) from error
        except BaseException:
            await asyncio.shield(self._clean_up("cancelled"))
            raise

    async def _obtain_gpus(self, choice: options.Choice) -> None:
        """Wait in the queue until the GPUs are this server's own."""
        shared = self.resources
        # A container of this server that an earlier life left must go before its lease does.
        await shared.engine.remove(self._container_name)
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
        )
        standing = await waiting.obtain(shared.admission, ask, self._tell, self._, self._timezone)
        self.lease_id = standing.lease
        ids = {slot.device for slot in standing.slots}
        known = await shared.store.read(read_devices)
        devices = [device for device in known if device.id in ids]
        simulated = any(device.simulated for device in devices)
        self._grant = GpuGrant(
            standing.lease, standing.slots, simulated, choice.account, choice.time_limit
        )
        self._say(
            15,
            N_("Got {devices} (simulated)") if simulated else N_("Got {devices}"),
            devices=", ".join(device.model for device in devices),
        )

    async def _wait_for_turn(self) -> None:
        turns = self.resources.turns
        if turns.locked():
            self._say(16, N_("Waiting until other servers have started"))
        await turns.acquire()
        self._has_turn = True

    def _give_turn_back(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self.resources.turns.release()

    def _identity(self) -> Identity:
        if self.identity_hook is not None:
            found = self.identity_hook(self, self._auth_state)
            assert isinstance(found, Identity)
            return found
        return identity_of(self.user.name, self._auth_state)

    def _person(self) -> Person:
        """Whose environments there are to be seen in this server."""
        return person_in(self.user.name, bool(self.user.admin), self._auth_state)

    # -- life -----------------------------------------------------------------------------

    async def start(self) -> str:
        """Create, start, wait until it answers. Leaves nothing behind when it fails."""
        try:
            return await self._start()
        except SpawnerError as error:
            await self._clean_up(f"start refused: {error.code}")
            raise Refusal.of(error, self._) from error
        except StoreError as error:
            await self._clean_up("start failed")
            raise self._without_store(error) from error
        except BaseException as error:
            # Cancelled (by the person, or by start_timeout) as well as unforeseen.
            await asyncio.shield(self._clean_up(f"start broken off: {type(error).__name__}"))
            raise
        finally:
            self._give_turn_back()

    def _without_store(self, error: StoreError) -> Refusal:
        self.log.error("%s", error)
        silent = NotAvailable("store_silent", N_("The database does not answer. Try again soon."))
        return Refusal.of(silent, self._)

    async def _start(self) -> str:
        choice, grant = self._choice, self._grant
        if choice is None:
            raise RuntimeError("start without run_pre_spawn_hook")
        shared, name = self.resources, self._container_name
        who = self._identity()
        if grant is None:
            # Whatever an earlier life of this server held ends with its container.
            await shared.engine.remove(name)
            username, server = self.user.name, self.name
            if await shared.store.read(lambda s: ledger.of_server(s, username, server)):
                await shared.admission.change(
                    lambda s: ledger.end_of_server(s, username, server, "replaced")
                )
        self._say(20, N_("Preparing your home"))
        found = await outfit.prepare(shared, choice.entry, who, self._person())
        self._say(
            30,
            N_("Starting a container with {environment}"),
            environment=f"{choice.entry.name}:{choice.entry.version}",
        )
        body = create_body(self._spec(choice, found, grant))
        self.container_ref = await shared.engine.create(name, body)
        self.running_environment = f"{choice.entry.name}:{choice.entry.version}"
        await shared.engine.start(self.container_ref)
        if grant:
            await self._activate(grant.lease_id, self.container_ref)
        self._say(60, N_("Waiting for JupyterLab to answer"))
        url = await answering.wait(
            shared.engine, self.container_ref, self.network_name, self.server.base_url
        )
        self._say(90, N_("JupyterLab answers"))
        return url

    async def _activate(self, lease_id: str, container: str) -> None:
        try:
            await self.resources.store.run(lambda s: ledger.activate(s, lease_id, container))
        except ledger.LeaseMoveError as error:
            raise NotAvailable(
                "lease_over",
                N_("The GPUs of this server were taken back while it was starting. Try again."),
            ) from error

    def _spec(
        self, choice: options.Choice, found: outfit.Outfit, grant: GpuGrant | None
    ) -> ContainerSpec:
        entry, servers = choice.entry, self.resources.site.servers
        return ContainerSpec(
            site_id=self.site_id,
            who=found.who,
            server_name=self.name,
            # By its id: a tag may have moved since the catalog was read.
            image=entry.image_id,
            environment=f"{entry.name}:{entry.version}",
            environment_name=entry.name,
            home=found.home,
            registry=found.registry,
            network=self.network_name,
            limits=Limits(
                choice.size.cpu,
                choice.size.memory_bytes,
                servers.pids,
                parse_bytes(servers.shared_memory),
                parse_bytes(servers.tmp),
            ),
            folders=found.folders,
            gpus=grant,
            env=self.get_env()
            | {"JUPYTER_IMAGE_SPEC": entry.image, "LABCOMMONS_LANGUAGE": self.lang}
            | found.env,
            args=self.get_args(),
            addresses=os.environ.get("LABCOMMONS_ADDRESSES", ""),
        )

    async def whereabouts(self) -> tuple[str, str] | None:
        """Where the server is now, and its own token, as Docker says; None where it does not."""
        try:
            state = await self.resources.engine.inspect(self.container_ref)
            if state is not None and state.running and self.server:
                url = answering.url_of(state, self.network_name) + str(self.server.base_url)
                return url, state.token
        except SpawnerError as error:
            self.log.warning("%s: address not checked: %s", self._log_name, error)
        return None

    async def get_url(self) -> str:
        """Where the server is now; Docker may have given it another address meanwhile."""
        there = await self.whereabouts()
        return there[0] if there else str(self.server.url) if self.server else ""

    async def poll(self) -> int | None:
        """None while it runs, and while Docker does not say that it does not.

        JupyterHub drops a server whose poll fails; a Docker that is down for a minute
        would cost everybody their work.
        """
        if not self.container_ref:
            return 0
        try:
            state = await self.resources.engine.inspect(self.container_ref)
        except SpawnerError as error:
            self.log.warning("%s: not polled: %s", self._log_name, error)
            return None
        if state is not None:
            # A restarted hub does not know it, and could not take it back when the server ends.
            self.api_token = self.api_token or state.token
        if state is not None and state.running:
            return None
        if state is not None and state.oom_killed:
            self.log.warning("%s was ended by the kernel: out of memory", self._log_name)
        await self._clean_up("container ended")
        return state.exit_code if state is not None else 0

    async def stop(self, now: bool = False) -> None:
        """SIGTERM, grace, SIGKILL; remove the container; end the lease."""
        if self.container_ref:
            grace = 0 if now else self.resources.site.servers.stop_timeout
            try:
                await self.resources.engine.stop(self.container_ref, grace)
            except SpawnerError as error:
                self.log.error("%s: not stopped: %s", self._log_name, error)
                raise
        await self._clean_up("stopped")

    async def _clean_up(self, reason: str) -> None:
        """Remove the container, then end the lease: in this order, so that no device is free
        while something may still use it. Where it fails, the reconciler does it later. A hub
        that is stopping keeps the lease: the next one starts this server again.
        """
        lease_id, admission = self.lease_id, self.resources.admission
        self._grant = None
        self._give_turn_back()
        try:
            if lease_id or self.container_ref:
                await self.resources.engine.remove(self.container_ref or self._container_name)
            if lease_id and not (admission.stopping and reason not in ENDINGS):
                await admission.end(lease_id, reason)
        except SpawnerError as error:
            self.log.error("%s: left to the reconciler (%s): %s", self._log_name, reason, error)
        except StoreError as error:
            self.log.error("%s: lease to be ended later (%s): %s", self._log_name, reason, error)
            admission.end_soon(lease_id, reason)
        self.container_ref = self.lease_id = self.running_environment = ""

    async def run_post_stop_hook(self) -> None:
        """The hub is through with this server: nothing of it may be left, whatever happened."""
        if self.lease_id:
            await self._clean_up("stopped")
        await maybe_future(super().run_post_stop_hook())

    @property
    def _container_name(self) -> str:
        return container_name(self.site_id, self.user.name, self.name)

    # -- state and progress ---------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """What the hub keeps of a running server."""
        if not self.container_ref:
            return {}
        return {
            "container": self.container_ref,
            "lease": self.lease_id,
            "environment": self.running_environment,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """What the hub kept; also after its restart."""
        self.container_ref = state.get("container", "")
        self.lease_id = state.get("lease", "")
        self.running_environment = state.get("environment", "")

    def clear_state(self) -> None:
        """Forget; the next start begins anew."""
        self._give_turn_back()
        self.container_ref = self.lease_id = self.running_environment = ""

    def _say(self, progress: int, message: str, **params: object) -> None:
        sentence = self._(message).format_map({k: str(v) for k, v in params.items()})
        self._tell({"progress": progress, "message": sentence})

    def _tell(self, event: dict[str, Any]) -> None:
        # Of the news from the queue, the last one is enough for those who come later.
        if "queue" in event and self._steps and "queue" in self._steps[-1]:
            self._steps.pop()
        self._steps.append(event)
        self._step.set()

    @property
    def waits_in_queue(self) -> bool:
        """Whether the start stands in the queue for GPUs (its last step says so)."""
        return bool(self._steps) and "queue" in self._steps[-1]

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """The steps of the start as they happen; the hub ends the iteration."""
        shown: list[dict[str, Any]] = []
        while True:
            self._step.clear()
            new = [step for step in self._steps if not any(step is old for old in shown)]
            shown = list(self._steps)
            for step in new:
                yield step
            if not new:
                await self._step.wait()
