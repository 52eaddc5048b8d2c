"""The Jupyter server's side of the button below an answer: one's own copy, from a notebook.

``POST labcommons/packages`` asks the site for what the answer offers, ``labcommons/packages/ID``
says how far it is and, in the end, which kernel it has; ``labcommons/local`` has what is left in
~/.local, and moves it out of the way.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

from kernels import user_site
from kernels.console import Console, ConsoleError
from kernels.manager import CondaKernelSpecManager
from kernels.messages import persons_language, say, why
from kernels.own_environments import derive, words_of
from kernels.packages import Offer, started

_LONGEST, _MOST = 200, 500  # characters of a name or spec; how many
BUILD = r"[0-9a-zA-Z-]{1,64}"


def _wrong(name: str) -> web.HTTPError:
    said = say("request_wrong", name=name).in_words(persons_language())
    return web.HTTPError(400, said.replace("%", "%%"))


def read_offer(body: object) -> Offer:
    """What a browser asks for. Raises HTTPError 400."""
    if not isinstance(body, dict):
        raise _wrong("body")

    def text(name: str) -> str:
        value = body.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
            raise _wrong(name)
        return value

    def texts(name: str) -> tuple[str, ...]:
        value = body.get(name) or []
        good = isinstance(value, list) and len(value) <= _MOST
        if not good or not all(isinstance(item, str) and len(item) <= _LONGEST for item in value):
            raise _wrong(name)
        return tuple(value)

    source, name = text("source"), text("name")
    # Not the notebook's word: an image's version is this server's.
    version = started()[1] if (source, name) == ("image", started()[0]) else ""
    return Offer(
        source, name, version, texts("pip"), texts("add"), texts("remove"), texts("channels")
    )


class _Base(APIHandler):
    auth_resource = "kernelspecs"

    async def ask(self, work: Any, *arguments: Any) -> Any:
        """Something that takes its time, with the console's refusal as the answer."""
        try:
            return await asyncio.to_thread(work, *arguments)
        except ConsoleError as error:
            raise web.HTTPError(409, error.message.in_words(persons_language())) from error

    async def with_kernel(self, found: dict[str, Any]) -> dict[str, Any]:
        """A build, with its kernel where it is done and that is there."""
        manager = self.kernel_spec_manager
        if found["state"] == "done" and isinstance(manager, CondaKernelSpecManager):
            manager.take(await asyncio.to_thread(manager.listing.environments, 10.0))
            found["kernel"] = self.kernel_of(found["name"])
        return found

    def kernel_of(self, name: str) -> dict[str, str] | None:
        """The kernel of a personal environment, as the list has it now."""
        manager: Any = self.kernel_spec_manager
        for known, entry in manager.entries.items():
            mark = entry.document["metadata"].get("labcommons") or {}
            mine = (mark.get("source"), mark.get("environment")) == ("personal", name)
            if mine and mark.get("state", "healthy") == "healthy":
                return {"name": known, "display_name": entry.document["display_name"]}
        return None


class Copies(_Base):
    """``POST labcommons/packages``."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Ask for it; the build."""
        wanted = read_offer(self.get_json_body())
        found = _short(await self.ask(derive, Console(), wanted))
        await self.finish(json.dumps(await self.with_kernel(found)))


class Progress(_Base):
    """``GET labcommons/packages/ID``."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self, number: str) -> None:
        """How far it is."""
        found = _short(await self.ask(Console().build, number))
        await self.finish(json.dumps(await self.with_kernel(found)))


class Local(_Base):
    """``labcommons/local``."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """What is in ~/.local."""
        found = await asyncio.to_thread(user_site.look)
        self.finish(json.dumps({"found": [vars(one) for one in found]}))

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Move it out of the way."""
        try:
            folder = await asyncio.to_thread(user_site.move_aside)
        except OSError as error:
            raise web.HTTPError(409, str(why(error))) from error
        self.finish(json.dumps({"folder": folder}))


def _short(build: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": str(build.get("id")),
        "name": str(build.get("name")),
        "state": str(build.get("state")),
        "percent": build.get("percent") if isinstance(build.get("percent"), int) else 0,
        "sentence": words_of(build),
        "again": build.get("retry") is not False,  # whether trying again can help
    }


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "kernels.packages_server"}]


def _load_jupyter_server_extension(app: Any) -> None:
    if not os.environ.get("LABCOMMONS_CONSOLE_URL"):
        return
    here = url_path_join(app.base_url, "labcommons/")
    app.web_app.add_handlers(
        ".*$",
        [
            (here + "packages", Copies),
            (here + f"packages/({BUILD})", Progress),
            (here + "local", Local),
        ],
    )
