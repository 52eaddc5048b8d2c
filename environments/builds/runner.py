"""Carries out the queue of builds, in the hub's process, which alone may ask the runtime.

A job runs in builder containers of a moment: one that chooses packages as the user of our
services, and one that installs or deletes with the numbers of the person who asked. What the
person may do is asked of the directory again when the job starts. After a restart of the hub,
whatever the moment, the job is taken up again: its container is found by its name, and each
work can be done twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from commons.audit import AuditTrail, Outcome, make_event
from commons.errors import LabError, NotAllowed, NotAvailable
from commons.i18n import N_
from commons.messages import Message, Text
from commons.principal import Principal
from commons.rights import Action, check
from commons.scopes import Keeper, Scope, owners, parse_source
from commons.site import Site
from commons.store import Store, StoreError
from commons.store.environments import BuildState, EnvironmentBuild
from commons.store.models import utcnow
from commons.work import Keyed, Periodic
from environments.builds import decisions, editing, queue, repository
from environments.builds.build_container import Builders, BuildFailed, Cancelled, write
from environments.builds.messages import HUB_WRONG, NOT_GONE_ON, UNCLEAR, told
from environments.builds.tasks import Works
from spawner.runtime.protocol import Runtime
from spawner.runtime.spec import MakeFolder, MakeHome

INTERVAL = 0.25  # seconds between two looks at SQLite's file, which tell whether to ask it
LOOK = 5.0  # seconds between two looks at the queue where nothing seems to have been written
KEEP_JOBS = timedelta(days=30)
TIDY = 3600  # seconds
# A command at the administrator's shell, where there is no account.
ADMINISTRATOR = ""
MAX_FINDINGS = 500  # of what a builder found beside what follows from the lock

Identify = Callable[[str], Awaitable[Principal | None]]


ENVIRONMENT_IN_USE = Text(
    "environment_in_use",
    N_(
        "“{name}” is in use by {users}. It can be deleted when their kernels and "
        "programs that run in it have ended."
    ),
)
VERSION_GONE = Text("version_gone", N_("This version has been removed meanwhile."))
SCOPE_GONE = Text(
    "scope_gone", N_("“{scope}” is not in the site file any more. Ask an administrator.")
)
NOT_ADMITTED = Text("not_admitted", N_("The directory does not admit “{user}” any more."))


class Runner:
    """Runs jobs of one site.

    Args:
        identify: who a person is now; None for somebody who may no longer log in.
        settings: for the builders: variables of this machine (proxies, package index).
    """

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        site: Site,
        data: Path,
        identify: Identify,
        audit: AuditTrail,
        log: logging.Logger,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.runtime, self.store, self.site = runtime, store, site
        self.identify, self.audit, self.log = identify, audit, log
        self.builders = Builders(runtime, store, site.builds, data, log)
        self.works = Works(site, settings or {})
        self._jobs = Keyed("builds: jobs", log)
        self._recovered = False
        self._tidied = self._looked = self._swept = 0.0
        self._seen: object = None

    # -- the queue ----------------------------------------------------------------------------

    async def forever(self) -> None:
        """Take up what an earlier life left, then run what is asked for."""
        expected = (LabError, StoreError)
        every = INTERVAL if self.store.is_sqlite else LOOK
        takes = Periodic("builds", self._take, every, self.log, expected=expected)
        if self.store.is_sqlite:
            await takes.run()
            return

        async def listen() -> None:
            async for _ in self.store.news(queue.NEWS):
                takes.wake()

        listens = Periodic("builds: news", listen, LOOK, self.log, expected=expected)
        async with asyncio.TaskGroup() as both:
            both.create_task(takes.run())
            both.create_task(listens.run())

    async def _take(self) -> None:
        if not self._recovered:
            await self.recover()
            self._recovered = True
        while (job := await self._claim()) is not None:
            self._begin(job)
        if time.monotonic() - self._swept > LOOK:
            self._swept = time.monotonic()
            await self.builders.sweep()
        await self._tidy()

    async def recover(self) -> None:
        """Put interrupted jobs back into the queue; remove builders that belong to none."""
        await self.store.run(queue.recover)
        live = await self.store.read(queue.live)
        for handle, job_id in (await self.runtime.tasks()).items():
            if job_id not in live:
                await self.runtime.remove(handle)

    async def _claim(self) -> EnvironmentBuild | None:
        # Most looks find nothing. Where nobody has written since the last one, neither would this.
        stamp = self.store.stamp()
        if stamp is not None and stamp == self._seen and time.monotonic() - self._looked < LOOK:
            return None
        self._seen, self._looked = stamp, time.monotonic()
        # A read takes no lock that a writer would wait for.
        if BuildState.QUEUED not in (await self.store.read(queue.live)).values():
            return None
        return await self.store.run(lambda s: queue.claim(s, self.site.builds))

    def _begin(self, job: EnvironmentBuild) -> None:
        self._jobs.start(job.id, partial(self._carry_out, job))

    async def _tidy(self) -> None:
        if time.monotonic() - self._tidied < TIDY:
            return
        self._tidied = time.monotonic()
        old = await self.store.run(lambda s: queue.forget(s, KEEP_JOBS))
        for job_id in old:
            folder = self.builders.folder(job_id)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    # -- one job ------------------------------------------------------------------------------

    async def _carry_out(self, job: EnvironmentBuild) -> None:
        outcome: Outcome = "failure"
        state, version, digest = BuildState.FAILED, None, ""
        message: Message | None = None
        try:
            version, digest = await self._do(job)
            state, outcome = BuildState.DONE, "success"
        except Cancelled:
            state = BuildState.CANCELLED
        except (BuildFailed, LabError) as error:
            message = error.message
        except (StoreError, OSError) as error:
            self.log.error("build %s: %s", job.id, error)
            message = NOT_GONE_ON(reason=str(error))
        except Exception:
            self.log.exception("build %s", job.id)
            message = HUB_WRONG()
        words, kept = (told(message), message.as_json()) if message else ("", None)
        if job.action != "look":
            self._record(job, outcome, words, version, digest)
        while True:
            try:
                await self.store.run(lambda s: queue.end(s, job.id, state, words, version, kept))
                self.builders.over(job.id)
                return
            except queue.JobMoveError as error:
                self.log.warning("%s", error)
                return
            except StoreError as error:
                self.log.error("build %s cannot be ended yet: %s", job.id, error)
                await asyncio.sleep(5)

    async def _do(self, job: EnvironmentBuild) -> tuple[str | None, str]:
        """Version and lock digest of what came of a job."""
        scope = queue.scope_of(job)
        who = await self._requester(job, scope)
        await self.store.read(lambda s: editing.check_base(s, job))
        await self.builders.say(job, 1)
        if not scope.has_folder:
            return await self._make_image(job)
        if scope.keeper is Keeper.PERSON:
            await self._ensure_home(who)
        elif scope.keeper is Keeper.GROUP:
            await self.runtime.run_task(MakeFolder(scope=scope.source))
        if job.action == "look":
            return await self._look(job, scope, who)
        if job.action == "decide":
            return await self._decide(job, scope, who)
        used = await self.runtime.versions_in_use(scope.source, scope.owner, job.name)
        if job.action == "delete":
            return await self._delete(job, scope, who, used)
        locked = await self._lock(job, who)
        kept = await self.store.read(lambda s: repository.kept(s, scope, job.name))
        more = {
            "lock": locked["lock"],
            "sources": locked["sources"],
            "in_use": sorted({*set().union(*used.values()), *kept.pinned} - {""}),
            "tags": kept.tags,
            "keep": self.site.environments.keep,
        }
        built = await self.builders.run(job, self.works.of_person("install", job, who, more))
        version, digest = str(locked["chosen"]["version"]), str(locked["chosen"]["lock_digest"])
        if built.get("version") != version:
            raise BuildFailed(UNCLEAR())
        await self.store.run(
            lambda s: repository.record(
                s,
                scope,
                job.name,
                version,
                built_by=job.requested_by,
                created_at=utcnow(),
                facts=_facts(job, locked, built),
                kept={item for item in _list(built.get("kept")) if isinstance(item, str)},
            )
        )
        return version, digest

    async def _delete(
        self,
        job: EnvironmentBuild,
        scope: Scope,
        who: Principal,
        used: Mapping[str, frozenset[str]],
    ) -> tuple[None, str]:
        if used:
            raise NotAvailable(ENVIRONMENT_IN_USE(name=job.name, users=", ".join(sorted(used))))
        await self.builders.run(job, self.works.of_person("delete", job, who))
        await self.store.run(lambda s: repository.remove(s, scope, job.name))
        return None, ""

    async def _look(self, job: EnvironmentBuild, scope: Scope, who: Principal) -> tuple[None, str]:
        """Find out what somebody made and removed in a terminal."""
        rows = await self.store.read(lambda s: repository.of_scopes(s, [scope]))
        known = {
            row.name: f"{'' if row.version == repository.LIVE else 'sha256:'}{row.lock_digest}"
            for row in rows
            if row.current
        }
        work = self.works.of_person("look", job, who, {"known": known})
        answer = await self.builders.run(job, work)
        found = answer.get("environments")
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise BuildFailed(UNCLEAR())
        for news in await self.store.run(lambda s: repository.seen(s, scope, found)):
            details = {"scope": scope.source, **news}
            self.audit.record(
                make_event("environment-drift", "success", user=scope.owner, details=details)
            )
        return None, ""

    async def _decide(
        self, job: EnvironmentBuild, scope: Scope, who: Principal
    ) -> tuple[str | None, str]:
        """Write what was decided about a version into its folder, as who built it."""
        row = await self.store.read(lambda s: repository.get(s, scope, job.name, job.version or ""))
        if row is None:
            raise NotAvailable(VERSION_GONE())
        if row.built_by != job.requested_by and scope.keeper is not Keeper.SITE:
            who = await self.identify(row.built_by) or who
        notes = {"version": row.version, "notes": decisions.notes(row)}
        await self.builders.run(job, self.works.of_person("decide", job, who, notes))
        return row.version, row.lock_digest

    async def _lock(self, job: EnvironmentBuild, who: Principal) -> dict[str, Any]:
        """The packages, chosen once for a job however often it is taken up."""
        kept = self.builders.folder(job.id) / "locked.json"
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(await asyncio.to_thread(kept.read_bytes))
            if "chosen" in found:
                return found
        locked = await self.builders.run(job, self.works.lock(job, who))
        await asyncio.to_thread(write, kept, json.dumps(locked))
        return locked

    async def _make_image(self, job: EnvironmentBuild) -> tuple[str, str]:
        """Build an image as `make up` does, for an administrator."""
        built = await self.builders.run(job, self.works.image(job))
        return str(built["version"])[:64], str(built.get("lock_digest") or "")

    # -- who -----------------------------------------------------------------------------------

    async def _requester(self, job: EnvironmentBuild, scope: Scope) -> Principal:
        """Who asked, with the rights of this moment. Raises NotAllowed."""
        if job.requested_by == ADMINISTRATOR:
            who = Principal(ADMINISTRATOR, admin=True)
        else:
            found = await self.identify(job.requested_by)
            if found is None:
                raise NotAllowed(NOT_ADMITTED(user=job.requested_by))
            who = found
        check(who, job.action, scope)
        if scope.keeper is not Keeper.SITE:
            who.numbers()
        if job.origin and (source := str(job.origin.get("source") or "")):
            owner = str(job.origin.get("owner") or who.name)
            check(who, Action.SEE, parse_source(source, owner))
        if scope.keeper is Keeper.GROUP and scope not in owners(self.site):
            raise NotAllowed(SCOPE_GONE(scope=scope.source))
        return who

    async def _ensure_home(self, who: Principal) -> None:
        uid, gid, _ = who.numbers()
        await self.runtime.run_task(MakeHome(user=who.name, uid=uid, gid=gid))

    def _record(
        self,
        job: EnvironmentBuild,
        outcome: Outcome,
        reason: str,
        version: str | None,
        digest: str,
    ) -> None:
        verb = "build" if job.action == "create" else job.action
        details = {
            "build": job.id,
            "scope": queue.scope_of(job).source,
            "environment": job.name,
            "version": version,
            "lock_digest": digest,
            "origin": job.origin,
        }
        self.audit.record(
            make_event(
                f"environment-{verb}",
                outcome,
                user=job.requested_by or "administrator",
                address=job.address,
                reason=reason[:200],
                details={key: value for key, value in details.items() if value},
            )
        )


def _facts(job: EnvironmentBuild, locked: Mapping[str, Any], built: Any) -> dict[str, Any]:
    """What is kept of a version: what was chosen, by us, and what its builder found.

    The builder ran programs of packages. It is asked for nothing that others go by: size, kernels,
    and findings beside those that follow from the lock.
    """
    chosen, size, kernels = locked["chosen"], built.get("size"), built.get("kernels")
    findings = [*chosen["findings"], *_list(built.get("findings"))[:MAX_FINDINGS]]
    return {
        **{key: chosen[key] for key in ("python", "tag", "lock_digest", "packages")},
        "size": max(0, size) if isinstance(size, int) else 0,
        "spec": job.spec,
        "words": job.words,
        "lock": locked["lock"],
        "kernels": kernels if isinstance(kernels, dict) else {},
        "findings": [
            item
            for number, item in enumerate(findings)
            if isinstance(item, dict) and item not in findings[:number]
        ],
        "origin": job.origin,
        "exports": {**chosen["exports"], "pixi.lock": locked["lock"]},
    }


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
