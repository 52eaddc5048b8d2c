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
from spawner.tiers import jobs, shelf, usage
from spawner.tiers.body import (
    DATA,
    LABEL_BUILD,
    LABEL_PURPOSE,
    MAX_LOG,
    PURPOSE,
    SERVICE,
    Account,
    BuilderSpec,
    Mount,
    builder_body,
    builder_name,
)
from spawner.tiers.folders import Folders
from spawner.tiers.follow import follow
from spawner.tiers.groups import group_ids, owners
from spawner.tiers.people import Requester
from spawner.tiers.rights import Person, check_change, check_see
from spawner.tiers.tier import Kind, Tier, parse_source

INTERVAL = 0.5  # seconds between two looks at the queue
WATCH = 1.0  # seconds between two looks at whether a running job shall end
TELL = 0.3  # seconds between two notes of a job's progress
KEEP_JOBS = timedelta(days=30)
TIDY = 3600  # seconds
# A command at the administrator's shell, where there is no account.
ADMINISTRATOR = ""
# Where an installation keeps the packages that it fetched, in the person's own home.
HOME_CACHE = ".cache/labcommons"
_CANCEL = "cancel"


Identify = Callable[[str], Awaitable[Requester | None]]


class BuildFailed(Exception):
    """A builder said no; the message is for the person."""


class Cancelled(Exception):
    """Somebody wanted the job to end."""


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
        self.settings = dict(settings or {})
        self.limits = resources.site.builds
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
            await asyncio.sleep(INTERVAL)

    async def recover(self) -> None:
        """Put interrupted jobs back into the queue; remove builders that belong to none."""
        await self.shared.store.run(jobs.recover)
        live = await self.shared.store.read(
            lambda s: {job.id for job in jobs.recent(s, 1000) if job.state in jobs.LIVE}
        )
        for container in await self.shared.engine.list(f"{LABEL_PURPOSE}={PURPOSE}"):
            ours = container.labels.get(LABEL_SITE) == self.shared.site_id
            if ours and container.labels.get(LABEL_BUILD) not in live:
                await self.shared.engine.remove(container.id)

    async def _claim(self) -> EnvironmentBuild | None:
        # Most looks find nothing: a read takes no lock that a writer would wait for.
        waiting = await self.shared.store.read(
            lambda s: any(job.state is BuildState.QUEUED for job in jobs.recent(s, 200))
        )
        if not waiting:
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
            folder = self._folder(job_id)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    # -- one job ------------------------------------------------------------------------------

    async def _carry_out(self, job: EnvironmentBuild) -> None:
        outcome: Outcome = "failure"
        state, message, version, digest = BuildState.FAILED, "", None, ""
        try:
            version, digest = await self._do(job)
            state, outcome = BuildState.DONE, "success"
        except Cancelled:
            state, message = BuildState.CANCELLED, ""
        except BuildFailed as error:
            message = str(error)
        except SpawnerError as error:
            message = error.sentence()
        except (StoreError, OSError) as error:
            self.log.error("build %s: %s", job.id, error)
            message = f"The build could not go on: {error}. Tell an administrator."
        except Exception:
            self.log.exception("build %s", job.id)
            message = "Something went wrong in the hub. Tell an administrator the time."
        self._record(job, outcome, message, version, digest)
        while True:
            try:
                await self.shared.store.run(lambda s: jobs.end(s, job.id, state, message, version))
                return
            except jobs.JobMoveError as error:
                self.log.warning("%s", error)
                return
            except StoreError as error:
                self.log.error("build %s cannot be ended yet: %s", job.id, error)
                await asyncio.sleep(5)

    async def _do(self, job: EnvironmentBuild) -> tuple[str | None, str]:
        tier = jobs.tier_of(job)
        who = await self._requester(job, tier)
        await self._say(job, 1, "")
        if tier.kind is Kind.PERSONAL:
            await self._ensure_home(who)
        await self.folders.ensure([tier])
        used = await usage.users_of(self.shared.engine, self.shared.site_id, tier, job.name)
        if job.action == "delete":
            return await self._delete(job, tier, who, used)
        locked = await self._lock(job)
        built = await self._work(
            job,
            "install",
            self._payload(job, tier, who)
            | {
                "lock": locked["lock"],
                "sources": locked["sources"],
                "in_use": sorted(set().union(*used.values()) - {""}),
                "keep": self.shared.site.environments.keep,
            },
            self._account(tier, who),
            self._mounts(tier, who),
        )
        version = str(built["version"])[:64]
        await self.shared.store.run(
            lambda s: shelf.record(
                s,
                tier,
                job.name,
                version,
                built_by=job.requested_by,
                created_at=utcnow(),
                facts=_facts(job, built, locked["lock"]),
                kept=set(built.get("kept") or ()),
            )
        )
        return version, str(built.get("lock_digest") or "")

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
        await self._work(
            job,
            "delete",
            self._payload(job, tier, who),
            self._account(tier, who),
            self._mounts(tier, who),
        )
        await self.shared.store.run(lambda s: shelf.remove(s, tier, job.name))
        return None, ""

    async def _lock(self, job: EnvironmentBuild) -> dict[str, Any]:
        """The packages, chosen once for a job however often it is taken up."""
        kept = self._folder(job.id) / "locked.json"
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(await asyncio.to_thread(kept.read_bytes))
            return found
        # The data folder's own names, as `make up` gives them to its builder.
        shared = [
            Mount(str(self.shared.host_data / name), str(DATA / name), read_only=False)
            for name in ("channel", "cache")
        ]
        payload = self._payload(job, jobs.tier_of(job), None) | {
            "lock": job.lock,
            "cache": str(DATA / "cache"),
        }
        locked = await self._work(job, "lock", payload, SERVICE, shared, choosing=True)
        await asyncio.to_thread(_write, kept, json.dumps(locked))
        return locked

    # -- who and where --------------------------------------------------------------------------

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

    def _account(self, tier: Tier, who: Requester) -> Account:
        """The numbers that a builder runs with: what decides what it may write."""
        if tier.kind is Kind.SHARED or who.identity is None:
            return SERVICE
        me = who.identity
        own = {*me.gids, *group_ids(self.shared.site, who.person)}
        if tier.kind is Kind.PERSONAL:
            return Account(me.uid, me.gid, tuple(sorted(own)))
        # Files that are made belong to the members' group.
        members = owners(self.shared.site)[tier].members
        return Account(me.uid, members, tuple(sorted({*own, me.gid} - {members})))

    def _mounts(self, tier: Tier, who: Requester) -> list[Mount]:
        """The one folder that is written to, the cache, and the offline channel to read."""
        host = self.shared.host_data
        mounts = [
            Mount(str(host / "channel"), str(DATA / "channel")),
            Mount(str(host / tier.folder), str(tier.mount), read_only=False),
        ]
        if who.identity is None or tier.kind is Kind.SHARED:
            mounts.append(Mount(str(host / "cache"), str(DATA / "cache"), read_only=False))
        elif tier.kind is not Kind.PERSONAL:
            home = Tier(Kind.PERSONAL, who.identity.name)
            mounts.append(Mount(str(host / home.folder), str(home.mount), read_only=False))
        return mounts

    def _payload(self, job: EnvironmentBuild, tier: Tier, who: Requester | None) -> dict[str, Any]:
        """What every work is told."""
        cache = str(DATA / "cache")
        if who is not None and who.identity is not None and tier.kind is not Kind.SHARED:
            cache = str(Tier(Kind.PERSONAL, who.identity.name).mount / HOME_CACHE)
        return {
            "name": job.name,
            "spec": job.spec,
            "words": job.words,
            "source": tier.source,
            "environments": str(tier.environments),
            "umask": "022" if tier.kind is Kind.SHARED else "027",
            # Without logins: who asks for a build could read what the builder can.
            "settings": self.shared.site.environments.model_copy(
                update={"credentials": {}}
            ).model_dump(mode="json"),
            "channel": str(DATA / "channel"),
            "cache": cache,
        }

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

    # -- a builder's life -------------------------------------------------------------------------

    async def _work(
        self,
        job: EnvironmentBuild,
        work: str,
        payload: dict[str, Any],
        account: Account,
        mounts: list[Mount],
        choosing: bool = False,
    ) -> dict[str, Any]:
        """Run one work in its container, or find the container that is at it; its result.

        Raises BuildFailed, Cancelled, SpawnerError. When the hub itself ends, the container goes
        on and is found again.
        """
        engine = self.shared.engine
        name = builder_name(self.shared.site_id, job.id, work)
        state = await engine.inspect(name)
        if state is None or state.status not in ("running", "exited"):
            folder = self._folder(job.id) / work
            text = json.dumps(payload | {"work": work})
            await asyncio.to_thread(_write, folder / "job.json", text, shown=True)
            host = self.shared.host_data / "builds" / job.id / work
            home = "/tmp" if choosing else payload["environments"].partition("/.conda")[0]  # noqa: S108
            spec = BuilderSpec(
                self.shared.site_id,
                job.id,
                self.shared.builder_image,
                account,
                str(host),
                self.limits.cpu,
                self.limits.memory_bytes,
                home=home if home.startswith("/home/") else "/tmp",  # noqa: S108
                mounts=mounts,
                env=self.settings,
            )
            container = await engine.create(name, builder_body(spec))
            await engine.start(container)
        stopped: list[str] = []
        watcher = asyncio.create_task(self._watch(job, name, stopped))
        try:
            result = await self._listen(job, work, name)
            ended = await engine.inspect(name)
        except asyncio.CancelledError:
            raise
        except BuildFailed:
            await engine.remove(name)
            raise
        finally:
            watcher.cancel()
        await engine.remove(name)
        if stopped == [_CANCEL]:
            raise Cancelled
        if result is not None:
            return result
        raise BuildFailed(stopped[0] if stopped else _why(ended is not None and ended.oom_killed))

    async def _listen(self, job: EnvironmentBuild, work: str, name: str) -> dict[str, Any] | None:
        """Read a builder's words to their end: progress to the store, lines to the log."""
        result: dict[str, Any] | None = None
        error, told = "", 0.0
        path = self._folder(job.id) / f"{work}.log"
        with path.open("w", encoding="utf-8", errors="replace") as log:
            async for line in follow(name, MAX_LOG):
                event = _event(line)
                if isinstance(event.get("result"), dict):
                    result = event["result"]
                elif isinstance(event.get("error"), str):
                    error = event["error"]
                    log.write(f"Error: {error}\n")
                elif isinstance(progress := event.get("progress"), dict):
                    percent, words = _number(progress.get("percent")), str(progress.get("message"))
                    log.write(f"{percent:3d}%  {words}\n")
                    # A remark is for the log; what goes on is for whoever waits.
                    if time.monotonic() - told > TELL and progress.get("step", 1):
                        told = time.monotonic()
                        await self._say(job, percent, words)
                else:
                    log.write(f"{line}\n")
                log.flush()
        if error:
            raise BuildFailed(error)
        return result

    async def _watch(self, job: EnvironmentBuild, name: str, stopped: list[str]) -> None:
        """Stop the builder when the job shall end or takes too long; ``stopped`` says why."""
        begun = job.started_at or utcnow()
        while not stopped:
            await asyncio.sleep(WATCH)
            with suppress(SpawnerError, StoreError):
                if await self.shared.store.read(lambda s: _cancel_asked(s, job.id)):
                    stopped.append(_CANCEL)
                elif (utcnow() - begun).total_seconds() > self.limits.timeout:
                    stopped.append(
                        f"The build was stopped after {self.limits.timeout} seconds, the site's "
                        "limit (builds.timeout). Ask for fewer packages, or ask an administrator."
                    )
        while True:
            try:
                return await self.shared.engine.stop(name, 0)
            except SpawnerError as error:
                self.log.warning("build %s cannot be stopped yet: %s", job.id, error)
                await asyncio.sleep(WATCH)

    async def _say(self, job: EnvironmentBuild, percent: int, message: str) -> None:
        if await self.shared.store.run(lambda s: jobs.progress(s, job.id, percent, message)):
            self.log.info("build %s shall end", job.id)

    def _folder(self, job_id: str) -> Path:
        return self.shared.data / "builds" / job_id

    def _record(
        self,
        job: EnvironmentBuild,
        outcome: Outcome,
        reason: str,
        version: str | None,
        digest: str,
    ) -> None:
        action = {"publish": "environment-publish", "promote": "environment-promote",
                  "delete": "environment-delete"}.get(job.action, "environment-build")  # fmt: skip
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
                action,
                outcome,
                user=job.requested_by or "administrator",
                address=job.address,
                reason=reason[:200],
                details={key: value for key, value in details.items() if value},
            )
        )


def _cancel_asked(session: Any, job_id: str) -> bool:
    job = jobs.get(session, job_id)
    return job is None or job.cancel_asked or job.state is not BuildState.RUNNING


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _number(value: object) -> int:
    return max(0, min(value, 99)) if isinstance(value, int) else 0


def _why(out_of_memory: bool) -> str:
    if out_of_memory:
        return (
            "The build needed more memory than builds may use here (builds.memory). Ask for fewer "
            "packages, or ask an administrator."
        )
    return "The build ended without a result. Try it again; if it ends so again, see its log."


def _facts(job: EnvironmentBuild, built: Mapping[str, Any], lock: str) -> dict[str, Any]:
    """What a builder reported, each of the type that the table wants: it is a person's word."""
    packages = built.get("packages")
    kernels, findings, exports = (built.get(key) for key in ("kernels", "findings", "exports"))
    return {
        "python": str(built["python"])[:32] if built.get("python") else None,
        "lock_digest": str(built.get("lock_digest") or "")[:80],
        "size": size if isinstance(size := built.get("size"), int) else 0,
        "spec": job.spec,
        "words": job.words,
        "lock": lock,
        "packages": [
            {key: str(item.get(key) or "")[:200] for key in ("name", "version", "channel")}
            for item in (packages if isinstance(packages, list) else [])
            if isinstance(item, dict)
        ],
        "kernels": kernels if isinstance(kernels, dict) else {},
        "findings": [item for item in findings if isinstance(item, dict)]
        if isinstance(findings, list)
        else [],
        "origin": job.origin,
        "exports": {
            str(key)[:32]: value
            for key, value in (exports if isinstance(exports, dict) else {}).items()
            if isinstance(value, str)
        },
    }


def _write(path: Path, text: str, shown: bool = False) -> None:
    """Write a file whole; ``shown`` opens it and its folder to the builder's account."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(text, "utf-8")
    if shown:
        path.parent.chmod(0o755)
        partial.chmod(0o644)
    partial.replace(path)
