"""What a conda package must be before anybody sees it: read to its end, nothing of it unpacked.

It is read as conda and rattler do, and what they could read differently is refused: a name twice,
a part beside those that a ``.conda`` has, files of ``info/`` in the other archive, a path through
a link. It works in a process of its own (``child``), with limits of memory and time.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from pathlib import Path
from typing import IO, Any

from packaging.utils import canonicalize_name

from commons.errors import BadRequest
from commons.messages import Message
from commons.units import amount
from environments.channel_names import SUBDIR
from environments.messages import channels as texts
from kernels.hostile import parse_json

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdError, ZstdFile
else:
    from backports.zstd import ZstdError, ZstdFile

FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!-]{0,199}\.(conda|tar\.bz2)")
_FIELDS = {
    "name": re.compile(r"[a-z0-9_][a-z0-9_.-]{0,99}"),
    "version": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!]{0,99}"),
    "build": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+]{0,99}"),
    "subdir": SUBDIR,
}
_NOARCH = (None, "python", "generic")
_METADATA = re.compile(r"[^\n]*\.dist-info/METADATA")
_INDEX, _INFO = "info/index.json", "info/"
_LISTS = frozenset({"info/paths.json", "info/files"})  # of what is in it; none installs without
_MAX_INDEX, _MAX_METADATA = 2**20, 2**16  # bytes
_MAX_LISTS, _MAX_SPEC = 2000, 500  # match specs of a package; characters of one
_MAX_TIME = 2**53  # milliseconds, and JavaScript's largest number
_MAX_DISTRIBUTIONS = 500
_PIECE = 2**20
# Between two parts of a zip: what tells a part's size where that came after it.
_DESCRIPTOR = 24
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, ZstdError, EOFError, OSError, ValueError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


class NotTaken(BadRequest):
    """A package is not as it must be; the message says in what, and what to do."""


@dataclass(frozen=True)
class Limits:
    """How much a package may hold: entries of its archives, and bytes when unpacked."""

    entries: int
    unpacked: int


@dataclass(frozen=True)
class Found:
    """A package that is as it must be.

    Attributes:
        index: its ``info/index.json``.
        distributions: what Python knows of it by: names and versions.
    """

    index: dict[str, Any]
    sha256: str
    size: int
    distributions: tuple[tuple[str, str], ...] = ()


@dataclass
class _Count:
    """How much has been seen of one package."""

    file: str
    limits: Limits
    entries: int = 0
    bytes: int = 0
    names: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)

    def more(self, size: int) -> None:
        self.bytes += size
        if self.bytes > self.limits.unpacked:
            raise NotTaken(texts.TOO_MUCH(file=self.file, most=amount(self.limits.unpacked)))


class _Counted(io.RawIOBase):
    """Counts what comes out of a decompressor, whatever a tar's headers say."""

    def __init__(self, inner: IO[bytes], count: _Count) -> None:
        super().__init__()
        self._inner, self._count = inner, count

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._count.limits.unpacked:
            size = _PIECE
        piece = self._inner.read(size)
        self._count.more(len(piece))
        return piece


def inspect(path: Path, file: str, limits: Limits) -> Found:
    """Read a package that shall be called ``file`` to its end. Raises NotTaken."""
    if not FILE.fullmatch(file):
        raise NotTaken(texts.FILE_NAME(file=file[:200]))
    count = _Count(file, limits)
    seen: dict[str, bytes] = {}
    try:
        for name, parts in _tars(path, count):
            _read(name, parts, count, seen)
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            size = opened.tell()
    except _BROKEN as error:
        raise NotTaken(texts.NO_ARCHIVE(file=file)) from error
    if not count.names & _LISTS:
        raise NotTaken(texts.LAYOUT(file=file, reason=texts.NO_PATHS()))
    return Found(_index(file, seen.get(_INDEX)), digest, size, _distributions(seen))


# The archives ------------------------------------------------------------------------------------


def _tars(path: Path, count: _Count) -> Iterator[tuple[str, tarfile.TarFile]]:
    """The tars of a package, with what each is: ``info``, ``pkg``, or ``both``."""
    if count.file.endswith(".tar.bz2"):
        with path.open("rb") as file, bz2.open(file) as stream, _tar(stream, count) as tar:
            yield "both", tar
        return
    stem = count.file.removesuffix(".conda")
    with zipfile.ZipFile(path) as archive:
        entries = _parts(archive, stem, count)
        for kind in ("info", "pkg"):
            with (
                archive.open(entries[f"{kind}-{stem}.tar.zst"]) as part,
                ZstdFile(part) as frames,
                _tar(frames, count) as tar,
            ):
                yield kind, tar


@contextmanager
def _tar(stream: Any, count: _Count) -> Iterator[tarfile.TarFile]:
    with tarfile.open(fileobj=_Counted(stream, count), mode="r|") as tar:
        yield tar
        while stream.read(_PIECE):  # to the end: a checksum may be wrong, more may follow
            count.more(_PIECE)


def _parts(archive: zipfile.ZipFile, stem: str, count: _Count) -> dict[str, zipfile.ZipInfo]:
    """The three parts of a ``.conda``. Raises NotTaken where it has others, or room for others."""
    wanted = {"metadata.json", f"info-{stem}.tar.zst", f"pkg-{stem}.tar.zst"}
    entries = archive.infolist()
    if len(entries) != len(wanted) or {entry.filename for entry in entries} != wanted:
        raise NotTaken(texts.LAYOUT(file=count.file, reason=texts.PARTS()))
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if not 0 <= entry.header_offset - end <= (_DESCRIPTOR if end else 0):
            raise NotTaken(texts.LAYOUT(file=count.file, reason=texts.PARTS()))
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise NotTaken(texts.LAYOUT(file=count.file, reason=texts.PARTS()))
        end = _end(archive, entry)
    if not 0 <= archive.start_dir - end <= _DESCRIPTOR:
        raise NotTaken(texts.LAYOUT(file=count.file, reason=texts.PARTS()))
    return {entry.filename: entry for entry in entries}


def _end(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """Where a part's data ends: its own header tells how long that is."""
    file: Any = archive.fp
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) != 30:
        raise zipfile.BadZipFile("truncated")
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return entry.header_offset + 30 + names + entry.compress_size


def _read(kind: str, tar: tarfile.TarFile, count: _Count, seen: dict[str, bytes]) -> None:
    for member in tar:
        count.entries += 1
        if count.entries > count.limits.entries:
            entries = texts.ENTRIES(count=count.limits.entries)
            raise NotTaken(texts.TOO_MUCH(file=count.file, most=entries))
        name = _name(member, count)
        inside = (name + "/").startswith(_INFO)
        if kind != "both" and inside != (kind == "info"):
            raise NotTaken(texts.LAYOUT(file=count.file, reason=texts.PARTS()))
        if member.isfile() and (name == _INDEX or _METADATA.fullmatch(name)):
            if name != _INDEX and len(seen) > _MAX_DISTRIBUTIONS:
                continue
            most = _MAX_INDEX if name == _INDEX else _MAX_METADATA
            stream = tar.extractfile(member)
            seen[name] = stream.read(most + 1) if stream else b""


def _name(member: tarfile.TarInfo, count: _Count) -> str:
    """Where a member goes. Raises NotTaken where that is no place in an environment."""
    raw, file = member.name, count.file
    name = raw.removeprefix("./").rstrip("/")
    parts = name.split("/")
    if name in ("", ".") and member.isdir():
        return "."
    if (
        raw.startswith("/")
        or {"", ".", ".."} & set(parts)
        or any(character in raw for character in "\0\n\r\\")
        or len(raw) > 1000
    ):
        raise NotTaken(texts.OUTSIDE(file=file, path=_shown(raw)))
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise NotTaken(texts.DEVICE(file=file, path=_shown(raw)))
    if member.mode & 0o6000 and member.isfile():
        raise NotTaken(texts.SETUID(file=file, path=_shown(raw)))
    above = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    if above & count.links:
        raise NotTaken(texts.OUTSIDE(file=file, path=_shown(raw)))
    if member.issym() and not _stays(parts, member.linkname):
        target = _shown(member.linkname)
        raise NotTaken(texts.LINK_OUTSIDE(file=file, path=_shown(raw), target=target))
    if member.islnk() and member.linkname.removeprefix("./") not in count.names:
        target = _shown(member.linkname)
        raise NotTaken(texts.LINK_OUTSIDE(file=file, path=_shown(raw), target=target))
    if not member.isdir():
        if name in count.names:
            raise NotTaken(texts.TWICE(file=file, path=_shown(raw)))
        count.names.add(name)
    if member.issym():
        # What was put below it before would have become the folder of another one.
        if any(other.startswith(f"{name}/") for other in count.names):
            raise NotTaken(texts.OUTSIDE(file=file, path=_shown(raw)))
        count.links.add(name)
    return name


def _stays(parts: list[str], target: str) -> bool:
    """Whether a link leads to a place in the environment, whatever other links are on its way.

    ``..`` comes first, if at all: behind a name that is a link, it would lead elsewhere.
    """
    steps = target.split("/")
    ups = 0
    while ups < len(steps) and steps[ups] == "..":
        ups += 1
    return (
        bool(target)
        and not target.startswith("/")
        and ".." not in steps[ups:]
        and ups < len(parts)
        and not any(character in target for character in "\0\n\r\\")
        and len(target) <= 1000
    )


def _shown(path: str) -> str:
    return path[:200].encode("ascii", "backslashreplace").decode()


# What it says of itself --------------------------------------------------------------------------


def _index(file: str, raw: bytes | None) -> dict[str, Any]:
    """A package's index.json, which agrees with the file's name. Raises NotTaken."""
    try:
        index = parse_json(raw or b"", _MAX_INDEX, depth=6, values=20_000)
    except ValueError as error:
        raise NotTaken(texts.LAYOUT(file=file, reason=texts.NO_INDEX())) from error
    if not isinstance(index, dict):
        raise NotTaken(texts.LAYOUT(file=file, reason=texts.NO_INDEX()))
    for key, pattern in _FIELDS.items():
        if not isinstance(index.get(key), str) or not pattern.fullmatch(index[key]):
            raise _no_field(file, key)
    stem = "-".join(index[key] for key in ("name", "version", "build"))
    if file not in (f"{stem}.conda", f"{stem}.tar.bz2"):
        raise NotTaken(texts.OTHER_NAME(file=file, inside=stem))
    if not _whole(index.get("build_number"), 2**31):
        raise _no_field(file, "build_number")
    if index.get("noarch") not in _NOARCH or (index["subdir"] == "noarch") != bool(
        index.get("noarch")
    ):
        raise _no_field(file, "noarch")
    if "timestamp" in index and not _whole(index["timestamp"], _MAX_TIME):
        raise _no_field(file, "timestamp")
    for key in ("license", "license_family", "features", "track_features"):
        if index.get(key) is not None and not (
            isinstance(index[key], str) and len(index[key]) <= _MAX_SPEC
        ):
            raise _no_field(file, key)
    _specs(file, index)
    return index


def _specs(file: str, index: Mapping[str, Any]) -> None:
    """What it needs: one line that no solver can read would be everybody's trouble."""
    from rattler import MatchSpec, Version

    try:
        Version(index["version"])
    except Exception as error:
        raise _no_field(file, "version") from error
    for key in ("depends", "constrains"):
        specs = index.get(key, [])
        if not isinstance(specs, list) or len(specs) > _MAX_LISTS:
            raise _no_field(file, key)
        for spec in specs:
            if not isinstance(spec, str) or len(spec) > _MAX_SPEC:
                raise _no_field(file, key)
            try:
                MatchSpec(spec)
            except Exception as error:
                raise _no_field(file, f"{key}: {spec[:100]}") from error


def _whole(number: object, most: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < most


def _no_field(file: str, key: str) -> NotTaken:
    field: Message = texts.FIELD(field=key)
    return NotTaken(texts.LAYOUT(file=file, reason=field))


def _distributions(seen: Mapping[str, bytes]) -> tuple[tuple[str, str], ...]:
    found = set()
    for name, raw in seen.items():
        if name != _INDEX:
            said = BytesParser().parsebytes(raw, headersonly=True)
            if said["Name"] and said["Version"]:
                found.add((canonicalize_name(str(said["Name"])[:200]), str(said["Version"])[:100]))
    return tuple(sorted(found))
