"""Server extension: a notebook is sent to somebody, and one that was sent is opened.

Both are done by the person's own server, as the person: it reads what they may read, and what was
sent is written as their file, beside what is there, and never trusted.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import zlib
from asyncio import to_thread
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
from jupyter_core.utils import ensure_async
from labcommons_notices import Base
from tornado.web import HTTPError, authenticated

from kernels.messages import persons_language, say

FOLDER = "inbox"
MOST = 8 * 2**20  # bytes of a notebook's text
MOST_READ = 256 * 2**20  # bytes of a file whose outputs are left out
MOST_SENT = 1_400_000  # bytes of it as it goes to the console
NAME = re.compile(r"[^/\\\x00-\x1f\x7f.][^/\\\x00-\x1f\x7f]{0,149}\.ipynb")


# What can go wrong here. The words that people read are the console's, by these codes (``WORDS`` in
# its notice_api); English where it does not answer.
FAULTS = {
    "not_a_notebook_file": (400, "Only notebooks can be sent, and this file is none."),
    "too_large": (413, "The notebook is too large."),
    "too_large_to_read": (413, "The file is too large to be read as a notebook."),
    "inbox_unusable": (409, "The folder “inbox” in your home cannot be written to."),
    "too_many_copies": (409, "There are too many copies of this notebook in “inbox”."),
}


class Fault(Exception):
    """One of ``FAULTS``."""


class Sends(Base):
    """What both ways have in common."""

    def fail(self, fault: Fault) -> None:
        """Code and words, for the browser."""
        code = str(fault)
        status, words = FAULTS[code]
        self.set_status(status)
        self.finish(json.dumps({"message": words, "code": code}))


class Send(Sends):
    """``POST labcommons/send`` with ``{"path", "to", "outputs"}``."""

    @authenticated
    async def post(self) -> None:
        """Read it as it is on disk, and hand it to the console."""
        body = self.get_json_body() or {}
        path, to = str(body.get("path", "")), str(body.get("to", "")).strip()
        bare = body.get("outputs") is False
        try:
            place = Path(self.contents_manager.root_dir, path.lstrip("/"))
            packed = await to_thread(pack, place, bare)
        except Fault as fault:
            return self.fail(fault)
        self.give(
            await self.console.ask(
                "POST",
                "inbox",
                self.cookies(),
                {
                    "to": to,
                    "name": place.name,
                    "environment": os.environ.get("LABCOMMONS_ENVIRONMENT", ""),
                    "notebook": packed,
                },
            )
        )
        return None


def pack(place: Path, bare: bool) -> str:
    """A notebook as it goes to the console; ``bare``: without its outputs. Raises Fault.

    The file is its owner's, who may have put anything there: what is no plain file is not waited
    for, and no more is read than fits.
    """
    most = MOST_READ if bare else MOST
    try:
        file = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise Fault("not_a_notebook_file") from error
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode) or place.suffix != ".ipynb":
            raise Fault("not_a_notebook_file")
        if facts.st_size > most:
            raise Fault("too_large_to_read" if bare else "too_large")
        with open(file, "rb", closefd=False) as source:
            raw = source.read(most + 1)
    finally:
        os.close(file)
    try:
        notebook = nbformat.reads(raw.decode(), as_version=4)
    except Exception as error:  # what nbformat raises for what is none, it says nowhere
        raise Fault("not_a_notebook_file") from error
    if bare:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
    packed = base64.b64encode(zlib.compress(json.dumps(notebook).encode())).decode("ascii")
    if len(packed) > MOST_SENT:
        raise Fault("too_large_to_read" if bare else "too_large")
    return packed


class Open(Sends):
    """``POST labcommons/inbox/ID/open``."""

    @authenticated
    async def post(self, number: str) -> None:
        """Write a copy to ``inbox/``, take it from what waits, and say where it is.

        ``missing`` is what this server lacks of what it was made with: its environment, its kernel.
        """
        status, sent = await self.console.ask("GET", f"inbox/{number}", self.cookies())
        if status != 200:
            return self.give((status, sent))
        name = str(sent["name"])
        if not NAME.fullmatch(name):
            raise HTTPError(502, say("sent_name_wrong").in_words(persons_language()))
        try:
            root = Path(self.contents_manager.root_dir)
            path = await to_thread(write, root, name, str(sent["notebook"]))
        except Fault as fault:
            return self.fail(fault)
        self.console.forget()
        # Where that fails it waits on, which costs nobody anything.
        with suppress(HTTPError):
            await self.console.ask("DELETE", f"inbox/{number}", self.cookies())
        kernels = await ensure_async(self.kernel_spec_manager.get_all_specs())
        wanted = json.loads(sent["notebook"]).get("metadata", {}).get("kernelspec", {})
        spec = wanted if isinstance(wanted, dict) else {}
        kernel, mine = str(spec.get("name", "")), os.environ.get("LABCOMMONS_ENVIRONMENT", "")
        other = kernel.startswith("conda-image-") and sent["environment"] != mine
        missing = "environment" if other else "" if kernel in kernels else "kernel"
        self.finish(
            json.dumps(
                {
                    "path": path,
                    "missing": missing,
                    "environment": sent["environment"],
                    "kernel": str(spec.get("display_name") or kernel)[:200],
                    "sender": sent["sender"],
                }
            )
        )
        return None


class Refuse(Base):
    """``POST labcommons/inbox/refused``."""

    @authenticated
    async def post(self) -> None:
        """Hand it on."""
        body = self.get_json_body() or {}
        self.console.forget()
        self.give(await self.console.ask("POST", "inbox/refused", self.cookies(), body))


def write(root: Path, name: str, text: str) -> str:
    """A new file in the inbox, for its owner alone; its path below ``root``. Raises Fault."""
    folder = root / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise Fault("inbox_unusable") from error
    # A file's name has at most 255 bytes, and a Chinese sign is three.
    stem = name[:-6].encode()[: 255 - len("-999.ipynb")].decode(errors="ignore")
    try:
        for count in range(1000):
            new = f"{stem}-{count}.ipynb" if count else f"{stem}.ipynb"
            try:
                file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=inside)
            except FileExistsError:
                continue
            except OSError as error:
                raise Fault("inbox_unusable") from error
            try:
                with open(file, "w", encoding="utf-8") as out:
                    out.write(text)
            except OSError as error:  # such as a disk that is full
                with suppress(OSError):
                    os.unlink(new, dir_fd=inside)
                raise Fault("inbox_unusable") from error
            return f"{FOLDER}/{new}"
    finally:
        os.close(inside)
    raise Fault("too_many_copies")


def handlers(here: str, arguments: dict[str, Any]) -> list[tuple[str, type, dict[str, Any]]]:
    """Addresses below ``here``."""
    return [
        (here + "send", Send, arguments),
        (here + r"inbox/([0-9]{1,9})/open", Open, arguments),
        (here + "inbox/refused", Refuse, arguments),
    ]
