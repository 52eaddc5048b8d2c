"""Carries out the queue of builds, in the hub's process, which alone has Docker's socket.

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
from pathlib import Path
from typing import Any

from hub_ext.audit import AuditTrail, Outcome, make_event
from hub_ext.i18n import N_
from hub_ext.store import StoreError
from hub_ext.store.environments import BuildState, EnvironmentBuild
from hub_ext.store.models import utcnow
from spawner.container import LABEL_SITE
from spawner.errors import NotAllowed, NotAvailable, SpawnerError
from spawner.homes import Homes
from spawner.resources import Resources
from spawner.tiers import decisions, jobs, shelf, usage
from spawner.tiers.body import LABEL_BUILD, LABEL_PURPOSE, PURPOSE
from spawner.tiers.builders import Builders, BuildFailed, Cancelled, write
from spawner.tiers.folders import Folders
from spawner.tiers.groups import owners
from spawner.tiers.machine import Machine
from spawner.tiers.people import Requester
from spawner.tiers.rights import Person, check_change, check_see
from spawner.tiers.said import FAILURES, said
from spawner.tiers.tier import Kind, Tier, parse_source
from spawner.tiers.works import PRIVATE, Works

INTERVAL = 0.25  # seconds between two looks at the queue
KEEP_JOBS = timedelta(days=30)
TIDY = 3600  # seconds
# A command at the administrator's shell, where there is no account.
ADMINISTRATOR = ""
UNCLEAR = N_("The builder's answer cannot be understood. Tell an administrator.")
MAX_FINDINGS = 500  # of what a builder found beside what follows from the lock

Identify = Callable[[str], Awaitable[Requester | None]]


class Runner:
    """Runs jobs of one site.

    Args:
        identify: who a person is now; None for somebody who may no longer log in.
        settings: for the builders: variables of this machine (proxies, package index).
    """

    def __init__(
        self,
        resources: Resources,
        identify: Identify,
        audit: AuditTrail,
        log: logging.Logger,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.shared, self.identify, self.audit, self.log = resources, identify, audit, log
        self.limits = resources.site.builds
        self.builders = Builders(resources, settings or {}, log)
        self.works = Works(resources, settings or {})
        self.folders = Folders(
            resources.engine,
            resources.site,
            resources.site_id,
            resources.data,
            resources.host_data,
            resources.builder_image,
        )
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._tidied = 0.0

    # -- the queue ----------------------------------------------------------------------------

    async def forever(self) -> None:
        """Take up what an earlier life left, then run what is asked for."""
        recovered = False
        while True:
            try:
                if not recovered:
                    await self.recover()
                    recovered = True
                while (job := await self._claim()) is not None:
                    self._begin(job)
                await self._tidy()
            except (SpawnerError, StoreError) as error:
                self.log.error("builds: %s", error)
                await asyncio.sleep(5)
            except Exception:  # builds must not take everybody's hub down with them
                self.log.exception("builds")
                await asyncio.sleep(5)
            await asyncio.sleep(INTERVAL)

    async def recover(self) -> None:
        """Put interrupted jobs back into the queue; remove builders that belong to none."""
        await self.shared.store.run(jobs.recover)
        live = await self.shared.store.read(jobs.live)
        for container in await self.shared.engine.list(f"{LABEL_PURPOSE}={PURPOSE}"):
            ours = container.labels.get(LABEL_SITE) == self.shared.site_id
            if ours and container.labels.get(LABEL_BUILD) not in live:
                await self.shared.engine.remove(container.id)

    async def _claim(self) -> EnvironmentBuild | None:
        # Most looks find nothing: a read takes no lock that a writer would wait for.
        if BuildState.QUEUED not in (await self.shared.store.read(jobs.live)).values():
            return None
        return await self.shared.store.run(lambda s: jobs.claim(s, self.limits))

    def _begin(self, job: EnvironmentBuild) -> None:
        task = asyncio.create_task(self._carry_out(job), name=f"build-{job.id}")
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.id, None))

    async def _tidy(self) -> None:
        if time.monotonic() - self._tidied < TIDY:
            return
        self._tidied = time.monotonic()
        old = await self.shared.store.run(lambda s: jobs.forget(s, KEEP_JOBS))
        for job_id in old:
            folder = self.builders.folder(job_id)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    # -- one job ------------------------------------------------------------------------------

    async def _carry_out(self, job: EnvironmentBuild) -> None:
        outcome: Outcome = "failure"
        state, message, version, digest = BuildState.FAILED, "", None, ""
        kept: dict[str, Any] | None = None
        try:
            version, digest = await self._do(job)
            state, outcome = BuildState.DONE, "success"
        except Cancelled:
            state, message = BuildState.CANCELLED, ""
        except BuildFailed as error:
            message, kept = str(error), said(FAILURES.get(error.kind, str(error)))
        except SpawnerError as error:
            message, kept = error.sentence(), said(error.message, error.params)
        except (StoreError, OSError) as error:
            self.log.error("build %s: %s", job.id, error)
            message = f"The build could not go on: {error}. Tell an administrator."
        except Exception:
            self.log.exception("build %s", job.id)
            message = N_("Something went wrong in the hub. Tell an administrator the time.")
            kept = said(message)
        if job.action != "look":
            self._record(job, outcome, message, version, digest)
        await asyncio.to_thread(shutil.rmtree, self._private(job), ignore_errors=True)
        while True:
            try:
                await self.shared.store.run(
                    lambda s: jobs.end(s, job.id, state, message, version, kept)
                )
                return
            except jobs.JobMoveError as error:
                self.log.warning("%s", error)
                return
            except StoreError as error:
                self.log.error("build %s cannot be ended yet: %s", job.id, error)
                await asyncio.sleep(5)

    async def _do(self, job: EnvironmentBuild) -> tuple[str | None, str]:
        """Version and lock digest of what came of a job."""
        tier = jobs.tier_of(job)
        who = await self._requester(job, tier)
        await self.builders.say(job, 1, "")
        if tier.kind is Kind.IMAGE:
            return await self._make_image(job)
        if tier.kind is Kind.PERSONAL:
            await self._ensure_home(who)
        await self.folders.ensure([tier])
        if job.action == "look":
            return await self._look(job, tier, who)
        if job.action == "decide":
            return await self._decide(job, tier, who)
        used = await usage.users_of(self.shared.engine, self.shared.site_id, tier, job.name)
        if job.action == "delete":
            return await self._delete(job, tier, who, used)
        locked = await self._lock(job)
        kept = await self.shared.store.read(lambda s: shelf.kept(s, tier, job.name))
        more = {
            "lock": locked["lock"],
            "sources": locked["sources"],
            "in_use": sorted({*set().union(*used.values()), *kept.pinned} - {""}),
            "tags": kept.tags,
            "keep": self.shared.site.environments.keep,
        }
        built = await self.builders.run(job, self.works.of_person("install", job, who, more))
        version, digest = str(locked["chosen"]["version"]), str(locked["chosen"]["lock_digest"])
        if built.get("version") != version:
            raise BuildFailed(UNCLEAR)
        await self.shared.store.run(
            lambda s: shelf.record(
                s,
                tier,
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
        self, job: EnvironmentBuild, tier: Tier, who: Requester, used: dict[str, set[str]]
    ) -> tuple[None, str]:
        if used:
            raise NotAvailable(
                "environment_in_use",
                N_(
                    "“{name}” is in use by {users}. It can be deleted when their kernels and "
                    "programs that run in it have ended."
                ),
                {"name": job.name, "users": ", ".join(sorted(used))},
            )
        await self.builders.run(job, self.works.of_person("delete", job, who))
        await self.shared.store.run(lambda s: shelf.remove(s, tier, job.name))
        return None, ""

    async def _look(self, job: EnvironmentBuild, tier: Tier, who: Requester) -> tuple[None, str]:
        """Find out what somebody made and removed in a terminal."""
        rows = await self.shared.store.read(lambda s: shelf.of_tiers(s, [tier]))
        known = {
            row.name: f"{'' if row.version == shelf.LIVE else 'sha256:'}{row.lock_digest}"
            for row in rows
            if row.current
        }
        work = self.works.of_person("look", job, who, {"known": known})
        answer = await self.builders.run(job, work)
        found = answer.get("environments")
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise BuildFailed(UNCLEAR)
        await self.shared.store.run(lambda s: shelf.seen(s, tier, found))
        return None, ""

    async def _decide(
        self, job: EnvironmentBuild, tier: Tier, who: Requester
    ) -> tuple[str | None, str]:
        """Write what was decided about a version into its folder, as who built it."""
        row = await self.shared.store.read(
            lambda s: shelf.get(s, tier, job.name, job.version or "")
        )
        if row is None:
            raise NotAvailable("version_gone", N_("This version has been removed meanwhile."))
        if row.built_by != job.requested_by and tier.kind is not Kind.SHARED:
            who = await self.identify(row.built_by) or who
        notes = {"version": row.version, "notes": decisions.notes(row)}
        await self.builders.run(job, self.works.of_person("decide", job, who, notes))
        return row.version, row.lock_digest

    async def _lock(self, job: EnvironmentBuild) -> dict[str, Any]:
        """The packages, chosen once for a job however often it is taken up."""
        kept = self.builders.folder(job.id) / "locked.json"
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(await asyncio.to_thread(kept.read_bytes))
            if "chosen" in found:
                return found
        private = self._private(job)
        await asyncio.to_thread(private.mkdir, 0o755, parents=True, exist_ok=True)
        locked = await self.builders.run(job, self.works.lock(job))
        await asyncio.to_thread(write, kept, json.dumps(locked))
        return locked

    async def _make_image(self, job: EnvironmentBuild) -> tuple[str, str]:
        """Build an image as `make up` does: with Docker's socket, for an administrator."""
        machine = Machine.from_environment(self.shared.site_id)
        built = await self.builders.run(job, self.works.image(job, machine))
        return str(built["version"])[:64], str(built.get("lock_digest") or "")

    def _private(self, job: EnvironmentBuild) -> Path:
        """Where what is fetched with the site's logins is kept while a job runs."""
        return self.builders.folder(job.id) / PRIVATE

    # -- who -----------------------------------------------------------------------------------

    async def _requester(self, job: EnvironmentBuild, tier: Tier) -> Requester:
        """Who asked, with the rights of this moment. Raises NotAllowed."""
        if job.requested_by == ADMINISTRATOR:
            who = Requester(Person(ADMINISTRATOR, admin=True), None)
        else:
            found = await self.identify(job.requested_by)
            if found is None:
                raise NotAllowed(
                    "not_admitted",
                    N_("The directory does not admit “{user}” any more."),
                    {"user": job.requested_by},
                )
            who = found
        check_change(who.person, tier)
        if job.origin:
            source = str(job.origin.get("source"))
            owner = str(job.origin.get("owner") or who.person.name)
            check_see(who.person, parse_source(source, owner))
        if tier.kind in (Kind.TEAM, Kind.COURSE) and tier not in owners(self.shared.site):
            raise NotAllowed(
                "tier_gone",
                N_("“{tier}” is not in the site file any more. Ask an administrator."),
                {"tier": tier.source},
            )
        return who

    async def _ensure_home(self, who: Requester) -> None:
        if who.identity is None:
            raise NotAllowed(
                "no_home", N_("A personal environment needs a person; name one with --user.")
            )
        data = self.shared
        homes = Homes(
            data.engine, data.site_id, data.data / "homes", data.host_data / "homes",
            data.builder_image,
        )  # fmt: skip
        await homes.ensure(who.identity)

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
            "tier": jobs.tier_of(job).source,
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
