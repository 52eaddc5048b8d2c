"""A backup is made, and looked at."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from commons.site import Site
from commons.version import version
from hub_ext.backup import databases, keys
from hub_ext.backup.databases import HUB, STORE
from hub_ext.backup.places import ALWAYS, CHECKOUT, DATA, HOMES, SECRETS, SITE_ID, TEAMS, Room
from hub_ext.backup.repository import Repository
from hub_ext.backup.trouble import BackupError

FORMAT = 1
MANIFEST, SEALED = "manifest.json", "secrets.tar.age"
READ = "2%"  # of the data, by each verify
COPY_LIMIT = 3600.0  # seconds
# Of homes and teams: what programs make anew.
CACHES = ("**/.cache", "**/.conda/pkgs", "**/.local/share/Trash", "**/node_modules/.cache",
          "**/.ipynb_checkpoints")  # fmt: skip

Say = Callable[[str, float | None], None]


@dataclass
class State:
    """What is known of the site's backups, for doctor and its page; times in seconds."""

    target: str = ""
    ready: bool = False
    tried: float = 0
    made: float = 0
    moment: float = 0
    took: float = 0
    size: int = 0
    added: int = 0
    unread: int = 0
    problem: str = ""
    verified: float = 0
    verify_problem: str = ""
    running: bool = False

    @classmethod
    def read(cls, file: Path) -> State:
        """What was written last; of nothing, or of something else, a new one."""
        try:
            found = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            found = {}
        if not isinstance(found, dict):
            return cls()
        return cls(**{k: v for k, v in found.items() if k in cls.__dataclass_fields__})

    def write(self, file: Path) -> None:
        """For everybody to read; there is nothing secret in it."""
        new = file.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        new.chmod(0o644)
        new.replace(file)


@dataclass(frozen=True)
class Made:
    """One backup: when everything in it was so, how long it took, how large it is (bytes)."""

    snapshot: str
    moment: str
    took: float
    size: int
    added: int
    unread: list[str] = field(default_factory=list)


@contextmanager
def alone(room: Room, say: Say) -> Iterator[None]:
    """One at a time, whoever asks: who comes second is told so, and waits.

    The kernel ends the lock of a process that is killed; one at work ends within restic's limits.
    """
    with room.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another backup is at work; waiting for its end", None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def create(site: Site, say: Say, room: Room | None = None) -> Made:
    """Make one. Whatever happens is in the state that doctor reads. Raises BackupError."""
    room = room or Room()
    repository = Repository(site.backup, room)
    if not room.password.exists():
        raise BackupError("there is no recovery key yet", "run labcommons backup init")
    with alone(room, say):
        state = State.read(room.state)
        state.target, state.tried, state.running = site.backup.target, time.time(), True
        state.write(room.state)
        try:
            made = _create(site, say, room, repository)
            state.made, state.problem = time.time(), ""
            state.moment = datetime.fromisoformat(made.moment).timestamp()
            state.took, state.size, state.added = made.took, made.size, made.added
            state.unread = len(made.unread)
        except BaseException as error:
            state.problem = str(error) or type(error).__name__
            raise
        finally:
            state.running = False
            state.write(room.state)
            shutil.rmtree(room.stage, ignore_errors=True)
    return made


def _create(site: Site, say: Say, room: Room, repository: Repository) -> Made:
    began = time.monotonic()
    say("looking at the repository", None)
    repository.init()
    repository.unlock()
    say("copying both databases", None)
    moment, files = _databases(room)
    say("sealing secrets and keys", None)
    extra = [CHECKOUT / ".env"] if (CHECKOUT / ".env").is_file() else []
    keys.seal(DATA, SECRETS, extra, room, room.stage / SEALED)
    folders = [
        *ALWAYS,
        *(HOMES if site.backup.homes else ()),
        *(TEAMS if site.backup.teams else ()),
    ]
    manifest = {
        "format": FORMAT,
        "site": SITE_ID,
        "version": version(),
        "moment": moment,
        "homes": site.backup.homes,
        "teams": site.backup.teams,
        "target": site.backup.target,
        "files": {file.name: digest(file) for file in [*files, room.stage / SEALED]},
        "databases": {file.stem: file.name for file in files},
    }
    (room.stage / MANIFEST).write_text(json.dumps(manifest, indent=1))
    paths = [room.stage, *(DATA / one for one in folders if (DATA / one).exists())]
    if (CHECKOUT / "config").is_dir():
        paths.append(CHECKOUT / "config")
    summary, unread = repository.back_up(
        paths, CACHES, datetime.fromisoformat(moment), lambda row: say("storing", _share(row))
    )
    say("taking away what is too old", None)
    repository.forget(site.backup.keep)
    return Made(
        str(summary.get("snapshot_id", "")),
        moment,
        time.monotonic() - began,
        int(summary.get("total_bytes_processed", 0)),
        int(summary.get("data_added_packed", summary.get("data_added", 0))),
        unread,
    )


def _databases(room: Room) -> tuple[str, list[Path]]:
    """Copy them as whoever owns them: no file of root's is left beside them."""
    shutil.rmtree(room.stage, ignore_errors=True)
    owner = room.folder.stat()
    other: dict[str, Any] = {}
    if os.geteuid() == 0 and owner.st_uid:
        other = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    try:
        done = subprocess.run(
            [sys.executable, "-m", databases.__name__, str(room.stage)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COPY_LIMIT,
            check=False, **other,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BackupError(f"the databases were not copied within {COPY_LIMIT:g} s") from error
    if done.returncode:
        raise BackupError(databases.last_line(done.stderr))
    kinds = (".sqlite", ".dump")
    found = sorted(p for p in room.stage.iterdir() if p.stem in (STORE, HUB) and p.suffix in kinds)
    return done.stdout.strip().splitlines()[-1], found


def digest(file: Path) -> str:
    """SHA-256, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _share(row: dict[str, Any]) -> float:
    return float(row.get("percent_done") or 0)


def verify(site: Site, say: Say, name: str = "latest", room: Room | None = None) -> dict[str, Any]:
    """Read a backup back as a restore would: repository, databases, digests. Its manifest.

    Raises BackupError.
    """
    room = room or Room()
    repository = Repository(site.backup, room)
    with alone(room, say):
        state = State.read(room.state)
        try:
            say("checking the repository", None)
            repository.check(READ)
            snapshot = repository.find(name)
            say("reading databases and secrets back", None)
            with tempfile.TemporaryDirectory(dir=room.folder, prefix="verify-") as folder:
                for row in repository.list(snapshot.id, str(room.stage)):
                    with Path(folder, row["name"]).open("wb") as file:
                        file.writelines(repository.dump(snapshot.id, row["path"]))
                manifest = check(Path(folder))
            state.verified, state.verify_problem = time.time(), ""
        except BaseException as error:
            state.verify_problem = str(error) or type(error).__name__
            raise
        finally:
            with suppress(OSError):
                state.write(room.state)
    return manifest


def check(stage: Path) -> dict[str, Any]:
    """The manifest beside what it tells of, when all of that is whole. Raises BackupError."""
    try:
        manifest: dict[str, Any] = json.loads((stage / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BackupError(f"the backup has no manifest: {error}") from error
    if manifest["format"] > FORMAT:
        raise BackupError(
            f"the backup is of a newer LabCommons, {manifest['version']}", "restore it with that"
        )
    for name, wanted in manifest["files"].items():
        if not (stage / name).is_file() or digest(stage / name) != wanted:
            raise BackupError(f"{name} in the backup is not what was written", "use an earlier one")
    for name in manifest["databases"].values():
        file = stage / name
        (databases.check_sqlite if file.suffix == ".sqlite" else databases.check_dump)(file)
    return manifest
