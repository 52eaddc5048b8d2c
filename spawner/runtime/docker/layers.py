"""A packed folder, made fit to become a layer of an image.

Nothing of what was sent gets into a layer as it came: each entry is written anew, as root's, with
plain modes and of one time. What is neither file, folder nor link, lies outside, or would be
written through a link, ends the stream.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO

from spawner.runtime.docker.rules import against_rules

MOST_ENTRIES, MOST_BYTES, LONGEST_PATH = 2_000_000, 2**38, 4096
EPOCH = 1_704_067_200  # of all entries, so that the same files give the same layer
Write = Callable[[IO[bytes]], None]


@contextmanager
def piped(write: Write) -> Iterator[IO[bytes]]:
    """What ``write`` writes, to be read meanwhile; raises at the end what it has raised."""
    reader, writer = os.pipe()
    failures: list[Exception] = []

    def run() -> None:
        try:
            with os.fdopen(writer, "wb") as stream:
                write(stream)
        except BrokenPipeError:
            pass  # the reader has given up, and says why
        except Exception as error:  # or what was written until then would pass for all of it
            failures.append(error)

    thread = threading.Thread(target=run, name="layer", daemon=True)
    thread.start()
    try:
        with os.fdopen(reader, "rb") as stream:
            yield stream
    finally:
        thread.join()
        if failures:
            raise failures[0]


def rewrite(sent: IO[bytes], prefix: PurePosixPath, stream: IO[bytes]) -> None:
    """A packed folder as a layer with it at ``prefix``. Raises RuntimeRefused."""
    base = str(prefix).strip("/")
    folders: set[str] = set()
    others: set[str] = set()
    entries, left = 0, MOST_BYTES
    try:
        with (
            tarfile.open(fileobj=sent, mode="r|") as source,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as target,
        ):
            for above in reversed(PurePosixPath(base).parents[:-2]):
                target.addfile(_entry(str(above), tarfile.DIRTYPE, 0o755))
            for member in source:
                entries, left = entries + 1, left - member.size
                if entries > MOST_ENTRIES or left < 0:
                    raise against_rules("the environment is larger than an image may be")
                path = _path(member.name)
                _place(path, member, folders, others)
                name = posixpath.join(base, path) if path else base
                if member.isdir():
                    target.addfile(_entry(name, tarfile.DIRTYPE, 0o755))
                elif member.issym():
                    entry = _entry(name, tarfile.SYMTYPE, 0o777)
                    entry.linkname = member.linkname
                    target.addfile(entry)
                else:
                    mode = 0o755 if member.mode & 0o100 else 0o644
                    entry = _entry(name, tarfile.REGTYPE, mode)
                    entry.size = member.size
                    target.addfile(entry, source.extractfile(member))
                source.members = []  # type: ignore[attr-defined]  # it would keep them all
    except (tarfile.TarError, UnicodeError, ValueError, EOFError) as error:
        raise against_rules(f"what was sent is no tar of a folder ({str(error)[:80]})") from error
    if not folders:
        raise against_rules("nothing was sent")


def _path(name: str) -> str:
    """An entry's path in the folder; "" for the folder itself."""
    if "\0" in name or len(name) > LONGEST_PATH or name.startswith("/"):
        raise against_rules("an entry's path is none of a folder")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise against_rules("an entry's path leads out of the folder")
    return "/".join(parts)


def _place(path: str, member: tarfile.TarInfo, folders: set[str], others: set[str]) -> None:
    """Note where an entry goes: in a folder that was there before, in nothing's place."""
    if not (member.isdir() or member.issym() or member.isreg()) or member.issparse():
        raise against_rules("an entry is neither file, folder nor link")
    if path in folders or path in others:
        raise against_rules("an entry comes twice")
    if not path and not member.isdir():
        raise against_rules("the folder itself is none")
    if path and posixpath.dirname(path) not in folders:
        raise against_rules("an entry lies in what is no folder")
    if member.issym() and (not member.linkname or "\0" in member.linkname):
        raise against_rules("a link leads nowhere")
    (folders if member.isdir() else others).add(path)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, EPOCH
    entry.uname = entry.gname = "root"
    return entry
