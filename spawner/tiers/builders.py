"""One builder container from its start to its result: found again, listened to, ended in time."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub_ext.i18n import N_
from hub_ext.store import StoreError
from hub_ext.store.environments import BuildState, EnvironmentBuild
from hub_ext.store.models import utcnow
from spawner.environments.credentials import without_secrets
from spawner.errors import SpawnerError
from spawner.resources import Resources
from spawner.tiers import jobs
from spawner.tiers.body import MAX_LOG, Account, BuilderSpec, Mount, builder_body, builder_name
from spawner.tiers.follow import follow
from spawner.tiers.said import said

WATCH = 1.0  # seconds between two looks at whether a running job shall end
TELL = 0.3  # seconds between two notes of a job's progress
_CANCEL = "cancel"


class BuildFailed(Exception):
    """A builder said no; the message is for the person, ``kind`` one of ``said.FAILURES``."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class Cancelled(Exception):
    """Somebody wanted the job to end."""


@dataclass(frozen=True)
class Work:
    """What one builder container does, as whom, and with which folders.

    ``files`` are laid beside job.json, by their paths there. ``trusted``: no program of a package
    runs in it, so it is told the addresses of package indexes and proxies that have a login.
    """

    name: str
    payload: Mapping[str, Any]
    account: Account
    mounts: Sequence[Mount]
    home: str = "/tmp"  # noqa: S108
    network: str = "bridge"
    env: Mapping[str, str] | None = None
    files: Mapping[str, str] | None = None
    trusted: bool = False


class Builders:
    """Runs works of one site's jobs.

    Args:
        settings: for every builder: variables of this machine (proxies, package index).
    """

    def __init__(
        self, resources: Resources, settings: Mapping[str, str], log: logging.Logger
    ) -> None:
        self.shared, self.settings, self.log = resources, settings, log
        self.limits = resources.site.builds

    def folder(self, job_id: str) -> Path:
        """Where a job's files and logs are."""
        return self.shared.data / "builds" / job_id

    async def run(self, job: EnvironmentBuild, work: Work) -> dict[str, Any]:
        """Run one work in its container, or find the container that is at it; its result.

        Raises BuildFailed, Cancelled, SpawnerError. When the hub itself ends, the container goes
        on and is found again.
        """
        engine = self.shared.engine
        name = builder_name(self.shared.site_id, job.id, work.name)
        state = await engine.inspect(name)
        if state is None or state.status not in ("running", "exited"):
            await self._start(job, work, name)
        stopped: list[str] = []
        watcher = asyncio.create_task(self._watch(job, name, stopped))
        try:
            result = await self._listen(job, work.name, name)
            ended = await engine.inspect(name)
        except (BuildFailed, SpawnerError):
            with suppress(SpawnerError):  # else the next start of the hub removes it
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

    async def _start(self, job: EnvironmentBuild, work: Work, name: str) -> None:
        folder = self.folder(job.id) / work.name
        texts = {**(work.files or {}), "job.json": json.dumps({**work.payload, "work": work.name})}
        for path, text in texts.items():
            await asyncio.to_thread(write, folder / path, text, folder)
        env = work.env or {}
        spec = BuilderSpec(
            self.shared.site_id,
            job.id,
            self.shared.builder_image,
            work.account,
            str(self.shared.host_data / "builds" / job.id / work.name),
            self.limits.cpu,
            self.limits.memory_bytes,
            network=work.network,
            home=work.home,
            mounts=work.mounts,
            env={**(self.settings if work.trusted else without_secrets(self.settings)), **env},
        )
        container = await self.shared.engine.create(name, builder_body(spec))
        await self.shared.engine.start(container)

    async def _listen(self, job: EnvironmentBuild, work: str, name: str) -> dict[str, Any] | None:
        """Read a builder's words to their end: progress to the store, lines to the log."""
        result: dict[str, Any] | None = None
        error, kind, told = "", "", 0.0
        path = self.folder(job.id) / f"{work}.log"
        with path.open("w", encoding="utf-8", errors="replace") as log:
            async for line in follow(name, MAX_LOG):
                event = _event(line)
                if isinstance(event.get("result"), dict):
                    result = event["result"]
                elif isinstance(event.get("error"), str):
                    error, kind = event["error"], str(event.get("kind"))
                    log.write(f"Error: {error}\n")
                elif isinstance(progress := event.get("progress"), dict):
                    percent, words = _number(progress.get("percent")), str(progress.get("message"))
                    log.write(f"{percent:3d}%  {words}\n")
                    # A remark is for the log; what goes on is for whoever waits.
                    if time.monotonic() - told > TELL and progress.get("step", 1):
                        told = time.monotonic()
                        kept = said(progress.get("text"), progress.get("values"))
                        await self.say(job, percent, words, kept)
                else:
                    log.write(f"{line}\n")
                log.flush()
        if error:
            raise BuildFailed(error, kind)
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

    async def say(
        self,
        job: EnvironmentBuild,
        percent: int,
        message: str,
        kept: dict[str, Any] | None = None,
    ) -> None:
        """Record how far a job is."""
        if await self.shared.store.run(lambda s: jobs.progress(s, job.id, percent, message, kept)):
            self.log.info("build %s shall end", job.id)


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
        return N_(
            "The build needed more memory than builds may use here (builds.memory). Ask for fewer "
            "packages, or ask an administrator."
        )
    return N_("The build ended without a result. Try it again; if it ends so again, see its log.")


def write(path: Path, text: str, shown: Path | None = None) -> None:
    """Write a file whole; it and the folders up to ``shown`` are opened to the builder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f"{path.suffix}.part")
    partial.write_text(text, "utf-8")
    if shown is not None:
        partial.chmod(0o644)
        for folder in [path.parent, *path.parent.parents]:
            folder.chmod(0o755)
            if folder == shown:
                break
    partial.replace(path)
