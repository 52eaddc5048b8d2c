"""One channel on the disk: packages that are written once, and the index that they are seen by.

``current`` leads to a generation: a folder with all packages, the index of them, and a note who
put which there. A change makes the next one beside it, of hard links, and then the link leads
there. So who reads sees one or the other, and a change that is killed leaves nothing behind that
anybody sees; what it left on the disk is mended by the next one. There are two folders, which take
turns: who was on the way into the one before still finds its packages there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from commons.errors import BadRequest, LabError, NotAvailable
from commons.site import Channels
from commons.units import amount
from environments.channels.inspect import FILE, Found
from environments.errors import BuildError
from environments.messages import channels as texts
from environments.own_channels import CURRENT, FOLDER

NOTES = "packages.json"
INCOMING = ".incoming"
MAX_REASON = 500  # characters
WAIT = 120.0  # seconds for who changes the channel at the moment
_POLL = 0.05  # seconds
_YOUNG = 60.0  # seconds: what has just been made is not locked yet
_NAMES = ("a", "b")  # generations take turns
_SHARDS, _INDEX = "shards", "repodata.json"
# (folder, what is withdrawn by subdir): makes the index of a generation. Raises BuildError.
Index = Callable[[Path, Mapping[str, list[str]]], None]


class NoRoom(NotAvailable):
    """The disk is full."""

    status = 507


class Unindexed(NotAvailable):
    """The index could not be made; the channel is as it was."""

    status = 503


class NoPackage(LabError):
    """There is no such package."""

    status = 404


@dataclass(frozen=True)
class Kept:
    """A package of a channel: what it is, and who put it there when.

    Attributes:
        at, yanked_at: UTC, in ISO 8601.
        yanked: why it is withdrawn; "" where it is not.
    """

    file: str
    subdir: str
    name: str
    version: str
    build: str
    sha256: str
    size: int
    by: str
    at: str
    license: str = ""
    yanked: str = ""
    yanked_by: str = ""
    yanked_at: str = ""

    @property
    def path(self) -> str:
        """Below the channel."""
        return f"{self.subdir}/{self.file}"


def now() -> str:
    """The moment, as notes say it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Shelf:
    """One channel's folder. Its methods wait for the disk, and belong in a thread."""

    def __init__(self, data: Path, channel: str, index: Index, limits: Channels) -> None:
        self.channel, self.limits, self._index = channel, limits, index
        self.folder = data / FOLDER / channel

    def packages(self) -> list[Kept]:
        """All, withdrawn ones too, the newest first. Raises OSError, ValueError."""
        return sorted(self._notes().values(), key=lambda kept: (kept.at, kept.path), reverse=True)

    def _notes(self) -> dict[str, Kept]:
        try:
            raw = (self.folder / CURRENT / NOTES).read_bytes()
        except FileNotFoundError:
            return {}
        return {kept.path: kept for kept in (Kept(**one) for one in json.loads(raw)["packages"])}

    @contextmanager
    def incoming(self) -> Iterator[IO[bytes]]:
        """A file for what is sent, which is gone afterwards unless it was added.

        It is locked while somebody writes it: what is not was left by one who was killed.
        Raises NoRoom.
        """
        with room():
            place = self.folder / INCOMING
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place, prefix="p-", delete=False) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                try:
                    yield file
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(file.name)

    def add(self, sent: Path, file: str, found: Found, by: str) -> tuple[Kept, bool]:
        """Take on a package that was checked; whether it is new. It is seen when this returns.

        Raises NotAvailable (there with other bytes; the channel is full, or busy), NoRoom,
        Unindexed.
        """
        index = found.index
        kept = Kept(
            file,
            index["subdir"],
            index["name"],
            index["version"],
            index["build"],
            found.sha256,
            found.size,
            by,
            now(),
            str(index.get("license") or "")[:200],
        )
        with self._alone():
            notes = self._notes()
            if (there := notes.get(kept.path)) is not None and there.sha256 == kept.sha256:
                return there, False
            if there is not None or _stem(kept.path) in map(_stem, notes):
                raise NotAvailable(texts.OTHER_BYTES(file=file))
            size = sum(one.size for one in notes.values())
            if size + kept.size > self.limits.size_bytes:
                limit = amount(self.limits.size_bytes)
                raise NotAvailable(
                    texts.CHANNEL_FULL(channel=self.channel, size=amount(size), most=limit)
                )
            self._change({**notes, kept.path: kept}, {kept.path: sent})
        return kept, True

    def yank(self, path: str, reason: str, by: str) -> tuple[Kept, bool]:
        """Withdraw a package: who has its lock still gets it, and nobody else; whether it was not.

        Raises NoPackage, BadRequest, and as ``add`` does.
        """
        reason = " ".join(reason.split())
        if not reason or len(reason) > MAX_REASON:
            raise BadRequest(texts.NO_REASON())
        return self._decide(path, reason, by)

    def restore(self, path: str, by: str) -> tuple[Kept, bool]:
        """Take a withdrawal back. Raises as ``yank`` does."""
        return self._decide(path, "", by)

    def _decide(self, path: str, reason: str, by: str) -> tuple[Kept, bool]:
        with self._alone():
            notes = self._notes()
            if (kept := notes.get(path)) is None:
                raise NoPackage(texts.NO_PACKAGE(channel=self.channel, file=path[:200]))
            if kept.yanked == reason:
                return kept, False
            at = now() if reason else ""
            kept = replace(kept, yanked=reason, yanked_by=by if reason else "", yanked_at=at)
            self._change({**notes, path: kept})
        return kept, True

    # -- generations -----------------------------------------------------------------------------

    def _change(self, notes: Mapping[str, Kept], more: Mapping[str, Path] | None = None) -> None:
        """Make the next generation of these packages, and have it seen.

        It is made of the one before the last, where little is missing: thousands of links that are
        made and removed each time take longer than all the rest.
        """
        current = self.folder / CURRENT
        there = current.resolve() if current.is_symlink() else None
        new = self.folder / next(name for name in _NAMES if there is None or there.name != name)
        yanked: dict[str, list[str]] = {}
        for kept in notes.values():
            if kept.yanked:
                yanked.setdefault(kept.subdir, []).append(kept.file)
        with room():
            _lay(notes, new, there, more or {}, yanked)
            _begin_index(there, new)
            try:
                self._index(new, yanked)
            except BuildError as error:
                raise Unindexed(texts.NOT_INDEXED(reason=error.message)) from error
            _lay(notes, new, there, more or {}, {})
            if there is not None:
                _keep_shards(there, new)
            _write(new / NOTES, notes)
            _settle(new)
            link = self.folder / f".{CURRENT}"
            link.unlink(missing_ok=True)
            link.symlink_to(new.name)
            os.replace(link, current)
            _sync(self.folder)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait for whoever changes the channel, then clear away what others left. Raises BUSY."""
        with room():
            self.folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        # Not for others, who could hold it for ever (builders see this folder).
        descriptor = os.open(self.folder / ".lock", flags, 0o600)
        try:
            deadline = time.monotonic() + WAIT
            while not _lock(descriptor):
                if time.monotonic() > deadline:
                    raise NotAvailable(texts.BUSY())
                time.sleep(_POLL)
            self._sweep()
            yield
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        """Remove what was sent by who was killed before it had come whole."""
        for path in (self.folder / INCOMING).glob("p-*"):
            with suppress(OSError), path.open("rb") as file:
                old = time.time() - path.stat().st_mtime > _YOUNG
                if old and _lock(file.fileno()):
                    path.unlink()


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lay(
    notes: Mapping[str, Kept],
    new: Path,
    there: Path | None,
    more: Mapping[str, Path],
    without: Mapping[str, list[str]],
) -> None:
    """Have exactly these packages in a generation.

    What is there already may be of a change that was killed, and of another file of that name.
    """
    left = {path.name for path in new.iterdir() if path.is_dir()} if new.is_dir() else set()
    for subdir in left | {kept.subdir for kept in notes.values()}:
        (new / subdir).mkdir(parents=True, exist_ok=True)
        hidden = set(without.get(subdir, ()))
        wanted = {k.file for k in notes.values() if k.subdir == subdir and k.file not in hidden}
        right = _packages(there / subdir) if there is not None else {}
        for file, number in _packages(new / subdir).items():
            if file not in wanted or right.get(file) != number:
                (new / subdir / file).unlink()
            else:
                wanted.remove(file)
        for file in wanted:
            source = more.get(f"{subdir}/{file}") or Path(str(there), subdir, file)
            source.chmod(0o644)
            os.link(source, new / subdir / file)


def _begin_index(there: Path | None, new: Path) -> None:
    """The index before, by which py-rattler knows what it need not read again."""
    for path in new.glob(f"*/{_INDEX}"):
        path.unlink()
    for path in there.glob(f"*/{_INDEX}") if there is not None else ():
        target = new / path.parent.name / _INDEX
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _packages(folder: Path) -> dict[str, int]:
    """The packages in a folder, and the numbers of their files."""
    try:
        with os.scandir(folder) as found:
            return {one.name: one.inode() for one in found if FILE.fullmatch(one.name)}
    except FileNotFoundError:
        return {}


def _keep_shards(there: Path, new: Path) -> None:
    """Parts of earlier indexes: who has such a one asks for them. They are named by their hash."""
    for folder in there.glob(f"*/{_SHARDS}"):
        target = new / folder.relative_to(there)
        if target.is_dir():
            for shard in folder.iterdir():
                with suppress(FileExistsError):
                    os.link(shard, target / shard.name)


def _settle(folder: Path) -> None:
    """For everybody to read, and on the disk. Packages are on it already (``taking``)."""
    shutil.rmtree(folder / ".tmp", ignore_errors=True)  # py-rattler's
    folder.chmod(0o755)
    for path in (one for one in folder.iterdir() if one.is_dir()):
        for file in (path, *path.glob("repodata*"), path / _SHARDS):
            if file.exists():
                file.chmod(0o755 if file.is_dir() else 0o644)
                _sync(file)
        for shard in (path / _SHARDS).glob("*"):
            if shard.stat().st_mode & 0o777 != 0o644:
                shard.chmod(0o644)
    _sync(folder)


def _write(path: Path, notes: Mapping[str, Kept]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"format": 1, "packages": [vars(kept) for kept in notes.values()]}))
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stem(path: str) -> str:
    match = FILE.fullmatch(path.partition("/")[2])
    return path.removesuffix(f".{match[1]}") if match else path


@contextmanager
def room() -> Iterator[None]:
    """Raises NoRoom where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoRoom(texts.DISK_FULL()) from error
        raise


def folded(packages: list[Kept]) -> dict[str, list[Kept]]:
    """Packages by name, in the order of the alphabet; of each, as they were given."""
    found: dict[str, list[Kept]] = {}
    for kept in packages:
        found.setdefault(kept.name, []).append(kept)
    return dict(sorted(found.items()))


def as_json(kept: Kept) -> dict[str, Any]:
    """A package, as REST and commands tell of it."""
    return {key: value or None if key.startswith("yanked") else value
            for key, value in vars(kept).items()}  # fmt: skip
