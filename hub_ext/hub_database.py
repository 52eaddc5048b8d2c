"""The hub's own database, where it is a file."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url

from commons.store import Store

BUSY = 30.0  # seconds for another that uses it to be done


def write_ahead(url: str) -> None:
    """Let SQLite keep a write-ahead log: a transaction waits for the disk once, not four times.

    Nothing that was answered is lost, not by a power failure either: SQLite goes on to wait for the
    disk at each (``synchronous`` stays FULL). The file keeps the setting; what an earlier hub left
    in the log is written back, so that the file is whole when JupyterHub copies it for an upgrade.
    On a file system that cannot do it, SQLite stays as it was.
    """
    found = make_url(url)
    if found.get_backend_name() == "sqlite" and found.database not in (None, "", ":memory:"):
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(str(found.database), timeout=BUSY)) as connection,
        ):
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def check(url: str) -> None:
    """Raise StoreError, with cause and remedy, where JupyterHub's database cannot be used.

    JupyterHub itself would end with a traceback. A file that is not there yet is made by it.
    """
    store = Store(url)
    try:
        file = store.engine.url.database
        if not store.is_sqlite or Path(file or "/nowhere").exists():
            store.check()
    finally:
        store.close()


def without_pings(engine: Engine) -> None:
    """No ``SELECT 1`` before each transaction on a file, to which no connection breaks.

    It is a transaction of its own: a third of the statements of a start.
    """
    if engine.dialect.name == "sqlite":
        for listener in list(engine.dispatch.engine_connect):
            event.remove(engine, "engine_connect", listener)
