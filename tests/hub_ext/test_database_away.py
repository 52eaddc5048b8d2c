"""A database that cannot be used: nobody is taken for nobody, and all is told as what it is."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from traitlets.config import Config

from commons.site import Site
from commons.store import Store, StoreError, trouble
from commons.store.trouble import Trouble
from rig.hub_in_memory import TOKEN, Lab, hub_lab
from rig.postgres import Postgres

SENTENCE = "The database does not answer."


@pytest.fixture
async def lab(site: Site, tmp_path: Path) -> AsyncIterator[tuple[Lab, Postgres]]:
    """A hub whose databases are both on a PostgreSQL of its own."""
    folder = Path(f"/tmp/lcpg-{uuid.uuid4().hex[:8]}")  # a socket's path must be short
    with Postgres(folder) as server:
        store = Store(server.database("ours"), timeout=5)
        store.migrate()
        config = Config()
        config.JupyterHub.db_url = server.database("hub")
        async with hub_lab(store, site, tmp_path, config) as lab:
            yield lab, server
        store.close()


async def ask(lab: Lab, path: str, method: str = "GET", token: str = TOKEN) -> HTTPResponse:
    return await AsyncHTTPClient().fetch(
        f"{lab._hub}{path}",
        method=method,
        headers={"Authorization": f"token {token}"},
        allow_nonstandard_methods=True,
        raise_error=False,
    )


async def test_while_the_database_is_away_everything_says_so_and_then_goes_on(
    lab: tuple[Lab, Postgres], caplog: pytest.LogCaptureFixture
) -> None:
    hub, server = lab
    paths = {"api/users": "GET", "api/users/alice": "GET", "api/users/alice/server": "POST"}
    assert (await ask(hub, "health")).code == 200
    async with hub.browser("alice") as alice:
        assert (await alice.get("home")).status == 200
        server.kill()
        for path, method in paths.items():
            answer = await ask(hub, path, method)
            assert (path, answer.code) == (path, 503)
            assert answer.headers["Retry-After"]
            assert SENTENCE in answer.body.decode()
        for path in ("home", "spawn", "token", "spawn/alice"):
            page = await alice.get(path)
            assert (path, page.status) == (path, 503)
            assert page.headers["Retry-After"]
            assert SENTENCE in await page.text()
        health = await ask(hub, "health")
        assert health.code == 503
        assert b'"database"' in health.body
        assert not [one for one in caplog.records if one.exc_info], "a traceback"
        server.start()
        assert (await ask(hub, "api/users")).code == 200
        assert (await ask(hub, "api/users", token="no-token")).code == 403
        assert (await alice.get("home")).status == 200
        assert (await ask(hub, "health")).code == 200


async def test_health_tells_an_agent_that_does_not_answer(lab: tuple[Lab, Postgres]) -> None:
    hub, _ = lab
    hub.memory.break_events()
    await hub.until(lambda: not hub.resources.watch.known)
    answer = await ask(hub, "health")
    assert (answer.code, b'"agent"' in answer.body) == (503, True)
    await hub.until(lambda: hub.resources.watch.known)
    assert (await ask(hub, "health")).code == 200


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("database or disk is full", Trouble.FULL),
        ("database disk image is malformed", Trouble.DAMAGED),
        ("file is not a database", Trouble.DAMAGED),
        ("unable to open database file", Trouble.CLOSED),
        ("connection refused", Trouble.AWAY),
        ("database is locked", Trouble.AWAY),
    ],
)
def test_what_is_the_matter_is_told_apart(said: str, expected: Trouble) -> None:
    assert trouble.of(OperationalError("", {}, sqlite3.OperationalError(said))) is expected
    assert trouble.of(DatabaseError("", {}, sqlite3.DatabaseError(said))) is expected
    assert trouble.of(IntegrityError("", {}, sqlite3.IntegrityError(said))) is None
    assert trouble.of(ValueError(said)) is None


def test_a_damaged_database_is_told_with_its_remedy(tmp_path: Path) -> None:
    file = tmp_path / "labcommons.sqlite"
    file.write_bytes(b"this is no database" * 1000)
    store = Store(f"sqlite:///{file}")
    with pytest.raises(StoreError, match="backup") as caught:
        store.migrate()
    assert caught.value.trouble is Trouble.DAMAGED
    assert str(file) in str(caught.value)
    file.unlink()
    store.migrate()  # what is put in its place is taken
    store.close()
