"""What is written into terminals of sessions by SSH: a few lines at first, and warnings later.

The console is asked what the person has to be told, as JupyterLab asks it, and only while somebody
is connected. What is new is written to each terminal once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from tornado.web import HTTPError

from kernels import cgroup
from kernels.messages import persons_language, say

EVERY = 15.0  # seconds between two questions
FIRST = 2.0  # seconds that a session waits for its first lines
LONGEST = 2000  # characters of what is written
GIB = 2**30


def plain(text: str) -> str:
    """Text without what a terminal would take for a command."""
    return "".join(char for char in text if char.isprintable())[:LONGEST]


def clock(at: str) -> str:
    """A time of the console's, by the server's clock."""
    there = datetime.fromisoformat(at.replace("Z", "+00:00")).astimezone()
    return f"{there:%Y-%m-%d %H:%M} {there:%Z}".strip()


def of_leases(document: dict[str, Any], server: str) -> list[str]:
    """The GPUs of this server, and when they go."""
    found = []
    for lease in document["leases"]:
        if lease["server"] != server:
            continue
        words, gpus = document["words"], " + ".join(str(one["model"]) for one in lease["gpus"])
        ends = [one for one in (lease["ends_at"], (lease["stop"] or {}).get("at")) if one]
        text = str(words["details" if ends else "endless"]).replace("{gpus}", gpus)
        found.append(text.replace("{time}", clock(min(ends))) if ends else text)
    return found


def first_lines(document: dict[str, Any] | None, server: str) -> str:
    """The message of the day."""
    language, lines = persons_language(), []
    if environment := os.environ.get("LABCOMMONS_ENVIRONMENT", ""):
        lines.append(say("ssh_environment", environment=environment).in_words(language))
    usage = cgroup.read()
    if usage is not None and usage.limit:
        used, limit = (f"{part / GIB:.1f}" for part in (usage.memory, usage.limit))
        lines.append(say("ssh_memory", used=used, limit=limit).in_words(language))
    if document is not None:
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            lines += of_leases(document, server)
    return "".join(f"{plain(line)}\n" for line in lines)


def below(roots: Iterable[int], proc: Path = Path("/proc")) -> list[int]:
    """The processes that some have started, and those that these have."""
    children: dict[int, list[int]] = {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                # The name in it may have anything but a last parenthesis.
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], list(roots)
    while waiting:
        new = children.get(waiting.pop(), [])
        found += new
        waiting += new
    return found


def terminals(roots: Iterable[int], proc: Path = Path("/proc")) -> set[str]:
    """The terminals of the sessions that some sshd have."""
    found = set()
    for pid in below(roots, proc):
        with suppress(OSError):
            place = os.readlink(proc / str(pid) / "fd" / "0")
            if place.startswith("/dev/pts/"):
                found.add(place)
    return found


def write_to(places: Iterable[str], text: str) -> None:
    """A line into each; one that takes nothing is left."""
    line = f"\r\n\a*** {plain(text)}\r\n".encode()
    for place in places:
        with suppress(OSError):
            there = os.open(place, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                os.write(there, line)
            finally:
                os.close(there)


class Told:
    """What sessions are told; ``console`` is None on a site without one."""

    def __init__(self, console: Any, folder: Path) -> None:
        self._console, self._folder = console, folder
        self._server = os.environ.get("JUPYTERHUB_SERVER_NAME", "")
        self._seen: set[int] | None = None
        self._watch: asyncio.Task[None] | None = None
        self.sshd: set[int] = set()  # those that run

    async def begin(self) -> None:
        """Have the first lines ready for a session that comes."""
        document = None
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST):
                document = await self._ask()
        text = first_lines(document, self._server)
        await asyncio.to_thread(self._keep, text)

    def _keep(self, text: str) -> None:
        new = self._folder / "motd.new"
        new.write_text(text, "utf-8")
        new.replace(self._folder / "motd")

    def add(self, pid: int) -> None:
        """An sshd has begun."""
        self.sshd.add(pid)
        if self._watch is None or self._watch.done():
            self._seen = None
            self._watch = asyncio.create_task(self._run())

    async def _ask(self) -> dict[str, Any] | None:
        if self._console is None:
            return None
        chinese = persons_language().startswith("zh")
        zone = os.environ.get("TZ", "UTC")
        cookies = f"labcommons-tz={zone}; labcommons-lang={'zh_CN' if chinese else 'en'}"
        try:
            status, document = await self._console.notices(cookies)
        except HTTPError:
            return None
        return document if status == 200 and isinstance(document, dict) else None

    async def _run(self) -> None:
        while self.sshd:
            document = await self._ask()
            if document is not None:
                with suppress(KeyError, TypeError, ValueError, AttributeError):
                    await self._tell(document)
            await asyncio.sleep(EVERY)

    async def _tell(self, document: dict[str, Any]) -> None:
        about = [one for one in document["notices"] if one["server"] in (None, self._server)]
        numbers = {int(one["id"]) for one in about}
        if self._seen is None:
            # What was told before is in JupyterLab and on the pages.
            self._seen = numbers
        new = [one for one in about if int(one["id"]) not in self._seen]
        self._seen |= numbers
        if new:
            places = await asyncio.to_thread(terminals, set(self.sshd))
            for one in reversed(new):
                at = time.strftime("%H:%M")
                write_to(places, f"{at} {one['sentence']}")
