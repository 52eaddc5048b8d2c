"""Server extension: a person's copies of their courses' materials, brought up to date.

That is done by a program beside the server (``labcommons_materials_update``), as the person: when
the server has started, when JupyterLab is opened, when somebody asks in it, and when a link to one
of the files is opened, which waits for it. Who has no course with materials has a look at a folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.web import HTTPError, authenticated

from kernels.messages import Message, language_of, persons_language, say

ROOT = Path("/opt/labcommons/courses")
UPDATE = Path(__file__).with_name("labcommons_materials_update.py")
STORE = "materials/repository.git"
FOLDER = "courses"  # in the home
LONGEST = 300  # seconds for one course
PATIENCE = 20  # seconds that a link waits for it
FRESH = 60  # seconds for which opening JupyterLab does not ask again


def problem(code: str, **values: object) -> Message:
    """What stands in the way, and what the person can do."""
    match code:
        case "in_the_way":
            return say("materials_in_the_way", **values)
        case "other_repository":
            return say("materials_other_repository", **values)
        case "busy":
            return say("materials_busy", **values)
        case "full":
            return say("materials_full", **values)
    return say("materials_not_updated", **values)


class Copies:
    """Of one person; what came of the last update of each course."""

    def __init__(self, home: Path, root: Path) -> None:
        self.home, self.root = home, root
        self.ends: dict[str, dict[str, Any]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def names(self) -> list[str]:
        """The courses that give something out."""
        return sorted(found.parents[1].name for found in self.root.glob(f"*/{STORE}"))

    def update(self, name: str) -> asyncio.Task[None]:
        """Begin it, or join who is at it."""
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = asyncio.create_task(self._update(name))
            task.add_done_callback(lambda _: self._tasks.pop(name))
        return task

    async def _update(self, name: str) -> None:
        end: dict[str, Any] = {"kept": [], "problem": "failed", "detail": ""}
        try:
            process = await asyncio.create_subprocess_exec(
                *("nice", "-n", "5", sys.executable, "-I", str(UPDATE)),
                *(str(self.root / name / STORE), str(self.home / FOLDER / name)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(LONGEST):
                    said, complaints = await process.communicate()
                end = json.loads(said)
                if end["problem"]:
                    print(os.fsdecode(complaints)[-4000:], file=sys.stderr, flush=True)
            except TimeoutError:
                end["detail"] = f"{LONGEST} s"
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
        except (OSError, ValueError) as error:
            end["detail"] = str(error)
        self.ends[name] = {**end, "at": time.time()}

    def is_fresh(self, name: str) -> bool:
        """Whether it was updated a moment ago."""
        return time.time() - self.ends.get(name, {}).get("at", 0) < FRESH

    def told(self, language: str) -> dict[str, Any]:
        """For JupyterLab: what was kept and what is wrong, in words."""
        courses = []
        for name in self.names():
            end, folder = self.ends.get(name, {}), f"~/{FOLDER}/{name}"
            news = []
            if code := end.get("problem"):
                detail = end.get("detail") or "–"
                words = problem(code, course=name, folder=folder, detail=detail)
                news.append({"level": "warning", "sentence": words.in_words(language)})
            if kept := end.get("kept"):
                names = [str(pair[1]) for pair in kept]
                words = say("materials_kept", course=name, folder=folder, files=names)
                news.append({"level": "info", "sentence": words.in_words(language)})
            courses.append(
                {
                    "name": name,
                    "folder": f"{FOLDER}/{name}",
                    "at": end.get("at"),
                    "busy": name in self._tasks,
                    "news": news,
                }
            )
        words = {
            "command": say("materials_command"),
            "done": say("materials_done"),
            "title": say("materials_title"),
        }
        said = {name: one.in_words(language) for name, one in words.items()}
        return {"courses": courses, "words": said}


class Materials(APIHandler):
    """``labcommons/materials``: GET what there is; POST: update all, and wait for it."""

    _track_activity = False

    def initialize(self, copies: Copies) -> None:
        self.copies = copies

    @authenticated
    async def get(self) -> None:
        """JupyterLab asks when it is opened: then is the time for what is new, too."""
        for name in self.copies.names():
            if not self.copies.is_fresh(name):
                self.copies.update(name)
        self.tell()

    @authenticated
    async def post(self) -> None:
        """What came of it."""
        names = self.copies.names()
        await asyncio.gather(*(asyncio.shield(self.copies.update(name)) for name in names))
        self.tell()

    def tell(self) -> None:
        """In the language of the page."""
        language = language_of(self.get_query_argument("lang", "")) or persons_language()
        self.finish(json.dumps(self.copies.told(language)))


class Open(JupyterHandler):
    """``labcommons/course/NAME/PATH``: a file of the materials, in the person's own copy."""

    def initialize(self, copies: Copies) -> None:
        self.copies = copies

    @authenticated
    async def get(self, name: str, path: str | None) -> None:
        """After the update, however that ends; what is not there leads to the folder."""
        parts = [part for part in (path or "").split("/") if part]
        if ".." in parts or "\0" in "".join(parts):
            raise HTTPError(404)
        if name in self.copies.names():
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await asyncio.shield(self.copies.update(name))
        target = ["lab"]
        for place in ((FOLDER, name, *parts), (FOLDER, name)):
            if self.copies.home.joinpath(*place).exists():
                target += ["tree", *place]
                break
        self.redirect(url_path_join(self.base_url, *map(quote, target)))


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "labcommons_materials"}]


def _load_jupyter_server_extension(app: Any) -> None:
    copies = Copies(Path(os.environ.get("HOME", "/tmp")), ROOT)  # noqa: S108
    app.web_app.settings["labcommons_copies"] = copies
    here = url_path_join(app.web_app.settings["base_url"], "labcommons/")
    app.web_app.add_handlers(
        ".*$",
        [
            (here + "materials", Materials, {"copies": copies}),
            (here + r"course/([a-z0-9._-]{1,64})(?:/(.*))?", Open, {"copies": copies}),
        ],
    )


async def _start_jupyter_server_extension(app: Any) -> None:
    copies: Copies = app.web_app.settings["labcommons_copies"]
    for name in copies.names():
        copies.update(name)
