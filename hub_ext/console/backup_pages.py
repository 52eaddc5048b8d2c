"""The page “Earlier files”: everybody's own home, and what their groups share, as it was."""

from __future__ import annotations

import asyncio
import json
import os
from functools import cached_property
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError as URLHTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from tornado.httpclient import HTTPClientError
from tornado.iostream import StreamClosedError
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.web import HTTPError

from commons.scopes import FILES, Keeper, Scope, personal
from commons.units import amount
from hub_ext.console.handlers import Page

SERVICE = os.environ.get("LABCOMMONS_BACKUP_URL", "http://backup-control:8085")
TOKEN = Path("/run/labcommons/backup-token")
CONNECT = 5.0  # seconds
LIMIT = 90.0  # seconds for a list
MAX_ANSWER = 16 * 2**20  # bytes of a list
CHUNK = 256 * 1024  # bytes


class _Asks(Page):
    """What asks the backup service, in the name of who reads the page and of nobody else."""

    @cached_property
    def groups(self) -> list[Scope]:
        """Whose shared files they read and write; of a course, who looks after it."""
        return [
            scope
            for scope in self.viewer.scopes
            if scope.keeper is Keeper.GROUP
            and (scope.row.members_write or self.viewer.leads(scope))
        ]

    @cached_property
    def of(self) -> Scope:
        """Whose files they ask for. Raises HTTPError where these are not theirs."""
        asked = self.get_query_argument("of", "")
        for scope in self.groups:
            if scope.source == asked:
                return scope
        if asked:
            raise HTTPError(404)
        return personal(self.viewer.name)

    def address(self, what: str, **words: str) -> str:
        """Of one answer."""
        of = self.of
        folder = of.folder / FILES if of.keeper is Keeper.GROUP else of.folder
        return f"{SERVICE}/{what}?{urlencode({'folder': str(folder), **words})}"

    @property
    def credentials(self) -> dict[str, str]:
        """The console's."""
        return {"Authorization": f"token {TOKEN.read_text('ascii').strip()}"}

    async def ask(self, what: str, **words: str) -> Any:
        """An answer's JSON. Raises HTTPClientError, OSError, ValueError."""
        client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=MAX_ANSWER)
        try:
            answer = await client.fetch(
                self.address(what, **words),
                headers=self.credentials,
                connect_timeout=CONNECT,
                request_timeout=LIMIT,
            )
        finally:
            client.close()
        return json.loads(answer.body)


class EarlierFiles(_Asks):
    """``GET files?backup=ID&path=FOLDER``."""

    async def get(self) -> None:
        """A folder as it was."""
        backup, of = self.site.backup, self.of
        kept = bool(backup.target and (backup.teams if of in self.groups else backup.homes))
        asked, path = self.get_query_argument("backup", ""), self.get_query_argument("path", "")
        snapshots: list[dict[str, Any]] = []
        entries: list[dict[str, Any]] | None = None
        problem = ""
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", ".", "..")]
        try:
            if kept:
                snapshots = (await self.ask("snapshots"))["snapshots"]
            known = [one["id"] for one in snapshots]
            chosen = asked if asked in known else next(iter(known), "")
            if chosen:
                found = await self.ask("list", snapshot=chosen, path="/".join(parts))
                entries = [
                    {
                        **one,
                        "at": f"{one['mtime']}+00:00" if one["mtime"] else "",
                        "path": "/".join([*parts, one["name"]]),
                    }
                    for one in found["entries"]
                ]
        except (HTTPClientError, OSError, ValueError, KeyError) as error:
            problem, chosen = _cause(error), asked
        self.render_page(
            "files.html",
            kept=kept,
            of=of.source if of in self.groups else "",
            whose=of.title(self._) if of in self.groups else "",
            groups=[(scope.source, scope.title(self._)) for scope in self.groups],
            snapshots=snapshots,
            chosen=chosen,
            at=next((one["time"] for one in snapshots if one["id"] == chosen), ""),
            above=[(part, "/".join(parts[: n + 1])) for n, part in enumerate(parts)],
            entries=entries,
            problem=problem,
            quote=quote,
            bytes_words=amount,
        )


class EarlierFile(_Asks):
    """``GET files/download?backup=ID&path=FILE``: the file; of a folder, a zip."""

    async def get(self) -> None:
        """As it comes, and no faster than the browser takes it: nothing of it is kept here."""
        if not self.site.backup.target:
            raise HTTPError(404)
        backup, path = self.get_query_argument("backup"), self.get_query_argument("path")
        zipped = ".zip" if self.get_query_argument("folder", "") == "yes" else ""
        name = (PurePosixPath(path).name or self.viewer.name) + zipped
        try:
            request = Request(  # noqa: S310 - the service's own address
                self.address("file", snapshot=backup, path=path), headers=self.credentials
            )
            answer = await asyncio.to_thread(urlopen, request, timeout=LIMIT)
        except URLHTTPError as error:
            raise HTTPError(404 if error.code in (400, 404) else 503) from error
        except OSError as error:
            raise HTTPError(503) from error
        with answer:
            try:
                chunk = await asyncio.to_thread(answer.read, CHUNK)
            except (OSError, HTTPException) as error:
                raise HTTPError(503) from error
            self.record("backup-file", path=path[:500], backup=backup[:64], of=self.of.source)
            self.set_header("Content-Type", "application/octet-stream")
            self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{quote(name)}")
            try:
                while chunk:
                    self.write(chunk)
                    await self.flush()
                    chunk = await asyncio.to_thread(answer.read, CHUNK)
            except StreamClosedError:
                return
            except (OSError, HTTPException):
                # What has begun is cut off, so that the browser sees that it is not whole.
                if stream := self.detach():
                    stream.close()
                return
        self.finish()


def _cause(error: Exception) -> str:
    if isinstance(error, HTTPClientError) and error.response is not None:
        try:
            return str(json.loads(error.response.body)["message"])[:500]
        except (ValueError, KeyError, TypeError):
            pass
    return str(error)[:500]
