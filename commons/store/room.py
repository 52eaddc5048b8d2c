"""Room for our own data on a disk that somebody else can fill.

An SQLite database takes new rows into pages that were given up, and its log is written over from
its beginning: what both have of the disk, no other file can take. So they get some ahead of time,
and on a full disk logins, tokens and leases go on. To open a database a little is needed beside
it: for that a file is kept, and given up by a hub that would not start without.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from commons.reserve import drop, left

ROOM = 16 * 2**20  # bytes within a database, and within its log
_STEP = 2**20  # bytes in one transaction, for which others who write wait
_BUSY = 10.0  # seconds for another writer


def hold(file: Path, size: int = ROOM) -> bool:
    """Give a database, and its log, room for that many bytes; whether they have it.

    Somebody must have the database open: the last one who closes it removes the log. Not on a disk
    that is nearly full, where others need it more. Raises sqlite3.Error.
    """
    with closing(sqlite3.connect(file, timeout=_BUSY, isolation_level=None)) as connection:
        [free] = connection.execute("PRAGMA freelist_count").fetchone()
        [page] = connection.execute("PRAGMA page_size").fetchone()
        log = Path(f"{file}-wal")
        with suppress(FileNotFoundError):
            if free * page >= size // 2 and log.stat().st_size >= size // 2:
                return True
        if left(file.parent) < 4 * size:
            return False
        # Over the log's whole length, which a checkpoint in between would begin anew.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("DROP TABLE IF EXISTS labcommons_room")  # of one that was killed
        connection.execute("CREATE TABLE labcommons_room (bytes BLOB)")
        for _ in range(0, size, _STEP):
            connection.execute("INSERT INTO labcommons_room VALUES (zeroblob(?))", (_STEP,))
        connection.execute("DROP TABLE labcommons_room")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # nobody waits for it
        return True


def folders(data: Path) -> list[Path]:
    """Where a file is kept: one on each disk of our databases. Raises OSError."""
    there = [folder for folder in (data / "store", data / "hub") if folder.is_dir()]
    return list({folder.stat().st_dev: folder for folder in there}.values())


def give_up(data: Path) -> bool:
    """Remove the files; whether there was one."""
    return any([drop(data / "store"), drop(data / "hub")])
