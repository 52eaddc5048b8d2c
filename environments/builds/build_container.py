"""One builder container from its start to its result: found again, listened to, ended in time."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from commons.errors import LabError
from commons.messages import Message
from commons.site import Builds
from commons.store import Store, StoreError
from commons.store.environments import BuildState, EnvironmentBuild
from commons.store.models import utcnow
from environments.builds import messages, queue
from environments.builds.result_channel import MAX_LINE, MAX_RESULT, MAX_TEXT_LINE
from kernels.hostile import parse_json
from spawner.runtime.protocol import Runtime
from spawner.runtime.spec import BuildStep, ImageStep

WATCH = 1.0  # seconds between two looks at whether a running job shall end
TELL = 0.3  # seconds between two notes of a job's progress
# Seconds for works that others should not have to wait for, whatever is in a person's folder.
QUICK = {"look": 120, "decide": 120, "delete": 900}
LATE = 120.0  # seconds after a job's end in which a container of its may still be found
HANGS = 120  # seconds beyond a work's time until it counts as one that cannot be ended
_CANCEL = "cancel"
_RESULT = b'{"result": '
_MAX_VALUES = 250_000  # of a result: 5,000 packages and what is said of them


class BuildFailed(Exception):
    """A builder said no; ``message`` is for the person."""

    def __init__(self, message: Message) -> None:
        super().__init__(message)
        self.message = message


class Cancelled(Exception):
    """Somebody wanted the job to end."""


class Builders:
    """Runs the steps of one site's jobs.

    Args:
        data: the data folder; a job's logs are in ``builds/ID`` there.
    """

    def __init__(
        self, runtime: Runtime, store: Store, limits: Builds, data: Path, log: logging.Logger
    ) -> None:
        self.runtime, self.store, self.limits = runtime, store, limits
        self.data, self.log = data, log
        self._over: dict[str, float] = {}  # ended jobs, and until when they are looked after

    def folder(self, job_id: str) -> Path:
        """Where a job's logs are, and what was chosen for it."""
        return self.data / "builds" / job_id

    async def run(self, job: EnvironmentBuild, step: BuildStep | ImageStep) -> dict[str, Any]:
        """Run one step in its container, or find the container that is at it; its result.

        Raises BuildFailed, Cancelled, LabError. When the hub itself ends, the container goes on and
        is found again.
        """
        runtime, name = self.runtime, step_name(step)
        handle = await runtime.begin(step)
        stopped: list[str | Message] = []
        most = min(self.limits.timeout, QUICK.get(name, self.limits.timeout))
        watcher = asyncio.create_task(self._watch(job, handle, stopped, most))
        try:
            # One that cannot even be killed (a file server that hangs) is left alone then.
            async with asyncio.timeout(most + HANGS):
                result = await self._listen(job, name, handle)
            ended = await runtime.task_end(handle)
        except TimeoutError as error:
            raise BuildFailed(messages.HANGS()) from error
        except (BuildFailed, LabError):
            await self._remove(handle)
            raise
        finally:
            watcher.cancel()
        await self._remove(handle)
        if stopped == [_CANCEL]:
            raise Cancelled
        if result is not None and ended is not None and ended.exit_code == 0:
            return result
        if stopped and isinstance(stopped[0], Message):
            raise BuildFailed(stopped[0])
        no_memory = ended is not None and ended.oom_killed
        raise BuildFailed((messages.OUT_OF_MEMORY if no_memory else messages.NO_RESULT)())

    async def _remove(self, handle: str) -> None:
        """Remove a container that has done its work; where the agent is away, ``sweep`` does."""
        with suppress(LabError):
            await self.runtime.remove(handle)

    def over(self, job_id: str) -> None:
        """A job has ended: whatever container of its is found from now on is to go."""
        self._over[job_id] = time.monotonic() + LATE

    async def sweep(self) -> None:
        """Remove what ended jobs have left, such as a container that the agent had made when it was
        killed, before it said so. Raises LabError while the agent is away; asked again, goes on.
        """
        if not self._over:
            return
        now, left = time.monotonic(), await self.runtime.tasks()
        for handle, job_id in left.items():
            if job_id in self._over:
                await self.runtime.remove(handle)
        self._over = {job_id: until for job_id, until in self._over.items() if until > now}

    async def _listen(self, job: EnvironmentBuild, name: str, handle: str) -> dict[str, Any] | None:
        """Read a builder's words to their end: progress to the store, lines to the log."""
        path = self.folder(job.id) / f"{name}.log"
        result: dict[str, Any] | None = None
        error: Message | None = None
        kind = ""
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        with Listener(path) as listener:
            async for line in self.runtime.follow(handle):
                # What a line says may be much; what it costs is nobody else's.
                event = await asyncio.to_thread(listener.take, line)
                if event is None:
                    continue
                if "progress" in event:
                    await self.say(job, event["percent"], event["progress"])
                elif "error" in event:
                    error, kind = event["error"], event["kind"]
                else:
                    result = event["result"]
        if error is not None:
            raise BuildFailed(messages.failed(kind, error))
        return result

    async def _watch(
        self, job: EnvironmentBuild, handle: str, stopped: list[str | Message], most: int
    ) -> None:
        """Stop the builder when the job shall end or takes too long; ``stopped`` says why."""
        begun, work_begun = job.started_at or utcnow(), time.monotonic()
        while not stopped:
            await asyncio.sleep(WATCH)
            with suppress(LabError, StoreError):
                if await self.store.read(lambda s: _cancel_asked(s, job.id)):
                    stopped.append(_CANCEL)
                elif (utcnow() - begun).total_seconds() > self.limits.timeout:
                    stopped.append(messages.TIMED_OUT(seconds=self.limits.timeout))
                elif time.monotonic() - work_begun > most:
                    stopped.append(messages.TOO_LONG())
        while True:
            try:
                return await self.runtime.stop(handle, 0)
            except LabError as error:
                self.log.warning("build %s cannot be stopped yet: %s", job.id, error)
                await asyncio.sleep(WATCH)

    async def say(
        self,
        job: EnvironmentBuild,
        percent: int,
        message: Message | None = None,
    ) -> None:
        """Record how far a job is."""
        if await self.store.run(lambda s: queue.progress(s, job.id, percent, message)):
            self.log.info("build %s shall end", job.id)


def _cancel_asked(session: Any, job_id: str) -> bool:
    job = queue.get(session, job_id)
    return job is None or job.cancel_asked or job.state is not BuildState.RUNNING


class Listener:
    """Makes events of a builder's lines and writes its log; in the thread that reads them.

    An event has ``progress`` (a Message, with ``percent``), ``error`` (one, with ``kind``) or
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
            told = event.get("message")
            why = Message.from_json(told if isinstance(told, dict) else error)
            return {"error": why, "kind": str(event.get("kind"))[:32]}
        if isinstance(progress := event.get("progress"), dict):
            percent = _number(progress.get("percent"))
            said = Message.from_json(progress.get("message"))
            self._write(f"{percent:3d}%  {said}")
            # A remark is for the log; what goes on is for whoever waits.
            if time.monotonic() - self._told > TELL and progress.get("step", 1):
                self._told = time.monotonic()
                return {"progress": said, "percent": percent}
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


def step_name(step: BuildStep | ImageStep) -> str:
    """What a step is called, in its job and in the name of its log."""
    return step.step if isinstance(step, BuildStep) else "image"


def write(path: Path, text: str) -> None:
    """Write a file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f"{path.suffix}.part")
    partial.write_text(text, "utf-8")
    partial.replace(path)
