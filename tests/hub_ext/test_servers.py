"""Servers as the hub's own handlers start and stop them: what leans on JupyterHub's private parts.

A real hub with its database, and LabSpawner on a runtime in memory whose servers answer.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jupyterhub import orm
from jupyterhub.handlers.base import BaseHandler
from sqlalchemy import event, select
from sqlalchemy.orm import Session
from traitlets.config import Config

from commons.errors import LabError
from commons.scopes import Scope
from commons.site import Site
from commons.store import GpuNotice, Lease, Store, ends
from commons.store.ends import Ending
from hub_ext import guarded_hub
from hub_ext.servers import owners
from hub_ext.stops import AnnouncedStops
from rig.answering import Here
from rig.hub_in_memory import Lab, hub_lab
from rig.postgres import Postgres
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.batches import Admission
from spawner.gpu.watch.lease_controller import LeaseController
from spawner.starts import kept as requests
from spawner.warm.keeper import WarmKeeper

ALICE = ("alice", "")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    return store


@pytest.fixture
def hub_url(tmp_path: Path) -> str:
    """The hub's own database."""
    return f"sqlite:///{tmp_path}/hub.sqlite"


@pytest.fixture
async def lab(store: Store, site: Site, tmp_path: Path, hub_url: str) -> AsyncIterator[Lab]:
    config = Config({"JupyterHub": {"db_url": hub_url}})
    async with hub_lab(store, site, tmp_path, config) as lab:
        lab.resources.failed = lab.servers.look_soon
        yield lab
    store.close()


def tokens(lab: Lab) -> int:
    notes = lab.app.db.query(orm.APIToken).filter(orm.APIToken.note.startswith("Server at "))
    return int(notes.count())


async def test_what_the_hub_knows_is_read_by_its_own_thread_alone(lab: Lab) -> None:
    # Every test with this hub fails where it is not so: here, that this would be seen.
    spawner = await lab.started(gpus=1)
    for read in (
        lambda: spawner.user.name,
        lambda: spawner.name,
        lambda: spawner.user.groups,
        lambda: lab.app.db.query(orm.User.name).first(),
    ):
        with pytest.raises(AssertionError, match="in store"):
            await lab.resources.store.read(lambda _session, read=read: read())  # type: ignore[misc]
    assert len(lab.one_thread.seen) == 4
    lab.one_thread.seen.clear()


async def test_what_is_chosen_is_kept_whatever_is_asked_while_a_start_waits(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, taking = Here(), lab.resources.turns.take

    async def held(*arguments: Any, **named: Any) -> None:
        await waits.wait()
        await taking(*arguments, **named)

    monkeypatch.setattr(lab.resources.turns, "take", held)
    await lab.servers.start("alice", "", {"size": "small"})
    await waits.reached.wait()
    assert not lab.app.db.dirty
    assert (await lab.rest("GET", "users/alice"))[0] == 200
    waits.set()
    await lab.until(lambda: lab.spawner().ready)
    with closing(orm.new_session_factory(lab.app.db_url)()) as database:
        kept = database.query(orm.Spawner).one().user_options
    assert kept == lab.spawner().user_options
    assert kept["environment"] == "data"


async def test_requests_that_come_together_begin_in_rounds_of_their_own(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, begun = 0, []
    ask = BaseHandler.get_current_user

    async def asked(handler: BaseHandler) -> object:
        begun.append(rounds)
        return await ask(handler)

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(BaseHandler, "get_current_user", asked)
    counting = asyncio.create_task(count())
    answers = await asyncio.gather(*(lab.rest("GET", "users/alice") for _ in range(8)))
    counting.cancel()
    assert [status for status, _ in answers] == [200] * 8
    assert len(set(begun)) == 8


async def test_somebody_whom_the_hub_knows_is_not_read_again_and_somebody_else_is(lab: Lab) -> None:
    handler, statements = lab.servers._handler(), []
    event.listen(
        lab.app.db.get_bind(), "before_cursor_execute", lambda *call: statements.append(call[2])
    )
    known = lab.app.users["alice"]
    statements.clear()
    handler = guarded_hub._in_turn(BaseHandler)(lab.app.tornado_application, handler.request)
    assert handler.find_user("alice") is known
    # JupyterHub asks first whether the connection holds.
    assert len([one for one in statements if "FROM" in one]) == 1
    assert handler.find_user("nobody") is None
    lab.app.db.add(orm.User(name="new"))
    lab.app.db.commit()
    assert handler.find_user("new").name == "new"
    lab.app.users.delete("new")
    assert handler.find_user("new") is None


async def test_a_server_is_started_and_stopped_as_by_the_hubs_own_pages(lab: Lab) -> None:
    assert lab.servers.known() == set()
    spawner = await lab.started(gpus=1)
    assert lab.servers.known() == {ALICE}
    assert lab.servers.running() == {ALICE: spawner.container_ref}
    assert "/user/alice/" in lab.app.proxy.table
    assert tokens(lab) == 1
    await lab.servers.stop(*ALICE)
    assert lab.servers.known() == set()
    assert lab.servers.running() == {}
    assert "/user/alice/" not in lab.app.proxy.table
    assert lab.memory.servers == {}
    await lab.servers.stop(*ALICE)  # of what is not there, nothing is done


async def test_who_is_not_known_gets_no_server(lab: Lab) -> None:
    with pytest.raises(LookupError, match="mallory"):
        await lab.servers.start("mallory", "", {})
    await lab.servers.stop("mallory", "")
    await lab.servers.look_again("mallory", "")


@pytest.mark.parametrize(
    ("now", "code"),
    [
        ({"teams": {"vision": "member"}}, None),
        ({"teams": {}}, "account_not_yours"),
        (None, "account_not_confirmed"),
    ],
)
async def test_who_lost_a_team_while_waiting_is_not_granted_at_its_cost(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, now: dict[str, Any] | None, code: str | None
) -> None:
    """Kind: what was right when somebody asked is looked at again when it is granted."""
    await lab.servers.start("bob", "", {"gpus": 1, "gpu_type": "T4"})
    await lab.until(lambda: lab.spawner("bob").ready)
    alice = lab.app.users["alice"]

    async def at_login() -> dict[str, Any]:
        return {"teams": {"vision": "member"}}

    async def refreshed(_user: object, _handler: object = None) -> Any:
        return now is not None and {"name": "alice", "auth_state": now}

    monkeypatch.setattr(alice, "get_auth_state", at_login)
    asked = {"gpus": 1, "gpu_type": "T4", "account": "group:vision"}
    await lab.servers.start("alice", "", asked)
    await lab.until(lambda: lab.spawner().waits_for == "gpus")
    monkeypatch.setattr(lab.app.authenticator, "refresh_user", refreshed)
    await lab.servers.stop("bob", "")
    spawner = lab.spawner()
    await lab.until(lambda: spawner.ready or not spawner.active)
    assert spawner.ready is (code is None)
    last = lab.resources.store.transact(
        lambda s: s.scalars(select(Lease).where(Lease.username == "alice")).one()
    )
    assert last.ended_reason == (code and f"refused: {code}")


async def test_a_start_that_is_broken_off_leaves_nothing(lab: Lab) -> None:
    lab.memory.faults["start:created"] = held = asyncio.Event()
    await lab.servers.start("alice", "", {"gpus": 1})
    await lab.until(lambda: lab.memory.servers)
    assert lab.servers.known() == {ALICE}
    assert lab.servers.running() == {}
    stopping = asyncio.create_task(lab.servers.stop(*ALICE))
    held.set()
    await stopping
    await lab.until(lambda: not lab.memory.servers)
    assert lab.servers.known() == set()


async def test_tokens_of_servers_that_are_gone_are_taken_back_and_no_others(lab: Lab) -> None:
    await lab.started()
    assert lab.servers.take_tokens_back() == 0
    gone = lab.app.users["alice"].new_api_token(
        note="Server at /user/alice/old/", scopes=["access:servers!server=alice/old"]
    )
    kept = lab.app.users["alice"].new_api_token(note="mine")
    earlier = lab.app.users["alice"].new_api_token(
        note="Server at /user/alice/", scopes=["access:servers!server=alice/"]
    )
    assert lab.servers.take_tokens_back() == 2
    assert orm.APIToken.find(lab.app.db, gone) is None
    assert orm.APIToken.find(lab.app.db, earlier) is None, "of the server that ran before"
    assert orm.APIToken.find(lab.app.db, lab.spawner().api_token) is not None
    assert orm.APIToken.find(lab.app.db, kept) is not None
    await lab.servers.stop(*ALICE)


def test_a_hub_that_comes_back_asks_no_more_of_its_database_for_many_servers(hub_url: str) -> None:
    make = orm.new_session_factory(hub_url)
    with closing(make()) as database:
        for number in range(30):
            person = orm.User(name=f"s{number}")
            database.add(orm.Spawner(name="", user=person, server=orm.Server()))
        database.commit()
    statements: list[str] = []
    with closing(make()) as database:
        event.listen(
            database.get_bind(), "before_cursor_execute", lambda *call: statements.append(call[2])
        )
        held = owners(database)
        # As JupyterHub looks at them.
        query = database.query(orm.Spawner).filter(orm.Spawner.server != None)  # noqa: E711
        for row in query.populate_existing():
            assert row.user.orm_spawners[""].server is row.server
        assert len(held) == 30
        assert len(statements) < 30


async def test_who_found_nothing_to_do_does_not_ask_again_before_somebody_writes(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, log, asked = lab.resources, lab.app.log, []
    read = Store.read

    async def counted(store: Store, work: Callable[[Session], object]) -> object:
        asked.append(work)
        return await read(store, work)

    def long_ago() -> None:
        for file in tmp_path.glob("labcommons.sqlite*"):
            os.utime(file, (time.time() - 60,) * 2)

    def written() -> None:
        row = GpuNotice(username="alice", code="x", data={}, key=uuid.uuid4().hex)
        shared.store.transact(lambda session: session.add(row))

    admission = Admission(shared.store)
    for look in (
        admission._look,
        LeaseController(admission, lab.servers, log).look,
        WarmKeeper(shared.store, lab.servers, set(), lab.servers.members, log).look,
        AnnouncedStops(shared.store, lab.servers).look,
    ):
        written()
        long_ago()
        await look()
        admission._version = await shared.store.read(transitions.version)
        await look()
        monkeypatch.setattr(Store, "read", counted)
        asked.clear()
        await look()
        assert asked == [], look
        written()
        await look()
        assert asked != [], look
        monkeypatch.undo()


async def test_the_hub_is_told_of_a_server_that_has_no_container(lab: Lab) -> None:
    spawner = await lab.started(gpus=1)
    spawner.stop_polling()
    lab.memory.finish(spawner.container_ref, 3)
    told: list[tuple[str, str]] = []
    await lab.reconciler(told.append).once()
    assert told == [ALICE]
    await lab.servers.look_again(*ALICE)
    assert lab.servers.known() == set()
    assert "/user/alice/" not in lab.app.proxy.table
    told.clear()
    await lab.reconciler(told.append).once()
    assert told == []


async def test_a_server_that_the_hub_never_began_to_poll_is_seen_to_be_gone(lab: Lab) -> None:
    """As after a start whose end the hub's database did not live to see."""
    spawner = await lab.started()
    spawner.stop_polling()
    spawner._callbacks.clear()
    lab.memory.servers.clear()
    spawner.container_ref = ""
    assert lab.servers.running() == {ALICE: ""}
    await lab.servers.look_again(*ALICE)
    assert lab.servers.known() == set()


async def test_a_silent_runtime_ends_no_server(lab: Lab) -> None:
    spawner = await lab.started()
    lab.memory.silence()
    await lab.servers.look_again(*ALICE)
    assert spawner.ready
    lab.memory.faults.clear()
    await lab.servers.look_again(*ALICE)
    assert spawner.ready
    await lab.servers.stop(*ALICE)


class WithPostgres:
    """Tests whose hub has its database in a PostgreSQL that can be killed."""

    @pytest.fixture
    def mortal(self) -> Iterator[Postgres]:
        with tempfile.TemporaryDirectory(prefix="lcpg") as folder:
            Path(folder).chmod(0o755)
            with Postgres(Path(folder, "pg")) as server:
                yield server

    @pytest.fixture
    def hub_url(self, mortal: Postgres) -> str:
        return mortal.database("hub")


class TestAStartInWhichTheHubsDatabaseIsKilled(WithPostgres):
    """The kind: what the hub believes and what runs are the same again, without anybody's doing."""

    async def test_leaves_no_server_that_is_ready_and_not_there(
        self, lab: Lab, mortal: Postgres
    ) -> None:
        await lab.resources.watch.whole()
        lab.memory.faults["start:created"] = held = asyncio.Event()
        await lab.servers.start("alice", "", {})
        await lab.until(lambda: lab.memory.servers)
        spawner = lab.spawner()
        mortal.kill()
        held.set()
        await lab.until(lambda: not spawner.pending and not lab.servers._looks)
        mortal.start()
        # So says JupyterHub, which could not write down that it is not.
        assert lab.servers.running() == {ALICE: ""}
        assert spawner.ready
        # The reconciler's rounds go on; one is enough as soon as the database answers.
        await lab.reconciler(lab.servers.look_soon).once()
        await lab.until(lambda: not spawner.ready and not lab.servers._looks)
        assert lab.servers.known() == set()
        assert lab.memory.servers == {}
        # And the next start is a start like any other.
        await lab.started()
        await lab.servers.stop(*ALICE)


async def test_a_stop_of_a_server_that_is_not_there_is_a_stop(lab: Lab) -> None:
    """DELETE answered 204 and left it, where the hub had not begun to poll it."""
    spawner = await lab.started()
    spawner.stop_polling()
    spawner._callbacks.clear()
    lab.memory.servers.clear()
    spawner.container_ref = ""
    assert (await lab.rest("DELETE", "users/alice/server"))[0] == 204
    assert lab.servers.known() == set()


# How servers end --------------------------------------------------------------------------------


async def told(lab: Lab) -> list[tuple[str, str | None]]:
    """What alice was told, and of which lease."""
    return await lab.resources.store.read(
        lambda s: [(row.code, row.lease_id) for row in s.query(GpuNotice).order_by(GpuNotice.id)]
    )


async def test_a_server_that_ends_is_gone_at_once_for_the_hub_and_not_at_its_next_poll(
    lab: Lab,
) -> None:
    """The kind: the hub acts on what the runtime says, and does not wait for its own round."""
    spawner = await lab.started()
    spawner.stop_polling()  # whatever happens now is by the event
    handle = spawner.container_ref
    await lab.resources.watch.whole()
    lab.resources.watch.ended = lambda state: lab.servers.look_soon((state.user, state.server))
    lab.memory.finish(handle, 3)
    await lab.until(lambda: lab.servers.known() == set())
    end = await lab.resources.store.read(lambda s: ends.last(s, "alice", ""))
    assert end is not None
    assert (end.key, end.cause, end.data["exit_code"]) == (handle, "ended", 3)
    assert end.data["environment"] == "data:1"
    assert await told(lab) == [("ended", None)]


async def test_what_the_runtime_cannot_say_any_more_is_not_gone(lab: Lab) -> None:
    spawner = await lab.started()
    await lab.resources.watch.whole()
    lab.memory.silence()
    lab.servers.look_soon(ALICE)
    await lab.until(lambda: not len(lab.servers._looks))
    assert spawner.ready
    assert await told(lab) == []
    lab.memory.faults.clear()
    await lab.servers.stop(*ALICE)


@pytest.mark.parametrize(
    ("exit_code", "out_of_memory", "cause"),
    [
        (0, False, "ended"),
        (1, False, "ended"),
        (137, False, "killed"),
        (143, False, "killed"),
        (137, True, "out_of_memory"),
        # One process of many was ended for want of memory, and the server went on to its own end.
        (1, True, "ended"),
    ],
)
async def test_how_a_server_ended_is_written_once_and_told(
    lab: Lab, exit_code: int, out_of_memory: bool, cause: str
) -> None:
    """The kind: every end has its cause, and its owner hears of it, with GPUs or without."""
    spawner = await lab.started()
    lab.memory.finish(spawner.container_ref, exit_code, out_of_memory)
    await lab.looked()
    end = await lab.resources.store.read(lambda s: ends.last(s, "alice", ""))
    assert end is not None
    assert (end.cause, end.data["exit_code"]) == (cause, exit_code)
    assert await told(lab) == [(cause, None)]


async def test_the_end_of_its_log_is_kept_for_its_owner_alone(lab: Lab) -> None:
    """Kind: ends that only the server itself can explain, of a start and later; hostile output."""
    spawner = await lab.started()
    lab.memory.output[spawner.container_ref] = f"x\n{spawner.api_token} <b>ImportError</b>\x1b[0m"
    lab.memory.finish(spawner.container_ref, 1)
    await lab.looked()
    end = await lab.resources.store.read(lambda s: ends.last(s, "alice", ""))
    assert end is not None
    assert end.data["log"] == "x\n[hidden] <b>ImportError</b>"
    [row] = await lab.resources.store.read(lambda s: list(s.scalars(select(GpuNotice))))
    assert "log" not in row.data


async def test_a_start_that_fails_keeps_what_the_server_said(lab: Lab) -> None:
    here = lab.memory.faults["start:started"] = Here()
    await lab.servers.start("alice", "", {})
    await here.reached.wait()
    [handle] = lab.memory.servers
    lab.memory.output[handle] = "SyntaxError: jupyter_server_config.py"
    lab.memory.finish(handle, 3)
    here.set()
    await lab.until(lambda: not lab.spawner().active)
    end = await lab.resources.store.read(lambda s: ends.last(s, "alice", ""))
    assert end is not None
    assert (end.cause, end.data["log"]) == ("start_failed", "SyntaxError: jupyter_server_config.py")


async def test_a_container_that_was_taken_away_is_said_to_be(lab: Lab) -> None:
    spawner = await lab.started(gpus=1)
    lease = spawner.lease_id
    await lab.memory.remove(spawner.container_ref)
    await lab.looked()
    [(code, of)] = await told(lab)
    assert of == lease
    # Whichever was seen first: that it was killed, or that it is not there any more.
    assert code in ("removed", "killed")


async def test_who_stops_a_server_and_why_is_kept_and_ones_own_click_is_not_told(
    lab: Lab,
) -> None:
    await lab.started()
    await lab.servers.stop(*ALICE)
    end = await lab.resources.store.read(lambda s: ends.last(s, "alice", ""))
    assert end is not None
    assert end.cause == "stopped"
    assert await told(lab) == []
    await lab.started()
    why = Ending("stopped_by", by="root", message="The machine goes down at five.")
    await lab.servers.stop(*ALICE, why)
    end = await lab.resources.store.read(lambda s: ends.last(s, "alice", ""))
    assert end is not None
    assert (end.cause, end.by, end.message) == ("stopped_by", why.by, why.message)
    assert await told(lab) == [("stopped_by", None)]
    # The next stop is its owner's again.
    assert lab.spawner().ending is None


async def test_a_hub_that_was_killed_while_it_stopped_a_server_keeps_the_cause(lab: Lab) -> None:
    spawner = await lab.started()
    await spawner._record(Ending("idle"))  # and killed before the container was stopped
    lab.memory.finish(spawner.container_ref, 0)
    await lab.looked()
    assert await told(lab) == [("idle", None)]


async def test_a_stop_that_fails_writes_no_end(lab: Lab) -> None:
    spawner = await lab.started()
    lab.memory.silence("stop")
    with pytest.raises(LabError):
        await spawner.stop()
    assert await lab.resources.store.read(lambda s: ends.last(s, "alice", "")) is None
    lab.memory.faults.clear()
    await lab.servers.stop(*ALICE)


async def test_what_an_earlier_hub_had_begun_is_told_as_lost(lab: Lab) -> None:
    spawner = await lab.started()
    await lab.servers.stop(*ALICE)
    spec = next(iter(lab.memory.specs.values()))
    handle = await lab.memory.start(spec)
    lab.memory.servers[handle] = lab.memory.servers[handle].model_copy(update={"created": 1.0})
    await lab.reconciler(lambda _: None).once()
    assert lab.memory.servers == {}
    assert await told(lab) == [("lost_in_restart", None)]
    assert spawner.container_ref == ""


async def test_what_is_started_again_is_not_told_as_lost(lab: Lab) -> None:
    await lab.started()
    await lab.servers.stop(*ALICE)
    handle = await lab.memory.start(next(iter(lab.memory.specs.values())))
    lab.memory.servers[handle] = lab.memory.servers[handle].model_copy(update={"created": 1.0})
    await lab.resources.store.run(lambda s: requests.keep(s, *ALICE, {"environment": "data"}))
    await lab.reconciler(lambda _: None).once()
    assert lab.memory.servers == {}
    assert await told(lab) == []


def test_who_answers_for_a_folder_are_administrators_and_who_leads_there(lab: Lab) -> None:
    found, people = lab.app.db, lab.app.users
    found.add(
        orm.Group(name="team:vision", users=[people["alice"].orm_user, people["bob"].orm_user])
    )
    found.add(orm.Group(name="team:vision:leads", users=[people["bob"].orm_user]))
    people["carol"].orm_user.admin = True
    found.commit()
    assert {"bob", "carol"} <= lab.servers.answerable(Scope("team", "vision"))
    assert "alice" not in lab.servers.answerable(Scope("team", "vision"))
    assert "bob" not in lab.servers.answerable(Scope("personal", "alice"))
