"""A site of an earlier version, with data in all of its tables, goes on in this one.

The databases in ``earlier/`` were written by that version's own code (tests/rig/earlier_site.py).
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from jupyterhub import dbutil, orm
from sqlalchemy import MetaData, create_engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from commons.store import Base, Lease, Store, copies
from commons.store.database import VERSIONS
from commons.store.models import DirectoryPerson, GpuNode, SentNotebook
from deploy.copies import HUB
from rig.postgres import Postgres
from spawner.gpu.ledger import allocation, invariants, reservations, transitions
from spawner.gpu.ledger.allocation import Ask
from spawner.gpu.quotas import quota_store

EARLIER = Path(__file__).parent / "earlier"
NOW = datetime(2026, 11, 20, 12, 0)  # as in tests/rig/earlier_site.py
Rows = dict[str, list[dict[str, Any]]]
# (table, column) of then -> its name now, None where it is gone. Empty: all is where it was.
MOVED: dict[tuple[str, str], tuple[str, str] | None] = {}


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def loaded(kind: str, stem: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A database with what the file holds; its URL."""
    [file] = EARLIER.glob(f"{stem}-*.{kind}.sql")
    if kind == "sqlite":
        path = tmp_path / f"{stem}.sqlite"
        with closing(sqlite3.connect(path)) as database:
            database.executescript(file.read_text("utf-8"))
        return f"sqlite:///{path}"
    server: Postgres = request.getfixturevalue("postgres")
    url = server.database(f"u{uuid.uuid4().hex[:12]}")
    words = ["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-h", str(server.folder)]
    subprocess.run(
        [server.bin / words[0], *words[1:], str(make_url(url).database)],
        input=file.read_bytes(), user=server.user, cwd="/", check=True, timeout=60,
        capture_output=True,
    )  # fmt: skip
    return url


@pytest.fixture
def store(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    store = Store(loaded(kind, "store", tmp_path, request))
    yield store
    store.close()


def rows(url: str) -> Rows:
    """All rows of all tables, as values that do not depend on how a database keeps them."""
    engine, found = create_engine(url), MetaData()
    found.reflect(engine)
    with engine.connect() as connection:
        tables = {
            table.name: [
                {column: plain(value) for column, value in row.items()}
                for row in connection.execute(select(table)).mappings()
            ]
            for table in found.sorted_tables
        }
    engine.dispose()
    for listed in tables.values():
        listed.sort(key=lambda row: json.dumps(row, sort_keys=True))
    return tables


def plain(value: Any) -> Any:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else value


def lost(before: Rows, after: Rows) -> list[str]:
    """What was there and is not."""
    found = []
    for table, listed in before.items():
        for row in listed if table not in (VERSIONS, "alembic_version") else []:
            now: dict[str, dict[str, Any]] = {}
            for column, value in row.items():
                if place := MOVED.get((table, column), (table, column)):
                    now.setdefault(place[0], {})[place[1]] = value
            for name, wanted in now.items():
                if not any(wanted.items() <= one.items() for one in after[name]):
                    found.append(f"{name}: {wanted}")
    return found


def test_nothing_of_an_earlier_version_is_lost(store: Store) -> None:
    url = store.engine.url.render_as_string(hide_password=False)
    before = rows(url)
    assert before[VERSIONS] == [{"version_num": "0020"}]
    assert all(before.values())
    store.migrate()
    after = rows(url)
    assert lost(before, after) == []
    assert {name: len(after[name]) for name in before} == {
        name: len(found) for name, found in before.items()
    }
    # The comparison itself: a value that is another one is seen.
    after["readers"][0]["timezone"] = "UTC"
    assert len(lost(before, after)) == 1


def test_everything_is_read_as_what_it_was(store: Store) -> None:
    store.migrate()

    def look(session: Session) -> None:
        for mapper in Base.registry.mappers:
            session.scalars(select(mapper.class_)).all()
        leases = session.scalars(select(Lease)).all()
        assert {"held", "active", "queued", "ended"} >= {one.state.value for one in leases}
        assert {one.username for one in leases if one.state.value == "active"} == {"alice"}
        assert [row.name for row in reservations.standing(session)] == ["Machine learning, lab"]
        assert quota_store.specs(session)["group:vision"]["max_gpus"] == 2
        assert session.get_one(DirectoryPerson, "alice").roles == {"teams": {"vision": "lead"}}
        assert [one.packed for one in session.scalars(select(SentNotebook))] == [b"\x00\xffx"]

    store.transact(look, read=True)


def test_the_ledger_holds_and_goes_on(store: Store) -> None:
    store.migrate()

    def go_on(session: Session) -> None:
        assert invariants.check(session, deep=True, now=NOW) == ()
        later = transitions.lock(session, NOW + timedelta(minutes=1))
        live = transitions.live_leases(session)
        [alice] = (one for one in live if one.username == "alice")
        [waiting] = (one for one in live if one.state.value == "queued")
        transitions.end(session, alice.id, "stopped")
        allocation.run_pass(session, later)
        assert waiting.state.value == "queued"  # the node is drained, still
        session.get_one(GpuNode, "local").drained_at = None
        session.info.pop(transitions.NOW, None)
        later = transitions.lock(session, NOW + timedelta(minutes=2))
        allocation.run_pass(session, later)
        session.refresh(waiting)
        assert waiting.state.value == "held"
        ask = Ask("s05", "", "course:ml101", 1, "", 600.0)
        [standing] = allocation.admit(session, [ask]).standings
        assert not standing.held
        assert invariants.check(session, deep=True, now=later) == ()

    store.transact(go_on)


def test_the_hubs_people_tokens_and_servers_come_through_an_upgrade_of_jupyterhub(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # JupyterHub calls Alembic's program.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    url = loaded(kind, "hub", tmp_path, request)
    with dbutil._temp_alembic_ini(url) as ini:  # as JupyterHub 5 had it
        command.downgrade(Config(ini), "-1")
    before = rows(url)
    if kind == "sqlite":
        file = Path(str(make_url(url).database))
        made = copies.copy(file, copies.revision(file, HUB.table))
    # As the hub does it, with c.JupyterHub.upgrade_db.
    dbutil.upgrade_if_needed(url, log=logging.getLogger())
    after = rows(url)
    assert before["alembic_version"] != after["alembic_version"]
    assert lost(before, after) == []
    session = orm.new_session_factory(url)()
    alice = orm.User.find(session, "alice")
    assert [group.name for group in alice.groups] == ["team:vision"]
    assert alice.encrypted_auth_state == b"\x01\x02secret"
    assert alice.orm_spawners[""].state["container"] == "c" * 64
    assert alice.orm_spawners[""].server.ip == "172.18.0.9"
    assert [token.note for token in alice.api_tokens] == ["脚本"]
    session.close()
    if kind == "sqlite":  # and back
        copies.restore(file, copies.revision(made, HUB.table))
        assert rows(url) == before
