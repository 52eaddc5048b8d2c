"""The store: transactions, contention, migrations, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from commons.store import (
    Base,
    GpuDevice,
    Lease,
    LeaseDevice,
    Store,
    StoreError,
    copies,
    database,
    tell,
)
from rig.postgres import Postgres
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.policy.placement import Device


def test_migrations_make_the_tables_that_the_models_describe(store: Store) -> None:
    with store.engine.begin() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": "labcommons_alembic_version",
                "compare_type": True,
                "include_name": lambda name, kind, _parents: (
                    kind != "table" or name != "labcommons_alembic_version"
                ),
            },
        )
        assert compare_metadata(context, Base.metadata) == []


def test_leases_of_an_earlier_version_outlive_a_migration(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'old.sqlite'}")
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with store.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    day = "'2026-11-01 10:00:00'"
    with store.engine.begin() as connection:
        for statement in (
            f"INSERT INTO gpu_devices VALUES ('GPU-1', 'local', 'T4', 1, 0, 1, {day})",
            "INSERT INTO gpu_leases (id, username, server_name, state, held_at) "
            f"VALUES ('one', 'alice', '', 'held', {day})",
            "INSERT INTO gpu_lease_devices (lease_id, device_id) VALUES ('one', 'GPU-1')",
        ):
            connection.execute(text(statement))
    store.migrate()
    lease = store.transact(lambda session: session.get_one(Lease, "one"))
    assert [held.device_id for held in lease.devices] == ["GPU-1"]
    # What there was before is kept beside it, once.
    store.migrate()
    [copy] = tmp_path.glob("old.before-0002-*.sqlite")
    with closing(sqlite3.connect(copy)) as before:
        assert before.execute("SELECT id FROM gpu_leases").fetchall() == [("one",)]
        assert before.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with pytest.raises(IntegrityError):  # and references are checked again
        store.transact(lambda s: s.add(LeaseDevice(lease_id="none", device_id="GPU-1", slot=1)))
    store.close()


EARLIER = [
    "INSERT INTO gpu_devices VALUES ('GPU-1', 'local', 'T4', 1, {no}, {yes}, {day})",
    "INSERT INTO gpu_leases (id, username, server_name, state, held_at) "
    "VALUES ('one', 'alice', '', 'held', {day})",
    "INSERT INTO gpu_lease_devices (lease_id, device_id) VALUES ('one', 'GPU-1')",
]
# A process that is killed where a migration makes the table disk_use, of many that it goes through.
KILLED = """
import os, signal
from alembic import op
from commons.store import Store
made = op.create_table
def create_table(name, *args, **named):
    made(name, *args, **named)
    if name == "disk_use":
        os.kill(os.getpid(), signal.SIGKILL)
op.create_table = create_table
Store(os.environ["URL"]).migrate()
"""


def earlier(store: Store, revision: str = "0002") -> None:
    """A database as an earlier version had it, with rows in it."""
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with store.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    yes, no = ("1", "0") if store.is_sqlite else ("true", "false")
    with store.engine.begin() as connection:
        for statement in EARLIER:
            connection.execute(text(statement.format(day="'2026-11-01 10:00:00'", yes=yes, no=no)))


@pytest.fixture(params=["sqlite", "postgresql"])
def unmigrated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path / 'earlier.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").database(f"t{uuid.uuid4().hex[:12]}")
    store = Store(url)
    yield store
    store.close()


def test_a_migration_that_is_killed_leaves_the_former_state_and_can_be_repeated(
    unmigrated: Store,
) -> None:
    earlier(unmigrated)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED], env={**os.environ, "URL": unmigrated.url}, timeout=120
    )
    assert ended.returncode == -signal.SIGKILL
    with unmigrated.engine.connect() as connection:
        found = connection.execute(text("SELECT version_num FROM labcommons_alembic_version"))
        assert found.scalar() == "0002"
        tables = inspect(connection).get_table_names()
        assert "disk_use" not in tables
        assert "gpu_quotas" not in tables
        assert connection.execute(text("SELECT id FROM gpu_leases")).scalars().all() == ["one"]
    unmigrated.migrate()  # as the next `make up` does
    lease = unmigrated.transact(lambda session: session.get_one(Lease, "one"))
    assert [held.device_id for held in lease.devices] == ["GPU-1"]
    with unmigrated.engine.connect() as connection:
        opts = {"version_table": "labcommons_alembic_version"}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_twice_changes_nothing(store: Store) -> None:
    store.transact(lambda s: sync_inventory(s, [Device("GPU-x", "T4", 1)]))
    store.migrate()
    assert store.transact(lambda s: s.scalars(select(GpuDevice.id)).all()) == ["GPU-x"]


def test_an_error_in_a_transaction_undoes_all_of_it(store: Store) -> None:
    def work(session: object) -> None:
        sync_inventory(session, [Device("GPU-x", "T4", 1)])  # type: ignore[arg-type]
        raise KeyError("half-way")

    with pytest.raises(KeyError):
        store.transact(work)
    assert store.transact(lambda s: s.scalars(select(GpuDevice.id)).all()) == []


def test_writers_at_once_wait_for_each_other_and_lose_nothing(store: Store) -> None:
    errors: list[BaseException] = []

    def add(number: int) -> None:
        try:
            for step in range(10):
                store.transact(
                    lambda s, i=f"GPU-{number}-{step}": s.add(GpuDevice(id=i, model="T4", memory=1))
                )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.transact(lambda s: s.scalars(select(GpuDevice.id)).all())) == 80


def test_a_broken_constraint_is_told_as_such(store: Store) -> None:
    store.transact(lambda s: s.add(GpuDevice(id="GPU-x", model="T4", memory=1)))
    with pytest.raises(IntegrityError):
        store.transact(lambda s: s.add(GpuDevice(id="GPU-x", model="T4", memory=1)))


async def test_reading_and_writing_from_the_event_loop(store: Store) -> None:
    await store.run(lambda s: sync_inventory(s, [Device("GPU-x", "T4", 1)]))
    assert await store.read(lambda s: s.scalar(select(GpuDevice.model))) == "T4"


def test_readers_do_not_wait_for_a_writer_on_sqlite(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'db'}")
    store.migrate()
    with store.session() as writer:
        writer.add(GpuDevice(id="GPU-x", model="T4", memory=1))
        writer.flush()
        assert store.transact(lambda s: s.scalars(select(GpuDevice.id)).all(), read=True) == []


async def test_a_database_that_does_not_answer_gives_an_error_in_time(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'db'}", timeout=0.05)
    release = threading.Event()
    with pytest.raises(StoreError, match="did not answer"):
        await store.run(lambda s: release.wait(5))
    release.set()


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'no-such-folder' / 'db'}")
    with pytest.raises(StoreError, match="no-such-folder"):
        store.transact(lambda s: s.execute(text("select 1")))


def test_a_password_never_shows_in_an_error() -> None:
    store = Store("postgresql+psycopg://lab:hunter2@127.0.0.1:1/lab")
    with pytest.raises(StoreError) as caught:
        store.transact(lambda s: s.execute(text("select 1")))
    assert "hunter2" not in str(caught.value)


def test_a_url_that_is_none_says_what_one_looks_like() -> None:
    with pytest.raises(StoreError, match="sqlite:////"):
        Store("labcommons.sqlite")


async def test_a_cancelled_write_is_carried_out_or_not_at_all(store: Store) -> None:
    started, cancelled = threading.Event(), threading.Event()

    def work(session: object) -> None:
        started.set()
        cancelled.wait(5)
        sync_inventory(session, [Device("GPU-x", "T4", 1)])  # type: ignore[arg-type]

    task = asyncio.create_task(store.run(work))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    cancelled.set()
    found = await store.read(lambda s: s.scalars(select(GpuDevice.id)).all())
    assert found in ([], ["GPU-x"])


async def test_of_a_commit_by_whomever_the_stamp_tells_without_a_query(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'one.sqlite'}"
    store, other = Store(url), Store(url)
    store.migrate()

    def long_ago() -> None:
        for name in tmp_path.iterdir():
            os.utime(name, (time.time() - 60,) * 2)

    assert store.stamp() is None, "a second commit may have the time of the first"
    long_ago()
    before = store.stamp()
    assert before is not None
    assert await store.read(lambda s: s.scalars(select(GpuDevice)).all()) == []
    assert store.stamp() == before
    other.transact(lambda s: sync_inventory(s, [Device("GPU-x", "T4", 1)]))
    assert store.stamp() is None
    long_ago()
    assert store.stamp() not in (None, before)
    store.close()
    other.close()


async def test_news_come_with_a_commit_and_not_without(postgres: Postgres) -> None:
    store = Store(postgres.database("news"))
    heard = store.news("of_the_test")
    async with asyncio.timeout(20):
        await anext(heard)  # it listens

        def given_up(session: Session) -> None:
            tell(session, "of_the_test")
            raise RuntimeError

        with pytest.raises(RuntimeError):
            await store.run(given_up)
        coming = asyncio.ensure_future(anext(heard))
        await store.run(lambda session: tell(session, "of_somebody_else"))
        assert not coming.done()
        await store.run(lambda session: tell(session, "of_the_test"))
        await coming
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        await store.run(lambda session: session.execute(text(end)))
        with pytest.raises(StoreError):
            await anext(heard)
    store.close()


def test_tables_of_a_newer_version_are_told_with_the_way_on(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'new.sqlite'}")
    store.migrate()
    with store.engine.begin() as connection:
        connection.execute(text(f"UPDATE {database.VERSIONS} SET version_num = '9999'"))
    with pytest.raises(StoreError, match=r"of a newer version \(9999; .*make rollback"):
        store.migrate()
    assert not list(tmp_path.glob("*before*"))
    store.close()


def test_without_room_for_a_copy_no_table_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"sqlite:///{tmp_path / 'old.sqlite'}")
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with store.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="no copy could be made before its tables change"):
        store.migrate()
    monkeypatch.undo()
    assert store._revision() == "0002"
    assert [path.name for path in tmp_path.glob("*before*")] == []
    for number in (1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7):
        store._copy(f"000{number}")
    kept = sorted(path.name[len("old.before-") :][:4] for path in tmp_path.glob("*.sqlite"))[1:]
    assert kept == ["0003", "0004", "0005", "0006", "0007"]
    assert len(list(tmp_path.glob("old.before-*.sqlite"))) == copies.COPIES
    store.close()
