"""Both databases as they were at one moment, while others write."""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from commons.store import Store
from hub_ext.backup import databases
from hub_ext.backup.databases import HUB, STORE, BackupError, copy, load, plain

SCHEMA = "CREATE TABLE told (n INTEGER)"


class Pair:
    """Two databases that something writes the same numbers to, the first one first."""

    def __init__(self, urls: dict[str, str]) -> None:
        self.urls = urls
        self._stop = threading.Event()
        for name in urls:
            with closing(self.connect(name)) as connection:
                connection.execute(SCHEMA)
                connection.commit()

    def connect(self, name: str, url: str = "") -> Any:
        found = make_url(url or self.urls[name])
        if found.get_backend_name() == "sqlite":
            connection = sqlite3.connect(str(found.database), timeout=30)
            connection.execute("PRAGMA journal_mode=WAL")
            return connection
        return psycopg.connect(plain(found))

    def write(self) -> None:
        connections = [self.connect(name) for name in (STORE, HUB)]
        number = 0
        while not self._stop.is_set():
            number += 1
            for connection in connections:
                connection.execute(f"INSERT INTO told VALUES ({number})")
                connection.commit()
        for connection in connections:
            connection.close()

    def __enter__(self) -> Pair:
        self._thread = threading.Thread(target=self.write)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def last(self, name: str, url: str = "") -> int:
        with closing(self.connect(name, url)) as connection:
            return int(connection.execute("SELECT max(n) FROM told").fetchone()[0] or 0)


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if request.param == "sqlite":
        return {name: f"sqlite:///{tmp_path / name}.sqlite" for name in (STORE, HUB)}
    server = request.getfixturevalue("postgres")
    found = {name: server.database(f"b{uuid.uuid4().hex[:12]}") for name in (STORE, HUB)}
    store = Store(found[STORE])
    store.migrate()  # the ledger's row is what is held
    store.close()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "copies"
    place.mkdir()
    return place


def test_copies_are_of_one_moment_while_others_write(
    urls: dict[str, str], folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pair = Pair(urls)
    with pair:
        while not pair.last(HUB):
            pass
        found = copy(urls, folder)
        then = pair.last(STORE)
        while pair.last(STORE) <= then:  # nobody waits for the copy any more
            pass
    if (folder / "store.sqlite").exists():
        seen = {name: pair.last(name, f"sqlite:///{file}") for name, file in found.files.items()}
    else:
        server = request.getfixturevalue("postgres")
        seen = {}
        for name, file in found.files.items():
            empty = server.database(f"r{uuid.uuid4().hex[:12]}")
            databases.check_dump(file)
            load(file, empty)
            seen[name] = pair.last(name, empty)
            with pytest.raises(BackupError, match="is not empty"):
                load(file, empty)
    # PostgreSQL's second snapshot is some transactions of the hub's later at most.
    assert 0 <= seen[STORE] - seen[HUB] <= 1 or urls[STORE].startswith("postgresql")
    assert 0 < seen[STORE] <= then


def test_a_copy_is_whole_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(SCHEMA)
        connection.executemany("INSERT INTO told VALUES (?)", ((n,) for n in range(5000)))
        connection.commit()
    databases.check_sqlite(file)
    whole = file.read_bytes()
    for damage in (whole[: len(whole) // 2], whole[:4096] + b"x" * 9000 + whole[13096:], b"x" * 99):
        file.write_bytes(damage)
        with pytest.raises(BackupError, match="damaged"):
            databases.check_sqlite(file)
    file.write_bytes(b"PGDMP")
    with pytest.raises(BackupError, match="pg_restore"):
        databases.check_dump(file)


def test_a_database_that_cannot_be_copied_is_said(tmp_path: Path) -> None:
    there = {STORE: f"sqlite:///{tmp_path}/none.sqlite", HUB: f"sqlite:///{tmp_path}/none.sqlite"}
    with pytest.raises(BackupError, match=r"none\.sqlite is not there; start the site"):
        copy(there, tmp_path)
    away = dict.fromkeys((STORE, HUB), "postgresql+psycopg://labcommons@127.0.0.1:9/labcommons")
    with pytest.raises(BackupError, match="see that the database server runs"):
        copy(away, tmp_path)


@pytest.fixture(autouse=True)
def _clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's newest client beside the server of these tests."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"))
    assert found
    monkeypatch.setenv("PATH", f"{found[-1].parent}:{os.environ['PATH']}")
