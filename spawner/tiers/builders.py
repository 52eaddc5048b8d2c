"""One builder container from its start to its result: found again, listened to, ended in time."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
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
from kernels.hostile import parse_json
from spawner.environments.credentials import without_secrets
from spawner.errors import SpawnerError
from spawner.resources import Resources
from spawner.tiers import jobs
from spawner.tiers.body import (
    Account,
    BuilderSpec,
    Mount,
    builder_body,
    builder_name,
    limits,
)
from spawner.tiers.follow import TooMuchSaid, follow
from spawner.tiers.said import said
from spawner.tiers.tongue import MAX_LINE, MAX_RESULT, MAX_TEXT_LINE

WATCH = 1.0  # seconds between two looks at whether a running job shall end
TELL = 0.3  # seconds between two notes of a job's progress
# Seconds for works that others should not have to wait for, whatever is in a person's folder.
QUICK = {"look": 120, "decide": 120, "delete": 900}
HANGS = 120  # seconds beyond a work's time until it counts as one that cannot be ended
_CANCEL = "cancel"
_TOO_LONG = N_(
    "It took too long and was stopped. A folder with very many files, or a disk that hangs, can be "
    "the reason; ask an administrator."
)
_HANGS = N_("It took too long and could not be stopped: a disk may hang. Tell an administrator.")
_RESULT = b'{"result": '
_MAX_VALUES = 250_000  # of a result: 5,000 packages and what is said of them
_TOO_MUCH = N_(
    "The build printed more than a build may print. Ask for fewer packages, or tell an "
    "administrator."
)


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
        most = min(self.limits.timeout, QUICK.get(work.name, self.limits.timeout))
        watcher = asyncio.create_task(self._watch(job, name, stopped, most))
        try:
            # One that cannot even be killed (a file server that hangs) is left alone then.
            async with asyncio.timeout(most + HANGS):
                result = await self._listen(job, work.name, name)
            ended = await engine.inspect(name)
        except TimeoutError as error:
            raise BuildFailed(_HANGS) from error
        except (BuildFailed, SpawnerError):
            with suppress(SpawnerError):  # else the next start of the hub removes it
                await engine.remove(name)
            raise
        finally:
            watcher.cancel()
        await engine.remove(name)
        if stopped == [_CANCEL]:
            raise Cancelled
        if result is not None and ended is not None and ended.exit_code == 0:
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
        path = self.folder(job.id) / f"{work}.log"
        result: dict[str, Any] | None = None
        error, kind = "", ""
        with Listener(path) as listener:
            try:
                async for event in follow(name, listener.take, limits):
                    if "progress" in event:
                        await self.say(job, event["percent"], event["progress"], event["said"])
                    elif "error" in event:
                        error, kind = event["error"], event["kind"]
                    else:
                        result = event["result"]
            except TooMuchSaid as too_much:
                raise BuildFailed(_TOO_MUCH) from too_much
        if error:
            raise BuildFailed(error, kind)
        return result

    async def _watch(self, job: EnvironmentBuild, name: str, stopped: list[str], most: int) -> None:
        """Stop the builder when the job shall end or takes too long; ``stopped`` says why."""
        begun, work_begun = job.started_at or utcnow(), time.monotonic()
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
                elif time.monotonic() - work_begun > most:
                    stopped.append(_TOO_LONG)
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


class Listener:
    """Makes events of a builder's lines and writes its log; in the thread that reads them.

    An event has ``progress`` (with ``percent`` and ``said``), ``error`` (with ``kind``) or
    ``result``; not every progress is one. What is none of our words is text for the log.
    """

    def __init__(self, path: Path) -> None:
        self._log = path.open("w", encoding="utf-8", errors="replace")
        self._told, self._lock = 0.0, threading.Lock()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError), self._lock:
            self._log.close()

    def take(self, line: bytes) -> dict[str, Any] | None:
        """What a line says, if it is for more than the log."""
        event = read_event(line)
        if isinstance(result := event.get("result"), dict):
            return {"result": result}
        if isinstance(error := event.get("error"), str):
            self._write(f"Error: {error}")
            return {"error": error, "kind": str(event.get("kind"))[:32]}
        if isinstance(progress := event.get("progress"), dict):
            percent, words = _number(progress.get("percent")), str(progress.get("message"))
            self._write(f"{percent:3d}%  {words}")
            # A remark is for the log; what goes on is for whoever waits.
            if time.monotonic() - self._told > TELL and progress.get("step", 1):
                self._told = time.monotonic()
                kept = said(progress.get("text"), progress.get("values"))
                return {"progress": words, "percent": percent, "said": kept}
        elif isinstance(text := event.get("log"), str):
            self._write(f"      {text}")
        else:
            self._write(line[:MAX_TEXT_LINE].decode("utf-8", "replace"))
        return None

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError), self._lock:  # a full disk, or nobody listens any more
            self._log.write(f"{text}\n")
            self._log.flush()


def read_event(line: bytes) -> dict[str, Any]:
    """The object that a line of a builder is; an empty one for anything else, and for too much."""
    if len(line) > MAX_LINE and not line.startswith(_RESULT):
        return {}
    try:
        event = parse_json(line, MAX_RESULT, values=_MAX_VALUES)
    except ValueError:
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
