"""The shelf: checked front ends of environments, where JupyterLab's server finds them.

An extension of the server. The shelf has for each front end a ``package.json`` of ours, the checked
schemas of its settings, and a link to its files: what a package says otherwise is read by nobody.
It is looked at before each page and while one is open; an open page is told to be loaded again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web
from traitlets import List, Unicode
from traitlets.config import LoggingConfigurable

from kernels import files, front_ends
from kernels.front_ends import Choice, Found, FrontEnd, choose
from kernels.kernel_list import ListedKernel
from kernels.manager import CondaKernelSpecManager
from kernels.prefix import Stamp, stamp_of

SCHEMA_ID = "https://schema.labcommons.invalid/front-ends/v1"
_SCHEMA = {
    "$id": SCHEMA_ID,
    "version": "1",
    "title": "Front ends of environments have come or gone",
    "personal-data": False,
    "type": "object",
    "required": ["digest"],
    "properties": {"digest": {"type": "string", "title": "Of those that there are now"}},
}
# Seconds that a page waits for a disk, and between two looks while one is open.
_PATIENCE = 2.0
_EVERY = 3.0
_OPEN = 150.0


class Shelf(LoggingConfigurable):
    """What the browser gets of environments."""

    folder = Unicode(
        "",
        help="""Where the shelf is, in ``LabServerApp.extra_labextensions_path`` as well; it has to
        be the person's own. Empty: there is none.""",
    ).tag(config=True)

    sources = List(
        Unicode(),
        default_value=["*"],
        help="""Globs of the sources whose front ends are taken. Where pages of several people's
        servers share one origin, those of administrators alone::

            c.Shelf.sources = ["image", "shared"]
        """,
    ).tag(config=True)

    def __init__(self, own: Mapping[str, str], chosen: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._own, self._chosen = own, chosen
        self._known: dict[str, tuple[tuple[Stamp, ...], str, Found]] = {}
        self._ever: set[str] = set()
        self._lock = threading.Lock()
        self.found: list[Found] = []
        self.left_out: list[Found] = []
        self.choice = Choice()
        self.digest = _digest(self.choice)

    def look(self, entries: list[ListedKernel]) -> bool:
        """Bring the shelf up to date with the list's environments; whether that is news.

        For a thread, as disks take their time. Raises OSError where it cannot be written.
        """
        with self._lock:
            places = {e.environment.place.prefix: e for e in reversed(entries) if e.is_healthy}
            known = {prefix: self._seen(entry) for prefix, entry in reversed(places.items())}
            self._known = known
            found = [each for _, _, each in known.values()]
            allowed = [each for each in found if self._is_allowed(each)]
            self.left_out = [e for e in found if e not in allowed and (e.front_ends or e.refused)]
            choice = choose(allowed, self._own, self._chosen)
            if self.folder:
                write(self.folder, choice)
            self.found, self.choice = allowed, choice
            self._ever |= choice.shelf.keys()
            before, self.digest = self.digest, _digest(choice)
            return before != self.digest

    def _is_allowed(self, found: Found) -> bool:
        return any(fnmatchcase(found.place.source, glob) for glob in self.sources)

    def _seen(self, entry: ListedKernel) -> tuple[tuple[Stamp, ...], str, Found]:
        place, shown = entry.environment.place, entry.document["display_name"]
        stamps = _stamps(f"{place.prefix}/share/jupyter/labextensions")
        before = self._known.get(place.prefix)
        if before is not None and before[0] == stamps and before[1] == shown:
            return before
        return stamps, shown, front_ends.look(place, shown, self._own)

    def report(self, language: str) -> dict[str, Any]:
        """All that a page may tell: what is there, what was passed over, refused and left out."""
        return {
            "digest": self.digest,
            "own": dict(self._own),
            "shown": [
                {"name": name, "version": one.version, **_of(found)}
                for name, (one, found) in sorted(self.choice.shelf.items())
            ],
            "passed": [
                {
                    "name": one.name,
                    "version": one.version,
                    **_of(found),
                    "taken": self._taken(one.name),
                }
                for one, found in self.choice.passed
            ],
            "refused": [
                {"name": name, "reason": reason.in_words(language), **_of(found)}
                for found in self.found
                for name, reason in found.refused
            ],
            "left_out": [
                {"name": one.name, "version": one.version, **_of(found)}
                for found in self.left_out
                for one in found.front_ends
                if one.name not in self._own
            ],
        }

    def _taken(self, name: str) -> dict[str, str]:
        if name in self._own:
            return {"version": self._own[name], "environment": ""}
        one, found = self.choice.shelf[name]
        return {"version": one.version, "environment": found.shown}

    def in_page(self, config: dict[str, Any]) -> dict[str, Any]:
        """JupyterLab's page configuration with what the shelf has now."""
        shelf = self.choice.shelf
        # JupyterLab has looked at the shelf a moment too early.
        others = [e for e in config.get("federated_extensions", []) if e["name"] not in self._ever]
        config["federated_extensions"] = others + [
            {"name": name, **one.build, "entrypoints": None}
            for name, (one, _) in sorted(shelf.items())
        ]
        config["labcommonsFrontEnds"] = {name: one.version for name, (one, _) in shelf.items()}
        return config


def _of(found: Found) -> dict[str, str]:
    place = found.place
    return {"environment": found.shown, "prefix": place.prefix, "source": place.source}


def _stamps(folder: str) -> tuple[Stamp, ...]:
    """What changes with the front ends in a folder: its own, those of scopes and of packages."""
    stamps = [stamp_of(folder)]
    if stamps[0] is None:
        return (None,)
    try:
        names = sorted(files.names(folder))[:1000]
    except OSError:
        return tuple(stamps)
    for name in names:
        stamps.append(stamp_of(f"{folder}/{name}"))
        if name.startswith("@"):
            try:
                below = sorted(files.names(f"{folder}/{name}"))[: front_ends.MAX_FRONT_ENDS]
            except OSError:
                continue
            stamps += [stamp_of(f"{folder}/{name}/{each}/package.json") for each in below]
        else:
            stamps.append(stamp_of(f"{folder}/{name}/package.json"))
    return tuple(stamps)


def _digest(choice: Choice) -> str:
    said = sorted((name, one.version) for name, (one, _) in choice.shelf.items())
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def own_front_ends(folders: list[str]) -> dict[str, str]:
    """The server's own: names and versions of what is in its folders, which nobody else writes."""
    found: dict[str, str] = {}
    for folder in folders:
        for file in (
            *Path(folder).glob("[!@]*/package.json"),
            *Path(folder).glob("@*/*/package.json"),
        ):
            about = json.loads(file.read_bytes())
            found.setdefault(str(about["name"]), str(about["version"]))
    return found


def write(root: str, choice: Choice) -> None:
    """Make a folder agree with a choice. Raises OSError; somebody else's folder is refused."""
    folder = Path(root)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = os.lstat(folder)
    if seen.st_uid != os.geteuid() or not stat.S_ISDIR(seen.st_mode):
        raise PermissionError(f"{folder} belongs to somebody else; remove it")
    for name, (one, _) in choice.shelf.items():
        _put(folder / name, one)
    for path in folder.iterdir():
        below = path.iterdir() if path.name.startswith("@") and path.is_dir() else [path]
        for each in below:
            if str(each.relative_to(folder)) not in choice.shelf:
                _remove(each)


def _put(folder: Path, one: FrontEnd) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = f"{os.path.realpath(one.folder)}/static"
    link = folder / "static"
    if not link.is_symlink() or os.readlink(link) != target:
        staged = folder / ".static"
        _remove(staged)
        staged.symlink_to(target)
        if link.exists() and not link.is_symlink():
            _remove(link)
        os.replace(staged, link)
    schemas = folder / "schemas"
    wanted = {name: Path(one.folder, "schemas", one.name, name) for name in one.schemas}
    _remove(schemas)
    for name, source in wanted.items():
        (schemas / one.name).mkdir(mode=0o700, parents=True, exist_ok=True)
        raw, _ = files.read(source, front_ends.MAX_SIZE)
        files.replace(str(schemas / one.name / name), raw)
    about = {"name": one.name, "version": one.version, "jupyterlab": {"_build": dict(one.build)}}
    raw = json.dumps(about).encode()
    file = folder / "package.json"
    if not file.is_file() or file.read_bytes() != raw:
        files.replace(str(file), raw)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


class FrontEnds(APIHandler):
    """``GET labcommons/front-ends``: what the browser gets of environments, and what not."""

    auth_resource = "kernelspecs"

    def initialize(self, shelf: Shelf) -> None:
        self.shelf = shelf

    @web.authenticated
    @authorized
    async def get(self) -> None:
        manager: Any = self.kernel_spec_manager
        await self.finish(json.dumps(self.shelf.report(manager.language)))


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "kernels.shelf"}]


def _load_jupyter_server_extension(app: Any) -> None:
    manager = app.kernel_spec_manager
    if not isinstance(manager, CondaKernelSpecManager):
        app.log.info("kernels.shelf has nothing to show: another kernel list is configured")
        return
    own = own_front_ends(
        [f"{sys.prefix}/share/jupyter/labextensions", str(Path(__file__).parent / "labextensions")]
    )
    shelf = Shelf(own, manager.chosen, parent=app)
    app.event_logger.register_event_schema(_SCHEMA)
    path = url_path_join(app.base_url, "labcommons", "front-ends")
    app.web_app.add_handlers(".*$", [(path, FrontEnds, {"shelf": shelf})])
    settings = app.web_app.settings
    worker = ThreadPoolExecutor(1, thread_name_prefix="shelf")

    def look() -> bool:
        try:
            return shelf.look(list(manager.entries.values()))
        except OSError as error:
            app.log.warning("Front ends of environments cannot be shown: %s", error)
            return False

    async def run() -> None:
        # The hub's part of the server sets its own after extensions are loaded.
        before = settings.get("page_config_hook")

        def hook(handler: Any, config: dict[str, Any]) -> dict[str, Any]:
            manager.menu()
            try:
                worker.submit(look).result(_PATIENCE)
            except TimeoutError:
                app.log.warning("Front ends of environments are looked at longer than a page waits")
            if before is not None:
                config = before(handler, config)
            return shelf.in_page(config)

        settings["page_config_hook"] = hook
        loop = asyncio.get_running_loop()
        while True:
            try:
                open_now = time.monotonic() - manager.last_asked < _OPEN
                if open_now and await loop.run_in_executor(worker, look):
                    app.event_logger.emit(schema_id=SCHEMA_ID, data={"digest": shelf.digest})
            except Exception:
                app.log.exception("Looking at front ends failed; it is tried again")
            await asyncio.sleep(_EVERY)

    app.io_loop.add_callback(run)
