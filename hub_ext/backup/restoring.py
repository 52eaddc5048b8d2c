"""A site is laid down from a backup, in a container of a moment; ``labcommons backup restore``."""

from __future__ import annotations

import os
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from commons.site.backup import Backup
from hub_ext.backup import keys, making
from hub_ext.backup.databases import HUB, STORE, load
from hub_ext.backup.keys import RecoveryKey
from hub_ext.backup.places import CHECKOUT, DATA, SITE_ID, Room
from hub_ext.backup.repository import Repository
from hub_ext.backup.trouble import BackupError

OWNER = 990  # uid and gid of `labcommons` in our images
# What `make up`, a restore that was broken off, and a folder's own file system leave in one that is
# as good as empty.
LEFT = {"log", "backup", "health", "lost+found"}
PARTS = "restored.part"


def restore(target: str, key_file: Path, name: str, say: making.Say) -> dict[str, Any]:
    """Fill DATA, which must be empty, from a backup; what is in it and when that was so.

    Raises BackupError; what was laid down by then is taken away by the next try.
    """
    began = time.monotonic()
    key = RecoveryKey.read(key_file)
    settings = Backup(target=target or key.target)
    room = Room()
    mark = room.folder / PARTS
    there = sorted(one.name for one in DATA.iterdir() if one.name not in LEFT)
    if there and not mark.exists():
        raise BackupError(
            f"the data folder has {', '.join(there[:5])} in it already",
            "a backup is restored into an empty one: move it away, or set another LABCOMMONS_DATA "
            "in .env",
        )
    room.folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(room.folder, OWNER, OWNER)
    mark.touch()
    for one in there:
        shutil.rmtree(DATA / one) if (DATA / one).is_dir() else (DATA / one).unlink()
    repository = Repository(settings, room, key.password)
    say("looking at the repository", None)
    snapshot = repository.find(name)
    repository.restore(
        f"{snapshot.id}:{DATA}", DATA, lambda row: say("laying down", row.get("percent_done") or 0)
    )
    say("checking databases and digests", None)
    manifest = making.check(room.stage)
    _secrets(room, key)
    _databases(room, manifest)
    _checkout(repository, snapshot.id, room, str(CHECKOUT / "config") in snapshot.paths)
    if manifest["site"] == SITE_ID:
        _go_on(room, key, manifest)
    shutil.rmtree(room.stage)
    mark.unlink()
    return {**manifest, "snapshot": snapshot.id, "took": time.monotonic() - began}


def _go_on(room: Room, key: RecoveryKey, manifest: dict[str, Any]) -> None:
    """The site's backups go where they went; those of a copy with another name go nowhere."""
    keys.write_room(room, key.password, keys.recipient_of(key.identity))
    room.state.parent.mkdir(mode=0o755, exist_ok=True)
    moment = datetime.fromisoformat(manifest["moment"]).timestamp()
    known = making.State(target=manifest["target"], ready=True, made=moment, moment=moment)
    known.write(room.state)
    for file in (room.password, room.recipient, room.state, room.state.parent):
        os.chown(file, OWNER, OWNER)


def _secrets(room: Room, key: RecoveryKey) -> None:
    opened = room.folder / "opened"
    shutil.rmtree(opened, ignore_errors=True)
    opened.mkdir(mode=0o700)
    keys.unseal(room.stage / making.SEALED, key.identity, opened)
    for folder in sorted((opened / "data").iterdir()):
        shutil.copytree(folder, DATA / folder.name, symlinks=True, dirs_exist_ok=True,
                        copy_function=_copy)  # fmt: skip
    # shutil keeps modes and times of folders, and not their owners.
    for one in (opened / "data").rglob("*"):
        status, there = one.lstat(), DATA / one.relative_to(opened / "data")
        os.chown(there, status.st_uid, status.st_gid, follow_symlinks=False)
    if (opened / "checkout" / ".env").is_file():
        room.restored.mkdir(exist_ok=True)
        shutil.copy2(opened / "checkout" / ".env", room.restored / "env")
    shutil.rmtree(opened)


def _copy(source: str, target: str) -> str:
    return str(shutil.copy2(source, target, follow_symlinks=False))


def _databases(room: Room, manifest: dict[str, Any]) -> None:
    """SQLite's go to their places; PostgreSQL's wait for their server (``backup load``)."""
    places = {STORE: DATA / "store" / "labcommons.sqlite", HUB: DATA / "hub" / "jupyterhub.sqlite"}
    for name, file in manifest["databases"].items():
        copy = room.stage / file
        if copy.suffix == ".sqlite":
            place = places[name]
            place.parent.mkdir(mode=0o700, exist_ok=True)
            os.chown(place.parent, OWNER, OWNER)
        else:
            place = room.restored / file
            place.parent.mkdir(exist_ok=True)
        shutil.move(copy, place)
        os.chown(place, OWNER, OWNER)


def _checkout(repository: Repository, snapshot: str, room: Room, has_config: bool) -> None:
    """The site's own files, for who called this to put into the checkout."""
    if has_config:
        repository.restore(
            f"{snapshot}:{CHECKOUT / 'config'}", room.restored / "config", lambda row: None
        )


def load_dumps(urls: dict[str, str], say: making.Say) -> list[str]:
    """Put what a restore has left for PostgreSQL into its empty databases; their names.

    A dump goes when its database is full, in one transaction: called again, it goes on.
    """
    room = Room()
    done = []
    for name, url in urls.items():
        dump = room.restored / f"{name}.dump"
        if dump.is_file():
            say("loading the databases", None)
            load(dump, url)
            dump.unlink()
            done.append(name)
    return done
