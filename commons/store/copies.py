"""Copies of a SQLite database beside it, from before another version changes its tables.

Standard library alone: `make up` and `make rollback` also run this file by itself in a container,
whatever version of LabCommons is in the image (``python3 - revision FILE TABLE``).
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

COPIES = 5  # of a database: the newest of each of so many versions of its tables
BUSY = 10.0  # seconds for another that uses the database to be done


def revision(file: Path, table: str) -> str:
    """Which version the tables have, as Alembic keeps it in ``table``; "" for none."""
    if not file.exists():
        return ""
    with closing(sqlite3.connect(f"file:{file}?mode=rw", timeout=BUSY, uri=True)) as database:
        known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        if not database.execute(known, (table,)).fetchone():
            return ""
        row = database.execute(f"SELECT version_num FROM {table}").fetchone()  # noqa: S608
        return str(row[0]) if row else ""


def copy(file: Path, of: str) -> Path:
    """A copy as it is now, whoever writes meanwhile; ``of`` is the version of its tables.

    Raises OSError or sqlite3.Error, with nothing half made left.
    """
    new = _whole(file, file.with_name(f"{file.stem}.before-{of}-{_now()}.sqlite"))
    made = sorted(file.parent.glob(f"{file.stem}.before-*.sqlite"), key=_written)
    newest = {one.stem.rpartition("-")[0]: one for one in made}
    for old in set(made) - set(list(newest.values())[-COPIES:]):
        old.unlink(missing_ok=True)
    return new


def newest(file: Path, of: str) -> Path | None:
    """The last copy from when the tables had this version."""
    found = file.parent.glob(f"{file.stem}.before-{of}-*.sqlite")
    return max(found, key=_written, default=None)


def restore(file: Path, of: str) -> Path:
    """Put that copy in the database's place; what was there is kept as the file that is returned.

    Nobody may use it meanwhile. Whatever ends it in the middle leaves the one or the other, whole.
    Raises OSError or sqlite3.Error.
    """
    source = newest(file, of)
    if source is None:
        raise FileNotFoundError(f"{file.parent} has no copy of version {of}")
    kept = _whole(file, file.with_name(f"{file.stem}.until-{_now()}.sqlite"))
    # What is in the log belongs to what goes. The last connection to close removes it.
    with closing(sqlite3.connect(file, timeout=BUSY)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    for log in (file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        if log.exists() and log.stat().st_size:
            raise OSError(f"{file} is still in use")
        log.unlink(missing_ok=True)
    _whole(source, file)
    for old in file.parent.glob(f"{file.stem}.until-*.sqlite"):
        if old != kept:
            old.unlink(missing_ok=True)
    return kept


def _whole(source: Path, target: Path) -> Path:
    """The target, which appears in one move, on the disk."""
    new = target.with_name(f"{source.stem}.{os.getpid()}.new")
    try:
        new.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(source, timeout=BUSY)) as database,
            closing(sqlite3.connect(new)) as made,
        ):
            database.backup(made)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        return new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _now() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}"


def _written(path: Path) -> float:
    return path.stat().st_mtime


def main(words: list[str]) -> object:
    """What one of the functions above answers, for who runs this file."""
    name, file, last = words[0], Path(words[1]), words[2]
    if name == "revision":
        return revision(file, last)
    answer = {"copy": copy, "newest": newest, "restore": restore}[name](file, last)
    return str(answer) if answer else ""


if __name__ == "__main__":
    try:
        print(json.dumps(main(sys.argv[1:])))
    except (OSError, sqlite3.Error) as error:
        sys.exit(f"Error: {error}")
