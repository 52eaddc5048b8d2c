"""Copies of what is in a home, laid into a course's folder: two containers, one after the other.

The first sees the home and no course, with its owner's numbers; the second sees the course and no
home, as our services' uid with the group of the course's leads. What they run is ``snapshot``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from commons.errors import RuntimeRefused
from spawner.runtime import labels
from spawner.runtime.docker import engine as engines
from spawner.runtime.docker import snapshot
from spawner.runtime.docker.body import PURPOSE, Bind, Use, container
from spawner.runtime.docker.engine import Engine
from spawner.runtime.docker.job_folders import JobFolders
from spawner.runtime.docker.places import Places
from spawner.runtime.docker.quotas import PYTHON
from spawner.runtime.docker.rules import against_rules, check_account
from spawner.runtime.docker.settings import OWNER, AgentSettings
from spawner.runtime.docker.shared import Shared
from spawner.runtime.messages import SNAPSHOT_FAILED, SNAPSHOT_GONE
from spawner.runtime.names import escaped
from spawner.runtime.spec import Account, KeepFiles, Listed, ListFiles, TakeFiles, Taken

AT_ONCE = 4
_SAID = 2**21  # bytes; folders' names may be long


class Snapshots:
    """Of one machine, a few at a time: others' starts do not wait for them."""

    def __init__(self, settings: AgentSettings, places: Places, folders: JobFolders) -> None:
        self.settings, self.places, self.folders = settings, places, folders
        self._engine = Engine(settings.site.servers.engine_timeout, AT_ONCE)
        # Who looks for a folder does not hold up what is handed in.
        self._looks = Engine(settings.site.servers.engine_timeout, AT_ONCE)
        self._shared = Shared()

    def close(self) -> None:
        self._engine.close()
        self._looks.close()

    async def take(self, task: TakeFiles) -> Taken:
        """Raises RuntimeRefused, NotAllowed, RuntimeSilent."""
        return await self._shared.do(("take", task.id), lambda: self._take(task))

    async def _take(self, task: TakeFiles) -> Taken:
        body = await asyncio.to_thread(self.reading, task)
        said = await self._run(f"take-{task.id}", body)
        try:
            taken = Taken.model_validate_json(json.dumps(said))  # a list is a tuple there
        except ValidationError as error:
            raise RuntimeRefused(SNAPSHOT_FAILED(reason="?")) from error
        if taken.refusal:
            await self.drop(task.id)
        return taken

    async def list_files(self, task: ListFiles) -> Listed:
        """Raises RuntimeRefused, NotAllowed, RuntimeSilent."""
        return await self._shared.do(("list", task.user, task.path), lambda: self._list(task))

    async def _list(self, task: ListFiles) -> Listed:
        body = await asyncio.to_thread(self.listing, task)
        place = hashlib.sha256(task.path.encode()).hexdigest()[:12]
        said = await self._run(f"list-{escaped(task.user)}-{place}", body, self._looks)
        said.pop("path", None)
        try:
            return Listed.model_validate_json(json.dumps(said))
        except ValidationError as error:
            raise RuntimeRefused(SNAPSHOT_FAILED(reason="?")) from error

    async def keep(self, task: KeepFiles) -> bool:
        """Raises RuntimeRefused, RuntimeSilent."""
        key = ("keep", task.id, task.place)
        return await self._shared.do(key, lambda: self._keep(task))

    async def _keep(self, task: KeepFiles) -> bool:
        body = await asyncio.to_thread(self.keeping, task)
        said = await self._run(f"keep-{task.id}", body)
        return bool(said.get("readable", True))

    async def drop(self, name: str) -> None:
        await asyncio.to_thread(self.folders.drop, name)

    # -- bodies ----------------------------------------------------------------------------------

    def reading(self, task: TakeFiles) -> dict[str, Any]:
        """What reads a home, into an empty folder. Raises RuntimeRefused, NotAllowed."""
        check_account(task.account, self.settings)
        home = self.places.home(task.user, task.account.uid)
        spool = self.folders.make_snapshot(task.id)
        words = {
            "do": "take",
            **task.model_dump(include={"path", "most_files", "most_bytes", "unzip"}),
        }
        binds = [Bind(home, str(snapshot.HOME)), Bind(spool, str(snapshot.SPOOL), read_only=False)]
        return self._body(words, task.account, binds)

    def listing(self, task: ListFiles) -> dict[str, Any]:
        """What lists a folder of a home. Raises RuntimeRefused, NotAllowed."""
        check_account(task.account, self.settings)
        home = self.places.home(task.user, task.account.uid)
        words = {"do": "list", "path": task.path}
        return self._body(words, task.account, [Bind(home, str(snapshot.HOME))])

    def keeping(self, task: KeepFiles) -> dict[str, Any]:
        """What writes into a course's folder. Raises RuntimeRefused."""
        scope = self.places.scope(task.scope)
        pair = self.places.owners.get(scope) if scope else None
        if scope is None or pair is None or scope.row.members_write:
            raise against_rules(f"{task.scope[:40]!r} takes no files of its people")
        folder, spool = self.places.folder(*scope.folder.parts), self.folders.snapshot(task.id)
        if folder is None:
            raise against_rules(f"the folder of {task.scope} is not there")
        if task.reader is not None:
            check_account(Account(uid=task.reader, gid=pair.leads), self.settings)
        binds = [Bind(str(folder), str(snapshot.COURSE), read_only=False)]
        if spool is not None:  # of what is there already, it is not needed any more
            binds.append(Bind(spool, str(snapshot.SPOOL)))
        words: dict[str, Any] = {
            "do": "keep",
            **task.model_dump(include={"id", "area", "place", "digest", "only", "reader"}),
            "leads": pair.leads,
            "receipt": _plain(task.receipt),
        }
        return self._body(words, Account(uid=OWNER, gid=pair.leads), binds)

    def _body(self, words: Mapping[str, Any], user: Account, binds: list[Bind]) -> dict[str, Any]:
        program = [PYTHON, "-I", "-m", "spawner.runtime.docker.snapshot", json.dumps(words)]
        return container(
            self.settings.agent_image,
            program,
            user,
            Use(2**28, 1, 16),
            labelled={labels.SITE: self.settings.site_id, PURPOSE: "snapshot"},
            env={},
            binds=binds,
            folder="/",
        )

    async def _run(
        self, name: str, body: dict[str, Any], engine: Engine | None = None
    ) -> dict[str, Any]:
        """What the program said. Raises RuntimeRefused."""
        seconds = snapshot.SECONDS + 60

        def work(api: Any) -> tuple[bytes, int]:
            made = engines.create(api, f"{self.settings.site_id}-{name}", body)
            try:
                api.start(made)
                code = int(api.wait(made, timeout=seconds)["StatusCode"])
                return bytes(api.logs(made, stderr=code != 0))[-_SAID:], code
            finally:
                engines.remove(api, made)

        raw, code = await (engine or self._engine).call(work, seconds + 60)
        said: Any = None
        with suppress(ValueError):
            said = json.loads(raw)
        if code or not isinstance(said, dict):
            reason = raw.decode("utf-8", "replace").strip()[-200:] or f"exit code {code}"
            raise RuntimeRefused(SNAPSHOT_FAILED(reason=reason))
        if said.get("gone"):
            raise RuntimeRefused(SNAPSHOT_GONE())
        if failure := said.get("failure"):
            raise RuntimeRefused(SNAPSHOT_FAILED(reason=str(failure)[:200]))
        return said


def _plain(receipt: str) -> Any:
    try:
        return json.loads(receipt) if receipt else None
    except ValueError as error:
        raise against_rules("a receipt that is no JSON") from error
