"""What a snapshot's containers do: ``take`` reads a home, ``keep`` lays down what was read.

``python -I -m spawner.runtime.docker.snapshot WORDS`` with the words as one JSON object; the answer
is one JSON object. ``take`` runs with the numbers of the home's owner and sees that home alone, to
read; ``keep`` runs with the services' uid and the group of a course's leads, and sees no home. What
is between them is a manifest and one file with all contents, one after the other: nothing in it is
unpacked by anybody's rules but these. Standard library alone.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, BinaryIO

HOME, SPOOL, COURSE = Path("/home/of"), Path("/spool"), Path("/course")
DATA, MANIFEST, RECEIPT, FILES = "data", "manifest.json", "receipt.json", "files"
SECONDS = 540  # for one of them
MOST_DEPTH = 32
MOST_TOP = 5000  # folders that are named
MOST_LISTED, MOST_LOOKED = 1000, 100_000  # of one folder
MOST_LIST = 2**24  # bytes of the list of what is in a zip
_WRONG_ZIP = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError,
    struct.error, OverflowError,
)  # fmt: skip
_TAIL = 2**16 + 22 + 20  # of a zip, where its list is said
_PIECE = 2**20
# Neither a link at the end nor a pipe without a writer may hold it up, or lead it elsewhere.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LEFT_OUT = {
    errno.ELOOP: "link",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.ENXIO: "special",
    errno.ENOENT: "gone",
}


class RefusedError(Exception):
    """It cannot be taken as it is; ``why`` is one of ``spec.Refusal``."""

    def __init__(self, why: str, path: str = "") -> None:
        super().__init__(why)
        self.why, self.path = why, path[:300]


class GoneError(Exception):
    """What was taken is not there, or not whole: it has to be taken again."""


def canonical(plain: object) -> bytes:
    """The one way in which something is written that is hashed or signed."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode("ascii")


class Taker:
    """One walk. What is counted: all that is met, and the bytes that files claim to have."""

    def __init__(self, out: BinaryIO, most_files: int, most_bytes: int, until: float) -> None:
        self.out, self.most_files, self.most_bytes, self.until = out, most_files, most_bytes, until
        self.count = self.bytes = 0
        self.files: list[dict[str, Any]] = []
        self.folders: list[str] = []
        self.left_out: list[dict[str, str]] = []
        self._met: dict[str, bool] = {}  # of a zip: whether it is a folder, by path
        self._paths = 0

    def manifest(self) -> dict[str, Any]:
        """What was taken, by path, and what was not, and why."""
        return {
            "version": 1,
            "files": self.files,
            "folders": self.folders,
            "left_out": self.left_out,
        }

    def folder(self, fd: int, above: str, depth: int = 0) -> None:
        """All that is in a folder, by name."""
        if depth > MOST_DEPTH:
            raise RefusedError("depth", above)
        names = []
        with os.scandir(fd) as found:
            for one in found:
                self._meet()
                names.append(one.name)
        for name in sorted(names):
            path = f"{above}/{name}" if above else name
            if not _readable(name):
                raise RefusedError("name", path.encode("utf-8", "replace").decode())
            try:
                inner = os.open(name, _OPEN, dir_fd=fd)
            except OSError as error:
                if error.errno not in _LEFT_OUT:
                    raise
                self.left_out.append({"path": path, "why": _LEFT_OUT[error.errno]})
                continue
            try:
                self.entry(inner, path, depth)
            finally:
                os.close(inner)

    def entry(self, fd: int, path: str, depth: int = 0) -> None:
        """A file or folder that is open."""
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            self.folders.append(path)
            self.folder(fd, path, depth + 1)
        elif stat.S_ISREG(found.st_mode):
            self._file(fd, path, found.st_size)
        else:
            self.left_out.append({"path": path, "why": "special"})

    def zipped(self, fd: int, around: Collection[str]) -> None:
        """What is in a zip, whoever made it, as if it were a folder.

        A folder around all that has one of these names is left away.
        """
        with os.fdopen(os.dup(fd), "rb") as raw:
            try:
                entries, archive = _entries(raw)
                tops = {name.partition("/")[0] for name, _ in entries}
                inner = all("/" in name or entry.is_dir() for name, entry in entries)
                top = f"{min(tops)}/" if len(tops) == 1 and inner and tops <= {*around} else ""
                for name, entry in entries:
                    if path := name.removeprefix(top) if name != top.rstrip("/") else "":
                        self._zipped(archive, entry, path)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a place before its beginning
                    raise
                raise RefusedError("zip") from error
            except _WRONG_ZIP as error:
                raise RefusedError("zip") from error

    def _zipped(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: str) -> None:
        self._meet()
        parts = path.split("/")
        if len(parts) > MOST_DEPTH + 1:
            raise RefusedError("depth", path)
        if any(part in ("", ".", "..") or not _readable(part) for part in parts):
            raise RefusedError("name", path.encode("utf-8", "replace").decode())
        for above in ("/".join(parts[:n]) for n in range(1, len(parts))):
            self._once(above, folder=True)
        if stat.S_ISLNK(entry.external_attr >> 16):
            self.left_out.append({"path": path, "why": "link"})
        elif entry.is_dir():
            self._once(path, folder=True)
        elif not _plain(entry) or not self._once(path, folder=False):
            raise RefusedError("zip", path)
        else:
            self._unzip(archive, entry, path)

    def _once(self, path: str, folder: bool) -> bool:
        """Whether a path is new. Raises RefusedError where it was met as another kind."""
        before = self._met.setdefault(path, folder)
        new = len(self._met) > self._paths
        self._paths = len(self._met)
        if before is not folder:
            raise RefusedError("zip", path)
        if new and folder:
            self.folders.append(path)
        return new

    def _unzip(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: str) -> None:
        """No more than it says that it has."""
        if entry.file_size > self.most_bytes - self.bytes:
            raise RefusedError("bytes", path)
        digest, size = hashlib.sha256(), 0
        with archive.open(entry) as file:
            while piece := file.read(_PIECE):
                size += len(piece)
                if time.monotonic() > self.until:
                    raise RefusedError("time", path)
                if size > entry.file_size:
                    raise RefusedError("zip", path)
                digest.update(piece)
                self.out.write(piece)
        self.bytes += size
        self.files.append({"path": path, "bytes": size, "sha256": digest.hexdigest()})

    def _meet(self) -> None:
        self.count += 1
        if self.count > self.most_files:
            raise RefusedError("files")
        if time.monotonic() > self.until:
            raise RefusedError("time")

    def _file(self, fd: int, path: str, size: int) -> None:
        """No more than it had when it was opened, whoever writes to it meanwhile."""
        if size > self.most_bytes - self.bytes:
            raise RefusedError("bytes", path)
        digest, left = hashlib.sha256(), size
        while left and (piece := os.read(fd, min(left, _PIECE))):
            if time.monotonic() > self.until:
                raise RefusedError("time", path)
            digest.update(piece)
            self.out.write(piece)
            left -= len(piece)
        self.bytes += size - left
        self.files.append({"path": path, "bytes": size - left, "sha256": digest.hexdigest()})


def _readable(name: str) -> bool:
    """Whether a name is text, and shows all that it has."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return name.isprintable()


def _plain(entry: zipfile.ZipInfo) -> bool:
    """Whether it has no password, and is packed as all zips are."""
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return not entry.flag_bits & 1 and entry.compress_type in known


def _entries(raw: BinaryIO) -> tuple[list[tuple[str, zipfile.ZipInfo]], zipfile.ZipFile]:
    """Of a zip, by name, its list being no larger than is looked at. Raises RefusedError, …"""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - _TAIL))
    tail = raw.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + 22 > len(tail):
        raise RefusedError("zip")
    (listed,) = struct.unpack_from("<I", tail, end + 12)
    # The larger kind, for more files than are taken anyway, says its sizes elsewhere.
    if listed > MOST_LIST or tail[max(0, end - 20) : end].startswith(b"PK\x06\x07"):
        raise RefusedError("files")
    raw.seek(0)
    archive: zipfile.ZipFile
    try:  # names that do not say so are UTF-8 on a Mac, and what China's Windows has
        archive = zipfile.ZipFile(raw, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        raw.seek(0)
        archive = zipfile.ZipFile(raw, metadata_encoding="gb18030")
    found = [(one.filename.replace("\\", "/").rstrip("/"), one) for one in archive.infolist()]
    return sorted(found, key=lambda row: row[0]), archive


def take(words: dict[str, Any], home: Path = HOME, spool: Path = SPOOL) -> dict[str, Any]:
    """Read ``words["path"]`` of a home. Raises RefusedError, OSError."""
    parts = str(words["path"]).split("/")
    with (spool / DATA).open("wb") as out:
        taker = Taker(
            out, int(words["most_files"]), int(words["most_bytes"]), time.monotonic() + SECONDS
        )
        fd = os.open(home, _OPEN | os.O_DIRECTORY)
        try:
            for part in parts:
                above, fd = fd, _step(fd, part, words["path"])
                os.close(above)
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                taker.folder(fd, "")
            elif words.get("unzip") and parts[-1].lower().endswith(".zip"):
                taker.zipped(fd, {words["unzip"], parts[-1][:-4]})
            else:
                taker.entry(fd, parts[-1])
        finally:
            os.close(fd)
        out.flush()
        os.fsync(out.fileno())
    if not taker.files:
        raise RefusedError("special" if taker.left_out else "empty", words["path"])
    text = canonical(taker.manifest())
    with (spool / MANIFEST).open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    digest = hashlib.sha256(text).hexdigest()
    return {
        "digest": digest,
        "files": len(taker.files),
        "bytes": taker.bytes,
        "left_out": len(taker.left_out),
        "top": [path for path in taker.folders if "/" not in path][:MOST_TOP],
    }


def _step(fd: int, part: str, path: str) -> int:
    if part in ("", ".", ".."):
        raise RefusedError("absent", path)
    try:
        return os.open(part, _OPEN, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise RefusedError("absent", path) from error
        if error.errno in _LEFT_OUT:
            raise RefusedError(_LEFT_OUT[error.errno], path) from error
        raise


def listing(words: dict[str, Any], home: Path = HOME) -> dict[str, Any]:
    """What is directly in ``words["path"]`` of a home. Raises RefusedError, OSError."""
    fd = os.open(home, _OPEN | os.O_DIRECTORY)
    try:
        for part in filter(None, str(words["path"]).split("/")):
            above, fd = fd, _step(fd, part, words["path"])
            os.close(above)
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise RefusedError("absent", words["path"])
        rows, left_out = [], 0
        with os.scandir(fd) as found:
            for number, one in enumerate(found):
                if one.name.startswith("."):
                    continue
                try:
                    folder = one.is_dir(follow_symlinks=False)
                    plain = folder or one.is_file(follow_symlinks=False)
                    size = None if folder or not plain else one.stat(follow_symlinks=False).st_size
                except OSError:
                    plain = False
                if not plain or not _readable(one.name) or number >= MOST_LOOKED:
                    left_out += 1
                else:
                    rows.append({"name": one.name, "bytes": size})
    except PermissionError as error:
        raise RefusedError("denied", words["path"]) from error
    finally:
        os.close(fd)
    rows.sort(key=lambda row: (row["bytes"] is not None, row["name"]))
    left_out += max(0, len(rows) - MOST_LISTED)
    return {"files": rows[:MOST_LISTED], "left_out": left_out}


# -- the other side -------------------------------------------------------------------------------


def keep(words: dict[str, Any], spool: Path = SPOOL, course: Path = COURSE) -> dict[str, Any]:
    """Lay what was taken at ``area/place`` of a course, once, whole or not at all.

    ``leads``: the group that may read it. ``reader``: the uid that may read it, too; what an
    earlier call laid there for it is replaced. Raises GoneError, OSError, ValueError.
    """
    place, reader = str(words["place"]), words.get("reader")
    parts = place.split("/")
    final = course.joinpath(words["area"], *parts)
    if reader is None and _is_kept(final, words["digest"]):
        return {}
    try:
        text = (spool / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise GoneError from error
    if hashlib.sha256(text).hexdigest() != words["digest"]:
        raise GoneError
    here, leads = course, int(words["leads"])
    for part in (words["area"], *parts[:-1]):
        here = here / part
        if not here.is_dir():
            _folder(here, leads, 0o2750)
    readable = reader is None or _open_for(course / words["area"], parts[0], int(reader))
    new = final.parent / f".{words['id']}.new"
    shutil.rmtree(new, ignore_errors=True)
    _folder(new, leads, 0o2750)
    shown = 0o440 if reader is None else 0o444
    _lay(json.loads(text), spool / DATA, new / FILES, str(words.get("only", "")), shown)
    if words.get("receipt"):
        noted = {**words["receipt"], "manifest": json.loads(text)}
        _write(new / RECEIPT, canonical(noted), shown)
    if reader is not None:
        for inner, _, _ in os.walk(new):
            os.chmod(inner, 0o755)  # noqa: S103  (the folder above is shut to others)
        old = final.parent / f".{words['id']}.old"
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        new.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        new.rename(final)
    _sync(final.parent)
    return {"readable": readable}


def _is_kept(final: Path, digest: str) -> bool:
    try:
        noted = json.loads((final / RECEIPT).read_bytes())
    except FileNotFoundError:
        return False
    if hashlib.sha256(canonical(noted["manifest"])).hexdigest() != digest:
        raise ValueError("something else is there already")
    return True


def _lay(manifest: dict[str, Any], data: Path, target: Path, only: str, mode: int) -> None:
    """The files of a manifest from the one file that has their contents."""
    target.mkdir(0o750)
    start = f"{only}/" if only else ""
    for path in manifest["folders"]:
        if path.startswith(start) and path != start:
            _below(target, path.removeprefix(start)).mkdir(0o750, parents=True, exist_ok=True)
    with data.open("rb") as contents:
        for one in manifest["files"]:
            if not one["path"].startswith(start):
                contents.seek(one["bytes"], os.SEEK_CUR)
                continue
            path = _below(target, one["path"].removeprefix(start))
            path.parent.mkdir(0o750, parents=True, exist_ok=True)
            _copy(contents, path, one, mode)


def _below(target: Path, path: str) -> Path:
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ValueError("a path that leads elsewhere")
    return target.joinpath(*parts)


def _copy(contents: BinaryIO, path: Path, one: dict[str, Any], mode: int) -> None:
    digest, left = hashlib.sha256(), int(one["bytes"])
    with path.open("xb") as file:
        while left:
            piece = contents.read(min(left, _PIECE))
            if not piece:
                raise GoneError
            digest.update(piece)
            file.write(piece)
            left -= len(piece)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != one["sha256"]:
        raise GoneError
    path.chmod(mode)


def _write(path: Path, text: bytes, mode: int) -> None:
    with path.open("xb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(mode)


def _folder(path: Path, leads: int, mode: int) -> None:
    """Nobody's but ours until it has its group."""
    path.mkdir(0o700)
    os.chown(path, -1, leads)
    path.chmod(mode)


def _open_for(area: Path, name: str, reader: int) -> bool:
    """Let one person into a folder of their own; whether the file system has lists of rights.

    Who is in the course comes through the area, and sees no names in it.
    """
    area.chmod(0o2751)
    none = 0xFFFFFFFF
    rows = ((0x01, 7, none), (0x02, 5, reader), (0x04, 5, none), (0x10, 5, none), (0x20, 0, none))
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)
    try:
        os.setxattr(area / name, "system.posix_acl_access", packed)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EINVAL):
            return False
        raise
    return True


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def main() -> int:
    """Do it, and say what came of it."""
    words = json.loads(sys.argv[1])
    works: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]
    works = {"take": take, "keep": keep, "list": listing}
    os.umask(0o022)
    try:
        said = works[words["do"]](words)
    except RefusedError as error:
        said = {"refusal": error.why, "path": error.path}
    except GoneError:
        said = {"gone": True}
    except (OSError, ValueError) as error:
        said = {"failure": (getattr(error, "strerror", None) or str(error))[:200]}
    sys.stdout.write(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
