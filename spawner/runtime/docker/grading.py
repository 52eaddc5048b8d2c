"""Grading by a program: three containers one after the other, each of the course's own image.

The first and the third see no student's code run: one has the instructors' area, with the group of
the course's leads, and what was handed in, all to read; the other what these two made, and no
course. The second one runs a student's notebook as nobody, without a network, and sees that
notebook and what was handed in with it. What they run is ``grade_task``.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import Timeout

from commons.errors import RuntimeRefused
from commons.scopes import STAFF
from spawner.runtime import labels
from spawner.runtime.docker import engine as engines
from spawner.runtime.docker import grade_task
from spawner.runtime.docker.body import PURPOSE, TMP, Bind, Log, Use, container
from spawner.runtime.docker.engine import Engine
from spawner.runtime.docker.images import PREFIXES, Images
from spawner.runtime.docker.job_folders import JobFolders
from spawner.runtime.docker.places import Places
from spawner.runtime.docker.rules import against_rules
from spawner.runtime.docker.settings import AgentSettings
from spawner.runtime.docker.shared import Shared
from spawner.runtime.messages import GRADING_FAILED
from spawner.runtime.spec import Account, Graded, GradeFiles, Limits

AT_ONCE = 2
NOBODY = 65534
SECONDS = 240  # for what is no student's code
_KILLED = (137, 143)
_MOST_SAID = 2 * 2**20  # bytes, of the first and third
_MOST_RAN = 64 * 2**20  # bytes: of twenty notebooks, escaped
_PROGRAM = Path(grade_task.__file__)


class Grading:
    """Of one machine, a few at a time: others' starts do not wait for them."""

    def __init__(
        self, settings: AgentSettings, places: Places, folders: JobFolders, images: Images
    ) -> None:
        self.settings, self.places, self.folders, self.images = settings, places, folders, images
        self._engine = Engine(settings.site.servers.engine_timeout, AT_ONCE)
        self._shared = Shared()

    def close(self) -> None:
        self._engine.close()

    async def grade(self, task: GradeFiles) -> Graded:
        """Raises RuntimeRefused, RuntimeSilent."""
        return await self._shared.do(
            task.id, lambda: self._engine.call(lambda api: self._grade(api, task), 2 * 3600)
        )

    def _grade(self, api: Any, task: GradeFiles) -> Graded:
        self.images.check_startable(api, task.image, task.environment, task.version)
        folders = self.folders.make_grading(task.id)
        try:
            said, code = self._run(api, task, "prepare", self.preparing(task, folders), SECONDS)
            if failed := _failure(said, code):
                return failed
            said, code = self._run(
                api, task, "run", self.running(task, folders), task.seconds + 120, _MOST_RAN
            )
            failed = _failure(said, code)
            if failed:
                return failed
            self.folders.lay_outputs(task.id, said)
            out = self.folders.make_snapshot(task.id)
            said, code = self._run(api, task, "mark", self.marking(task, folders, out), SECONDS)
            failed = _failure(said, code)
            graded = failed or self._read(task, said)
        finally:
            self.folders.drop_grading(task.id)
        if graded.failure:
            self.folders.drop(task.id)
        return graded

    # -- bodies ----------------------------------------------------------------------------------

    def preparing(self, task: GradeFiles, folders: Mapping[str, str]) -> dict[str, Any]:
        """What reads the course. Raises RuntimeRefused."""
        scope = self.places.scope(task.scope)
        pair = self.places.owners.get(scope) if scope else None
        if scope is None or pair is None or STAFF not in scope.row.areas:
            raise against_rules(f"{task.scope[:40]!r} has no instructors' area")
        staff = self.places.folder(*scope.folder.parts, STAFF)
        handed = self.places.folder(*scope.folder.parts, "handins", *task.place.split("/"), "files")
        if staff is None or handed is None:
            raise against_rules(f"what {task.scope} has handed in is not there")
        binds = [
            Bind(str(staff), str(grade_task.STAFF)),
            Bind(str(handed), str(grade_task.HANDED)),
            Bind(folders["run"], str(grade_task.RUN), read_only=False),
            Bind(folders["book"], str(grade_task.BOOK), read_only=False),
        ]
        words = {"do": "prepare", "handin": task.handin}
        return self._body(task, words, Account(uid=NOBODY, gid=pair.leads), binds)

    def running(self, task: GradeFiles, folders: Mapping[str, str]) -> dict[str, Any]:
        """What runs a student's code."""
        words = {"do": "run", "seconds": task.seconds}
        account = Account(uid=NOBODY, gid=NOBODY)
        binds = [Bind(folders["run"], str(grade_task.RUN))]
        return self._body(task, words, account, binds, task.limits)

    def marking(self, task: GradeFiles, folders: Mapping[str, str], out: str) -> dict[str, Any]:
        """What makes marks of what the others left."""
        binds = [
            Bind(folders["book"], str(grade_task.BOOK)),
            Bind(folders["ran"], str(grade_task.RAN)),
            Bind(out, str(grade_task.OUT), read_only=False),
        ]
        words = {"do": "mark", "handin": task.handin}
        return self._body(task, words, Account(uid=NOBODY, gid=NOBODY), binds)

    def _body(
        self,
        task: GradeFiles,
        words: Mapping[str, Any],
        user: Account,
        binds: list[Bind],
        limits: Limits | None = None,
    ) -> dict[str, Any]:
        prefix = str(PREFIXES / task.environment)
        program = [f"{prefix}/bin/python", "-I", "-c", _PROGRAM.read_text(), json.dumps(words)]
        memory, cpu, pids = 2**30, 1.0, 128
        if limits is not None:
            memory, cpu, pids = limits.memory, limits.cpu, min(limits.pids, 512)
        room = min(memory // 2, 2**31)  # what is there counts as memory
        return container(
            task.image,
            program,
            user,
            Use(
                memory,
                cpu,
                pids,
                tmpfs={TMP: f"rw,nosuid,nodev,exec,mode=1777,size={room}"},
                log=Log(f"{2 * _MOST_RAN}"),
            ),
            labelled={labels.SITE: self.settings.site_id, PURPOSE: "grading"},
            env={
                "HOME": TMP,
                "LANG": "C.UTF-8",
                "PATH": f"{prefix}/bin:/usr/bin:/bin",
                "CONDA_PREFIX": prefix,
                "JUPYTER_RUNTIME_DIR": f"{TMP}/jupyter",
                "IPYTHONDIR": f"{TMP}/ipython",
            },
            binds=binds,
        )

    # -- one step --------------------------------------------------------------------------------

    def _run(
        self,
        api: Any,
        task: GradeFiles,
        step: str,
        body: dict[str, Any],
        seconds: int,
        most: int = _MOST_SAID,
    ) -> tuple[bytes, int]:
        """What it said, and its exit code; one that does not end in time is killed."""
        made = engines.create(api, f"{self.settings.site_id}-grade-{step}-{task.id}", body)
        try:
            api.start(made)
            try:
                code = int(api.wait(made, timeout=seconds)["StatusCode"])
            except (RequestsConnectionError, Timeout):
                return b'{"failure": "time"}', 0
            said = b""
            for piece in api.logs(made, stdout=True, stderr=False, stream=True):
                said += piece
                if len(said) > most:
                    return b'{"failure": "size"}', 0
            return said, code
        finally:
            engines.remove(api, made)

    def _read(self, task: GradeFiles, said: bytes) -> Graded:
        """What the last step said, where the feedback is what it says. Raises RuntimeRefused."""
        try:
            graded = Graded.model_validate_json(said.strip().rpartition(b"\n")[2])
            folder = self.folders.data / "snapshots" / task.id
            if _digest(folder / "manifest.json", graded.files) != graded.digest:
                raise ValueError("the feedback is another")
        except (ValidationError, ValueError, OSError) as error:
            raise RuntimeRefused(GRADING_FAILED(reason=str(error)[:200])) from error
        return graded


def _failure(said: bytes, code: int) -> Graded | None:
    """Why a step has failed; None where it has not."""
    if code in _KILLED:
        return Graded(failure="memory")
    try:
        last = json.loads(said.strip().rpartition(b"\n")[2] or b"{}")
    except (ValueError, RecursionError):
        last = {}
    if isinstance(last, dict) and "failure" in last:
        try:
            return Graded(failure=last["failure"], detail=str(last.get("detail") or "")[:300])
        except ValidationError:
            return Graded(failure="failed", detail=str(last)[:300])
    if code:
        return Graded(failure="failed", detail=f"exit code {code}")
    return None


def _digest(path: Path, files: int) -> str:
    """Of a manifest that names as many pages, and nothing else. Raises ValueError, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("the feedback is no file")
        text = file.read(100_000)
    listed = json.loads(text)["files"]
    names = [str(one["path"]) for one in listed]
    if len(set(names)) != files or any("/" in one or not one.endswith(".html") for one in names):
        raise ValueError("the feedback has other files than pages")
    return hashlib.sha256(text).hexdigest()
