"""The store: transactions, contention, migrations, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from hub_ext.store import Base, GpuDevice, Lease, LeaseDevice, Store, StoreError, database
from spawner.gpu.devices import Device
from spawner.gpu.health import sync_inventory


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
    with pytest.raises(IntegrityError):  # and references are checked again
        store.transact(lambda s: s.add(LeaseDevice(lease_id="none", device_id="GPU-1", slot=1)))
    store.close()


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
    started = threading.Event()

    def work(session: object) -> None:
        started.set()
        sync_inventory(session, [Device("GPU-x", "T4", 1)])  # type: ignore[arg-type]

    task = asyncio.create_task(store.run(work))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await store.read(lambda s: s.scalars(select(GpuDevice.id)).all())
    assert found in ([], ["GPU-x"])
