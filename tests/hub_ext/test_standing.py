"""Why servers ended, told to their owners: stops with a message, starts that a restart has cost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any

import pytest
from jinja2 import Environment
from jupyterhub import orm
from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import BadRequest
from commons.store import ends
from commons.store.ends import Ending
from commons.store.models import (
    AnnouncedStop,
    EnvironmentVersion,
    GpuDevice,
    GpuWatch,
    Lease,
    utcnow,
)
from hub_ext import standing
from hub_ext.pages import HubPageExtension
from hub_ext.servers import unfinished_starts
from hub_ext.stops import AnnouncedStops, read_request
from spawner import stops
from spawner.gpu.ledger import transitions
from spawner.gpu.watch.lease_controller import LeaseController

from .test_servers import ALICE, Lab, hub_url, lab, store

__all__ = ["hub_url", "lab", "store"]


def english(message: str) -> str:
    return message


def end_of(lab: Lab) -> standing.End | None:
    shared = lab.resources
    return shared.store.transact(
        lambda s: standing.last_end(s, *ALICE, shared.site.sizes, english, UTC)
    )


async def test_a_stop_by_an_administrator_says_who_and_what_they_said(lab: Lab) -> None:
    """Kind: an administrator's stop carries a message that the person reads afterwards."""
    await lab.started()
    await lab.servers.stop(*ALICE, stops.ending("carol", "The machine is serviced at 18:00."))
    end = end_of(lab)
    assert end is not None
    assert "carol stopped the server: “The machine is serviced" in end.sentence
    told = lab.resources.store.transact(lambda s: notices.show(s, "alice", english))
    assert [one.code for one in told] == ["stopped_by"]


async def test_an_announced_stop_is_told_before_and_done_when_it_is_time(lab: Lab) -> None:
    """Kind: with a grace the person reads it before the stop."""
    await lab.started()
    store, done = lab.resources.store, AnnouncedStops(lab.resources.store, lab.servers)

    def say(at: timedelta) -> None:
        stop_at = utcnow() + at
        store.transact(lambda s: stops.announce(s, *ALICE, "carol", "Update", stop_at))

    say(timedelta(minutes=5))
    await done.look()
    assert lab.spawner().ready
    [notice] = store.transact(lambda s: notices.show(s, "alice", english))
    assert (notice.code, notice.server) == ("stops_soon", "")
    say(timedelta(seconds=-1))
    await done.look()
    assert lab.servers.known() == set()
    end = end_of(lab)
    assert end is not None
    assert "“Update”" in end.sentence
    assert store.transact(lambda s: s.get(AnnouncedStop, ALICE)) is None


async def test_an_announced_stop_does_not_hit_a_server_that_was_started_since(lab: Lab) -> None:
    store = lab.resources.store

    def before(session: Session) -> None:
        stops.announce(session, *ALICE, "carol", "", utcnow())
        session.get_one(AnnouncedStop, ALICE).at = utcnow() - timedelta(hours=1)

    await lab.started()
    store.transact(before)
    await AnnouncedStops(store, lab.servers).look()
    assert lab.spawner().ready
    await lab.servers.stop(*ALICE)


@pytest.mark.parametrize(
    "body", [[], {"message": 1}, {"message": "x" * 501}, {"grace": -1}, {"grace": True}]
)
def test_a_stop_with_nonsense_is_refused(body: Any) -> None:
    with pytest.raises(BadRequest):
        read_request(body)


def test_a_message_is_one_line_of_what_can_be_seen() -> None:
    """Kind: what no database keeps, and what turns the sentence around it about."""
    assert read_request({"message": " a\n\tb ", "grace": 60}) == ("a b", 60)
    said = "<b>磁盘 98 %</b> \N{LEFT DOUBLE QUOTATION MARK}é\N{RIGHT DOUBLE QUOTATION MARK}"
    assert read_request({"message": f"\ud83d\0\u202e{said}\u200b"}) == (said, 0)


async def test_a_start_that_a_restart_has_cost_is_told_once(lab: Lab) -> None:
    """Kind: what a restart of the hub has cost is said, and nothing else."""
    database, store = lab.app.db, lab.resources.store
    await lab.started()
    assert unfinished_starts(database) == [], "one that runs is no start that was lost"
    await lab.servers.stop(*ALICE)
    assert unfinished_starts(database) == []
    row = database.query(orm.Spawner).one()
    row.started = utcnow() + timedelta(seconds=1)  # after the stop
    database.commit()
    lost = unfinished_starts(database)
    assert [server for server, _ in lost] == [ALICE]
    for _ in range(2):
        store.transact(lambda s: standing.note_lost(s, lost))
    told = store.transact(lambda s: notices.show(s, "alice", english))
    assert [one.code for one in told] == ["lost_in_restart"]


def test_an_end_by_memory_repeats_what_the_server_said_before_it(lab: Lab) -> None:
    """Kind: the largest is named, where the server could still tell it."""
    store, more = lab.resources.store, [notices.PEAK(memory_bytes=2**30)]

    def write(session: Session) -> None:
        notices.add(
            session,
            username="alice",
            lease_id=None,
            server="",
            code="memory_high",
            data={},
            key="m",
            more=more,
        )
        ends.record(session, "c", *ALICE, Ending("out_of_memory", data={"limit_bytes": 2**30}))

    store.transact(write)
    end = end_of(lab)
    assert end is not None
    assert "1.0 GiB of 1.0 GiB" in end.sentence
    assert "had up to 1.0 GiB" in end.more


def of_time(row: Lease, session: Session) -> None:
    row.held_at = utcnow() - timedelta(hours=4)
    row.ends_at = row.held_at + timedelta(hours=3)
    row.warned_at = row.ends_at - timedelta(minutes=15)


def of_idleness(row: Lease, session: Session) -> None:
    watch = GpuWatch(lease_id=row.id, at=utcnow(), use="idle", idle_seconds=2700.0, warnings=1)
    session.merge(watch)
    transitions.plan_stop(session, row.id, "idle", utcnow())


def of_nobody(row: Lease, session: Session) -> None:
    row.opened_at = None
    row.active_at = utcnow() - timedelta(hours=2, minutes=40)


def of_borrowing(row: Lease, session: Session) -> None:
    transitions.plan_stop(session, row.id, "preempted", utcnow())
    data = {"account": "group:vision", "stop_at": 0}
    key = f"preempted_soon:{row.id}"
    notices.add(
        session, username="alice", lease_id=row.id, code="preempted_soon", data=data, key=key
    )


def of_a_lost_gpu(row: Lease, session: Session) -> None:
    session.get_one(GpuDevice, row.devices[0].device_id).health = "lost"
    transitions.plan_stop(session, row.id, "gpu_lost", utcnow())


@pytest.mark.parametrize(
    ("what", "cause", "words", "todo"),
    [
        (of_time, "time_limit", "its time limit of 3 h was over", "choose a longer time limit"),
        (of_idleness, "idle", "had not been used for 45 min", "Start it again when you need"),
        (of_nobody, "not_opened", "for 3 h after its GPUs were granted", "Start it again"),
        (of_borrowing, "preempted", "borrowed from team vision", "it waits until GPUs are free"),
        (of_a_lost_gpu, "gpu_failed", "a GPU of it had failed (T4)", "it gets another one"),
    ],
)
async def test_what_the_policy_stopped_says_so_with_figures_and_what_to_do(
    lab: Lab, what: Callable[[Lease, Session], None], cause: str, words: str, todo: str
) -> None:
    """Kind: every end by the policy of GPUs: the same figures in the notebook's notice, on “My
    servers” and on the server's page.
    """
    await lab.started(gpus=1)
    shared = lab.resources
    keeper = LeaseController(shared.admission, lab.servers, lab.app.log)
    keeper.up_since -= timedelta(hours=4)
    shared.store.transact(lambda session: what(session.scalars(select(Lease)).one(), session))
    await keeper.look()
    await lab.until(lambda: not lab.servers.known() and not keeper.busy)
    end = end_of(lab)
    assert end is not None
    assert (words in end.sentence, todo in end.more) == (True, True), end
    told = shared.store.transact(lambda s: notices.show(s, "alice", english, UTC))
    assert [(one.sentence, one.more) for one in told if one.ended] == [(end.sentence, end.more)]
    assert [one.code for one in told if one.ended] == [cause]
    await keeper.close()


async def test_who_runs_a_version_that_is_withdrawn_is_told_once_and_goes_on(lab: Lab) -> None:
    """Kind: news about what runs already: the server is not stopped."""
    spawner = await lab.started()
    shared, reconciler = lab.resources, lab.reconciler(lambda _server: None)

    def withdraw(session: Session) -> None:
        row = session.scalars(select(EnvironmentVersion)).one()
        row.withdrawn_at, row.withdrawn_reason = utcnow(), "wrong results in fft."

    await reconciler.once()
    shared.store.transact(withdraw)
    for _ in range(2):
        await reconciler.once()
    [notice] = shared.store.transact(lambda s: notices.show(s, "alice", english))
    assert "withdrawn (data:1: wrong results in fft). The server goes on" in notice.sentence
    assert not notice.ended
    assert spawner.ready


@pytest.mark.parametrize("waits", [True, False])
def test_what_is_urgent_keeps_no_page_from_being_written(waits: bool) -> None:
    """Kind: pages of errors, which JupyterHub writes without waiting for anything."""
    pages = Environment(extensions=[HubPageExtension], enable_async=waits, autoescape=True)
    page = pages.from_string("{% for one in urgent() %}{{ one.cause }}{% endfor %}here")
    assert page.render() == "here"
