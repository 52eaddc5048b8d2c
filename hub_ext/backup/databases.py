"""Both databases as they were at one moment.

SQLite: nobody writes while a reader begins in each; from then on each reader sees that moment,
however long it copies. PostgreSQL: the ledger's row is held while both snapshots are taken, and
``pg_dump`` copies those.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sqlalchemy.engine import URL, make_url

from hub_ext.backup.trouble import BackupError

BUSY = 60.0  # seconds for a writer to be done
DUMP_LIMIT = 3600.0  # seconds for pg_dump and pg_restore
STORE, HUB = "store", "hub"


class Reader(Protocol):
    """A database that is held still, and then seen as it was."""

    def hold(self) -> None:
        """Nobody else writes. Raises BackupError."""

    def look(self) -> None:
        """What is seen from now on is what is so now."""

    def release(self) -> None:
        """Others write again."""

    def copy(self, target: Path) -> Path:
        """Write what is seen to a file whose name begins so; returns the file."""


class _SQLite:
    def __init__(self, url: URL, stack: ExitStack) -> None:
        self.file = str(url.database)
        if not Path(self.file).is_file():
            raise BackupError(f"{self.file} is not there", "start the site with make up")
        self._writer, self._reader = (
            stack.enter_context(
                closing(sqlite3.connect(self.file, timeout=BUSY, isolation_level=None))
            )
            for _ in range(2)
        )

    def hold(self) -> None:
        self._writer.execute("BEGIN IMMEDIATE")

    def look(self) -> None:
        self._reader.execute("BEGIN")
        self._reader.execute("SELECT count(*) FROM sqlite_master").fetchall()

    def release(self) -> None:
        self._writer.execute("ROLLBACK")

    def copy(self, target: Path) -> Path:
        target = target.with_suffix(".sqlite")
        with closing(sqlite3.connect(target)) as copy:
            self._reader.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without others beside it
        check_sqlite(target)
        return target


class _PostgreSQL:
    def __init__(self, url: URL, stack: ExitStack, ledger: bool) -> None:
        import psycopg  # SQLite's sites do without it

        self.url = plain(url)
        self._ledger = ledger
        self._writer, self._reader = (
            stack.enter_context(psycopg.connect(self.url, connect_timeout=10)) for _ in range(2)
        )

    def hold(self) -> None:
        self._writer.execute(f"SET lock_timeout = '{BUSY:.0f}s'")
        if self._ledger:
            self._writer.execute("SELECT id FROM gpu_state FOR UPDATE")

    def look(self) -> None:
        self._reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = self._reader.execute("SELECT pg_export_snapshot()").fetchone()
        assert row
        self._snapshot = row[0]

    def release(self) -> None:
        self._writer.rollback()

    def copy(self, target: Path) -> Path:
        target = target.with_suffix(".dump")
        _run(
            "pg_dump", "--format=custom", f"--snapshot={self._snapshot}", f"--file={target}",
            url=self.url,
        )  # fmt: skip
        return target


@dataclass(frozen=True)
class Copies:
    """Files with both databases of one moment."""

    moment: datetime
    files: dict[str, Path]


def copy(urls: dict[str, str], folder: Path) -> Copies:
    """Write both to a folder. ``urls``: of STORE, which has the ledger, and HUB.

    Raises BackupError.
    """
    with _open(urls) as readers:
        for reader in readers.values():
            reader.hold()
        for reader in readers.values():
            reader.look()
        moment = datetime.now(UTC)
        for reader in readers.values():
            reader.release()
        return Copies(
            moment, {name: reader.copy(folder / name) for name, reader in readers.items()}
        )


@contextmanager
def _open(urls: dict[str, str]) -> Iterator[dict[str, Reader]]:
    with ExitStack() as stack:
        try:
            readers: dict[str, Reader] = {}
            for name, text in urls.items():
                url = make_url(text)
                if url.get_backend_name() == "sqlite":
                    readers[name] = _SQLite(url, stack)
                else:
                    readers[name] = _PostgreSQL(url, stack, name == STORE)
            yield readers
        except (OSError, sqlite3.Error) as error:
            raise BackupError(f"a database cannot be copied: {error}") from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "psycopg":
                raise
            raise BackupError(
                f"a database cannot be copied: {error}", "see that the database server runs"
            ) from error


def check_sqlite(file: Path) -> None:
    """Raise BackupError where a file is not a whole database."""
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            said = connection.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        raise BackupError(f"{file.name} is damaged: {said}")


def check_dump(file: Path) -> None:
    """Raise BackupError where ``pg_restore`` cannot read a file."""
    _run("pg_restore", "--list", str(file))


def load(dump: Path, text: str) -> None:
    """Put a dump into an empty database. Raises BackupError."""
    import psycopg

    url = plain(make_url(text))
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            found = connection.execute(
                "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            ).fetchone()
    except psycopg.Error as error:
        raise BackupError(f"the database server: {error}", "see that it runs") from error
    if found and found[0]:
        raise BackupError(
            f"the database {make_url(text).database} is not empty",
            "a backup is restored into an empty one: drop it and create it anew",
        )
    _run(
        "pg_restore", "--exit-on-error", "--single-transaction", "--no-owner",
        str(dump), url=url,
    )  # fmt: skip


def plain(url: URL) -> str:
    """As PostgreSQL's own programs write it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _run(*words: str, url: str = "") -> None:
    """Run a program of PostgreSQL's; a password is in no list of processes."""
    environment, more = dict(os.environ), []
    if url:
        found = make_url(url)
        more = [f"--dbname={plain(found.set(password=None))}"]
        if found.password:
            environment["PGPASSWORD"] = str(found.password)
    done = subprocess.run(
        [words[0], *more, *words[1:]], env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=DUMP_LIMIT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BackupError(f"{words[0]}: {last_line(done.stderr)}")


def last_line(text: str, limit: int = 500) -> str:
    """What a program said at last."""
    return (text.strip().splitlines() or ["no reason was given"])[-1][:limit]


def main(words: Sequence[str]) -> None:
    """``python3 -m hub_ext.backup.databases NEW-FOLDER``, as another user; prints the moment."""
    urls = {
        STORE: os.environ["LABCOMMONS_DATABASE_URL"],
        HUB: os.environ["LABCOMMONS_HUB_DATABASE_URL"],
    }
    folder = Path(words[0])
    folder.mkdir(mode=0o700)
    print(copy(urls, folder).moment.isoformat())


if __name__ == "__main__":
    import sys

    try:
        main(sys.argv[1:])
    except BackupError as error:
        sys.exit(str(error))
