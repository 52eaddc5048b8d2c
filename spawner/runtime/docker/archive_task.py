"""What makes a course's archive: ``pack`` reads its folder, ``seal`` signs and checks what came.

``python -I -m spawner.runtime.docker.archive_task /job/job.json``; it says how far it has come, and
last what came of it, each as a line of JSON. It runs as our services' user with the groups of the
course, and sees the course read-only. An archive is a tar in gzip: the course's files, what our
store knows of it (``records``), SHA256SUMS as sha256sum writes it, and at its end STATEMENT.json,
which has the digest of SHA256SUMS, with its signature. It has its name when all of it was read
again and found to be as it was written. Standard library alone.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import stat
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

COURSE, VERSIONS, ARCHIVES = Path("/course"), Path("/versions"), Path("/archives")
SUMS, STATEMENT, SIGNATURE = "SHA256SUMS", "STATEMENT.json", "STATEMENT.sig"
LEFT_OUT = "records/left-out.csv"
SECONDS = 12 * 3600  # for one of them
MOST_FILES = 2_000_000
RESERVE = 2**30  # bytes of the disk that stay free
LEVEL = 1  # of gzip: data is large, and seldom gets much smaller
OF_ENVIRONMENT = ("environment.yml", "labcommons.yml", "pixi.lock", "sbom.cdx.json", "version.json")
_NOT = ("envs",)  # environments: what they are made from is in the records
_PIECE = 2**20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WHY = {
    errno.ELOOP: "link",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.ENXIO: "special",
    errno.ENOENT: "gone",
}

Say = Callable[[dict[str, Any]], None]


class CannotError(Exception):
    """Why it cannot be made; ``why`` is disk, files, time or changed."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def sum_line(path: str, digest: str) -> str:
    """A line as ``sha256sum`` writes and reads it, whatever the name."""
    plain = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if plain == path else chr(92)}{digest}  {plain}\n"


class Packer:
    """Writes one tar, and keeps the sums of what goes into it."""

    def __init__(self, out: IO[bytes] | gzip.GzipFile, top: str, say: Say, until: float) -> None:
        self.out, self.top, self.say, self.until = out, top, say, until
        self.sums: list[str] = []
        self.left_out: list[tuple[str, str]] = []
        self.files = self.bytes = 0
        self._said = 0.0

    def text(self, path: str, data: bytes) -> None:
        """One of ours, with its sum."""
        self._put(path, data)
        self.sums.append(sum_line(path, hashlib.sha256(data).hexdigest()))

    def _put(self, path: str, data: bytes) -> None:
        self._header(path, len(data), time.time())
        self.out.write(data + b"\0" * (-len(data) % 512))

    def end(self, path: str, data: bytes) -> None:
        """What is not in the sums: they themselves, and what comes after."""
        self._put(path, data)

    def folder(self, path: str, mtime: float) -> None:
        """An entry for a folder, which may be empty."""
        self._header(path, 0, mtime, tarfile.DIRTYPE, 0o755)

    def file(self, fd: int, path: str) -> None:
        """What is open; no more and no less than it had at that moment."""
        found = os.fstat(fd)
        self._header(path, found.st_size, found.st_mtime)
        digest, left = hashlib.sha256(), found.st_size
        while left:
            piece = os.read(fd, min(left, _PIECE))
            if not piece:  # somebody cut it off meanwhile; the length was said before
                self.left_out.append((path, "changed"))
                piece = b"\0" * min(left, _PIECE)
            digest.update(piece)
            self.out.write(piece)
            left -= len(piece)
            self._count(len(piece))
        self.out.write(b"\0" * (-found.st_size % 512))
        self.files += 1
        self.sums.append(sum_line(path, digest.hexdigest()))

    def _header(
        self, path: str, size: int, mtime: float, kind: bytes = tarfile.REGTYPE, mode: int = 0o644
    ) -> None:
        entry = tarfile.TarInfo(f"{self.top}/{path}")
        entry.size, entry.mtime, entry.type, entry.mode = size, int(mtime), kind, mode
        self.out.write(entry.tobuf(tarfile.PAX_FORMAT, "utf-8"))

    def _count(self, size: int) -> None:
        self.bytes += size
        if time.monotonic() > self.until:
            raise CannotError("time")
        if time.monotonic() - self._said > 1:
            self._said = time.monotonic()
            self.say({"bytes": self.bytes, "files": self.files})


def walk(
    top: Path, left_out: list[tuple[str, str]]
) -> Iterator[tuple[str, os.stat_result, int | None]]:
    """What is below a folder, by name, following no link; of a file, a descriptor that is open.

    What is neither file nor folder, cannot be read, or has a name that is no text is left out.
    """
    for here, folders, files, fd in os.fwalk(top):
        inner = os.path.relpath(here, top)
        above = "" if inner == "." else f"{inner}/"
        if not above:
            folders[:] = [name for name in folders if name not in _NOT]
        folders[:] = [name for name in sorted(folders) if _is_text(above, name, left_out)]
        for name in list(folders):
            try:  # a walk into it would fail without a word
                inside = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=fd)
            except OSError as error:
                folders.remove(name)
                why = "link" if error.errno == errno.ENOTDIR else _WHY.get(error.errno or 0)
                left_out.append((above + name, why or "denied"))
                continue
            try:
                yield above + name, os.fstat(inside), None
            finally:
                os.close(inside)
        for name in (n for n in sorted(files) if _is_text(above, n, left_out)):
            try:
                opened = os.open(name, _OPEN, dir_fd=fd)
            except OSError as error:
                if error.errno not in _WHY:
                    raise
                left_out.append((above + name, _WHY[error.errno]))
                continue
            try:
                found = os.fstat(opened)
                if stat.S_ISREG(found.st_mode):
                    yield above + name, found, opened
                else:
                    left_out.append((above + name, "special"))
            finally:
                os.close(opened)


def _is_text(above: str, name: str, left_out: list[tuple[str, str]]) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        left_out.append((above + os.fsencode(name).decode("utf-8", "replace"), "name"))
        return False
    return True


def pack(words: dict[str, Any], say: Say) -> dict[str, Any]:
    """Everything but the signature, into a file that has not its name yet.

    Raises CannotError, OSError.
    """
    folder = ARCHIVES / words["course"]
    folder.mkdir(mode=0o750, exist_ok=True)
    for old in folder.glob(".*.part"):  # there is one at a time: of those that were killed
        old.unlink()
    count = total = 0
    ignored: list[tuple[str, str]] = []
    for _, found, fd in walk(COURSE, ignored):
        count += 1
        total += found.st_size if fd is not None else 0
    room = os.statvfs(ARCHIVES)
    if count > MOST_FILES:
        raise CannotError("files")
    if total + RESERVE > room.f_bavail * room.f_frsize:
        raise CannotError("disk")
    say({"all": total})
    with (folder / part_name(words)).open("wb") as raw:
        with gzip.GzipFile("", "wb", LEVEL, raw) as out:
            packer = Packer(out, words["top"], say, time.monotonic() + SECONDS)
            for path, text in sorted(words["texts"].items()):
                packer.text(path, text.encode())
            for name, version in words["environments"]:
                _environment(packer, name, version)
            for path, found, fd in walk(COURSE, packer.left_out):
                if fd is None:
                    packer.folder(path, found.st_mtime)
                else:
                    packer.file(fd, path)
            rows = [
                f'{why},"{path.replace(chr(34), chr(34) * 2)}"' for path, why in packer.left_out
            ]
            packer.text(LEFT_OUT, "\r\n".join(["why,path", *rows, ""]).encode())
            sums = "".join(packer.sums).encode()
            packer.end(SUMS, sums)
        raw.flush()
        os.fsync(raw.fileno())
        return {
            "packed": raw.tell(),
            "files": packer.files,
            "bytes": packer.bytes,
            "left_out": len(packer.left_out),
            "sums": hashlib.sha256(sums).hexdigest(),
        }


def _environment(packer: Packer, name: str, version: str) -> None:
    """What one version of an environment of the site was made from."""
    for file in OF_ENVIRONMENT:
        path = VERSIONS / name / version / file
        if path.is_file():
            packer.text(f"records/environments/{name}-{version}/{file}", path.read_bytes())


def part_name(words: dict[str, Any]) -> str:
    """Of one that is not whole."""
    return f".{words['id']}.part"


def seal(words: dict[str, Any], say: Say) -> dict[str, Any]:
    """Put statement and signature behind what was packed, read all of it, and give it its name.

    Raises CannotError, OSError.
    """
    folder = ARCHIVES / words["course"]
    part, final = folder / part_name(words), folder / words["name"]
    if final.exists() and not part.exists():
        return {"size": final.stat().st_size}
    try:
        raw = part.open("r+b")
    except FileNotFoundError as error:
        raise CannotError("changed") from error
    with raw:
        raw.truncate(words["packed"])
        raw.seek(words["packed"])
        with gzip.GzipFile("", "wb", LEVEL, raw) as out:
            packer = Packer(out, words["top"], say, 0)
            packer.end(STATEMENT, words["statement"].encode())
            packer.end(SIGNATURE, bytes.fromhex(words["signature"]))
            out.write(b"\0" * tarfile.RECORDSIZE)
        raw.flush()
        os.fsync(raw.fileno())
        size = raw.tell()
    with part.open("rb") as raw:
        read = check(raw, say)
    if read.wrong or read.statement != words["statement"].encode():
        raise CannotError("changed")
    part.chmod(0o440)
    part.rename(final)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return {"size": size}


class Read:
    """What was found in an archive; ``wrong``: sentences, empty where all is as it says."""

    def __init__(self) -> None:
        self.texts = {SUMS: b"", STATEMENT: b"", SIGNATURE: b""}
        self.met: dict[str, str] = {}  # lines of SHA256SUMS by the name in them
        self.wrong: list[str] = []

    @property
    def statement(self) -> bytes:
        """What is signed."""
        return self.texts[STATEMENT]

    def take(
        self, entry: tarfile.TarInfo, file: IO[bytes] | None, count: Callable[[int], None]
    ) -> None:
        """One entry; ``count`` is told how much was read of it."""
        name = entry.name.partition("/")[2]
        if file is None:
            if not entry.isdir():
                self.wrong.append(f"{entry.name[:200]!r} is neither a file nor a folder")
            return
        if name in self.texts:
            self.texts[name] = file.read(_MOST_TEXT)
            return
        digest = hashlib.sha256()
        while piece := file.read(_PIECE):
            digest.update(piece)
            count(len(piece))
        line = sum_line(name, digest.hexdigest())
        if _named(line) in self.met:
            self.wrong.append(f"{name[:200]!r} is there twice")
        self.met[_named(line)] = line

    def compare(self) -> None:
        """What was met, with the sums, and these with the statement."""
        sums = self.texts[SUMS]
        lines = sums.decode("utf-8", "replace").split("\n")
        listed = {_named(line): f"{line}\n" for line in lines if line}
        for name in sorted(self.met.keys() | listed.keys()):
            if name not in self.met:
                self.wrong.append(f"{name[:200]!r} is missing")
            elif self.met[name] != listed.get(name):
                self.wrong.append(f"{name[:200]!r} is not as it was when the archive was made")
        try:
            said = json.loads(self.statement)["sums"]
        except (ValueError, KeyError, TypeError):
            self.wrong.append("it has no statement: it was not finished, or cut off")
        else:
            if said != hashlib.sha256(sums).hexdigest():
                self.wrong.append("SHA256SUMS is not the one that was signed")


_MOST_TEXT = 2**29  # bytes of the sums


def check(raw: IO[bytes], say: Say | None = None) -> Read:
    """Read an archive from its beginning to its end, whoever made it, and lay nothing down."""
    found, told, done = Read(), time.monotonic(), 0

    def count(size: int) -> None:
        nonlocal told, done
        done += size
        if say and time.monotonic() - told > 1:
            told = time.monotonic()
            say({"checked": done})

    try:
        # Not tarfile's own gzip, which ends with the first of several parts.
        with gzip.GzipFile(fileobj=raw) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
            for entry in archive:
                found.take(entry, archive.extractfile(entry) if entry.isreg() else None, count)
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        found.wrong.append(f"it cannot be read to its end: {str(error)[:200]}")
    found.compare()
    return found


def _named(line: str) -> str:
    """The name in a line of SHA256SUMS, as it stands there."""
    return line.lstrip("\\")[66:].rstrip("\n")


def main() -> int:
    """Do it, and say what came of it."""

    def say(what: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    words = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    os.umask(0o022)
    try:
        say({"done": {"pack": pack, "seal": seal}[words["do"]](words, say)})
        return 0
    except CannotError as error:
        say({"failure": error.why})
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        say({"failure": "disk" if full else "failed", "detail": str(error)[:200]})
    with suppress(OSError):
        (ARCHIVES / words["course"] / part_name(words)).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
