"""Sums of days are those of the leases and runs, however often and whenever they are made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from commons.errors import BadRequest
from commons.leases import LeaseState
from commons.principal import Principal
from commons.store import GpuQuota, Store, ends, runs
from commons.store.ends import Ending
from commons.store.models import (
    GpuDevice,
    GpuWatch,
    Lease,
    LeaseDevice,
    ServerRun,
    UsageDay,
    UsageMark,
    UsageMonth,
)
from spawner import server_runs
from spawner.runtime.protocol import ServerState
from spawner.usage import report, rollup
from spawner.usage.days import Figures, cut, total
from spawner.usage.report import EVERYTHING, Asked, By, Of

BEGIN = datetime(2040, 2, 27)  # three days before a month's end, in a leap year
HOUR = timedelta(hours=1)
PEOPLE, ACCOUNTS = ("alice", "bob"), ("group:vision", "course:ml101", "user:alice")
MODELS = {"GPU-0": ("A100", 1.0), "GPU-1": ("A100 1g", 1 / 7), "GPU-2": ("H100", 1.0)}
FEW = settings(
    max_examples=int(os.environ.get("POLICY_EXAMPLES", "120")) // 6,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Use:
    """Something that was used: hours since the beginning; ``device``: none without a GPU."""

    person: str
    account: str
    environment: str
    asked: int
    begin: int
    lasted: int
    device: str | None
    idle: float

    @property
    def end(self) -> int:
        return self.begin + self.lasted


@st.composite
def uses(draw: st.DrawFn) -> list[Use]:
    found = []
    for _ in range(draw(st.integers(0, 7))):
        asked = draw(st.integers(0, 24 * 12))
        found.append(
            Use(
                draw(st.sampled_from(PEOPLE)),
                draw(st.sampled_from(ACCOUNTS)),
                draw(st.sampled_from(("data", "torch"))),
                asked,
                asked + draw(st.integers(0, 30)),
                draw(st.integers(1, 24 * 9)),
                draw(st.sampled_from((None, *MODELS))),
                draw(st.floats(0, 1)),
            )
        )
    return found


def at(hours: float) -> datetime:
    return BEGIN + hours * HOUR


def happen(session: Session, all_of: list[Use], now: float) -> None:
    """What the hub has written by ``now``."""
    for number, use in enumerate(all_of):
        if use.begin > now:
            continue
        ended = at(use.end) if use.end <= now else None
        key, lease = f"c{number}", f"l{number}" if use.device else None
        if lease and session.get(Lease, lease) is None:
            session.add(
                Lease(
                    id=lease,
                    username=use.person,
                    server_name=f"s{number}",
                    state=LeaseState.ACTIVE,
                    account=use.account,
                    gpus=1,
                    weight=2.0,
                    requested_at=at(use.asked),
                    held_at=at(use.begin),
                    container_id=key,
                )
            )
            session.flush()
            session.add(LeaseDevice(lease_id=lease, device_id=use.device, slot=number))
        run = ServerRun(
            key=key,
            username=use.person,
            server_name=f"s{number}",
            account=use.account,
            environment=use.environment,
            cpu=2.0,
            memory=4 * 2**30,
            lease_id=lease,
            began_at=at(use.begin),
        )
        runs.begin(session, run)
        if ended:
            runs.over(session, key, ended)
            done = {"state": LeaseState.ENDED, "ended_at": ended}
            session.execute(update(Lease).where(Lease.id == lease).values(done))
        if lease:
            seen = min(at(use.end), at(now))
            idle = use.idle * (seen - at(use.begin)).total_seconds()
            session.merge(GpuWatch(lease_id=lease, at=seen, use="idle", idle_total=idle))


def prepare(session: Session) -> None:
    for table in (LeaseDevice, GpuWatch, Lease, ServerRun, UsageDay, UsageMonth, UsageMark):
        session.execute(delete(table))
    for device, (model, weight) in MODELS.items():
        session.merge(GpuDevice(id=device, model=model, memory=1, weight=weight, slots=9))


def of_all(all_of: list[Use], now: float) -> Figures:
    """All together, counted by hand."""
    found = []
    for use in all_of:
        if use.begin > now:
            continue
        seconds = 3600.0 * (min(use.end, now) - use.begin)
        weight = MODELS[use.device][1] if use.device else 0.0
        waited = 3600.0 * (use.begin - use.asked)
        found.append(
            Figures(
                gpu_seconds=seconds * weight,
                charged_seconds=seconds * 2.0 if use.device else 0.0,
                idle_seconds=seconds * weight * use.idle,
                cpu_seconds=seconds * 2.0,
                memory_seconds=seconds * 4,
                wait_seconds=waited if use.device else 0.0,
                longest_wait=waited if use.device else 0.0,
                waits=1 if use.device else 0,
                servers=1,
            )
        )
    return total(found)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('usage') / 'store.sqlite'}")
    store.migrate()
    yield store
    store.close()


def close_to(found: Figures, wanted: Figures) -> bool:
    return tuple(found) == pytest.approx(tuple(wanted), abs=1e-3)


def asked(by: By, now: float) -> Asked:
    return Asked((BEGIN - timedelta(days=2)).date(), (at(now) + timedelta(days=2)).date(), by)


@FEW
@given(
    uses(), st.lists(st.integers(0, 24 * 25), max_size=4), st.sampled_from(("UTC", "Asia/Shanghai"))
)
def test_the_sums_are_those_of_leases_and_runs(
    kept: Store, all_of: list[Use], rounds: list[int], zone: str
) -> None:
    """Whenever rounds were, by any of the columns, of days and of months."""
    kept.transact(prepare)
    kept.transact(lambda s: s.merge(GpuQuota(subject="settings", spec={"timezone": zone})))
    for now in (*sorted(rounds), 24 * 25):
        kept.transact(partial(happen, all_of=all_of, now=now))
        rollup.make_all(kept, now=at(now))
        rollup.make_all(kept, now=at(now))  # again: nothing is counted twice
        for by in By:
            found = kept.transact(partial(report.make, asked=asked(by, now), seen=EVERYTHING))
            assert close_to(found.all, of_all(all_of, now)), by
    days = [tuple(row) for row in kept.transact(_rows)]
    rollup.make_all(kept, anew=True, now=at(24 * 25))
    assert [tuple(row) for row in kept.transact(_rows)] == days


def _rows(session: Session) -> list[object]:
    """To the second: in which order they are summed is nothing."""
    query = select(UsageDay).order_by(
        UsageDay.day, UsageDay.username, UsageDay.account, UsageDay.environment, UsageDay.model
    )
    return [
        (
            row.day,
            row.username,
            row.account,
            row.environment,
            row.model,
            *(round(getattr(row, name)) for name in Figures._fields),
        )
        for row in session.scalars(query)
    ]


def test_a_round_that_is_killed_has_done_nothing_and_the_next_one_does_all(store: Store) -> None:
    everything = [Use("alice", "group:vision", "torch", 0, 1, 24 * 40, "GPU-0", 0.5)]
    store.transact(prepare)
    store.transact(partial(happen, all_of=everything, now=24 * 60))
    todo = store.transact(lambda s: rollup.plan(s, at(24 * 60)))
    parts = list(todo.parts)
    assert len(parts) > 1

    def killed(session: Session) -> None:
        rollup.make(session, parts[1], todo, at(24 * 60))
        raise KeyboardInterrupt

    store.transact(partial(rollup.make, part=parts[0], of=todo, now=at(24 * 60)))
    with pytest.raises(KeyboardInterrupt):
        store.transact(killed)
    assert store.transact(lambda s: s.get(UsageMark, rollup.MARK)) is None
    rollup.make_all(store, now=at(24 * 60))
    found = store.transact(partial(report.make, asked=asked(By.PERSON, 24 * 60), seen=EVERYTHING))
    assert close_to(found.all, of_all(everything, 24 * 60))


def test_a_day_of_a_clock_change_has_its_own_length() -> None:
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime(2040, 3, 24, 22)
    days = dict(
        cut(begin, begin + timedelta(days=3), begin.date(), datetime(2040, 3, 27).date(), zone)
    )
    assert [round(seconds / 3600) for seconds in days.values()] == [1, 23, 24, 24]


def test_people_see_their_own_leads_their_team_and_administrators_all(kept: Store) -> None:
    everything = [
        Use("alice", "group:vision", "torch", 0, 1, 5, "GPU-0", 0.0),
        Use("alice", "user:alice", "data", 0, 1, 2, "GPU-1", 0.0),
        Use("bob", "course:ml101", "data", 0, 1, 3, None, 0.0),
    ]
    kept.transact(prepare)
    kept.transact(partial(happen, all_of=everything, now=99))
    rollup.make_all(kept, now=at(99))

    def hours(*groups: str, name: str = "erin", admin: bool = False) -> dict[str, float]:
        who = Principal.from_groups(name, admin, groups)
        seen = report.sight(who)
        found = kept.transact(partial(report.make, asked=asked(By.PERSON, 99), seen=seen))
        return {name: round(line.cpu_seconds / 7200) for name, line in found.lines}

    assert hours("team:vision", name="alice") == {"alice": 7}
    assert hours("team:vision") == {}
    assert hours("team:vision", "team:vision:leads") == {"alice": 5}
    assert hours("course:ml101:instructors") == {"bob": 3}
    assert hours(admin=True) == {"alice": 7, "bob": 3}


def test_a_plot_has_the_most_by_name_and_the_rest_together(kept: Store) -> None:
    names = [f"p{n}" for n in range(12)]
    everything = [
        Use(name, "group:vision", "torch", 0, 1, 2 + n, "GPU-0", 0.0)
        for n, name in enumerate(names)
    ]
    kept.transact(prepare)
    kept.transact(partial(happen, all_of=everything, now=99))
    rollup.make_all(kept, now=at(99))
    for days in (20, 80, 300):
        question = Asked(BEGIN.date() - timedelta(days=1), BEGIN.date() + timedelta(days=days))
        found = kept.transact(partial(report.make, asked=question, seen=EVERYTHING))
        drawn = kept.transact(partial(report.plot, report=found, of=Of.GPU, seen=EVERYTHING))
        assert len(drawn.names) == report.TOP + 1
        assert drawn.names[0] == "p11"
        assert drawn.names[-1] == ""
        every = sum(hours for _, bar in drawn.bars for hours in bar.values())
        assert every == pytest.approx(found.all.gpu_seconds / 3600)


NO_SPANS = (
    ("x", ""),
    ("2026-02-30", ""),
    ("2026-03-02", "2026-03-01"),
    ("0001-01-01", ""),
    ("", "9999-12-31"),
    ("1991-01-01", "2026-01-01"),
)


@pytest.mark.parametrize(("first", "last"), NO_SPANS)
def test_what_is_no_span_is_refused(first: str, last: str) -> None:
    with pytest.raises(BadRequest):
        report.read_span(first, last, datetime(2026, 11, 29, tzinfo=UTC).date())


def test_without_a_word_it_is_the_last_thirty_days() -> None:
    today = datetime(2026, 11, 29, tzinfo=UTC).date()
    assert report.read_span("", "", today) == (today - timedelta(days=29), today)


# -- runs ------------------------------------------------------------------------------------------


def _container(key: str, status: str = "running") -> ServerState:
    marks = {
        "labcommons.environment": "torch:20261101",
        "labcommons.cpu": "1.5",
        "labcommons.memory": str(2**30),
    }
    return ServerState(
        handle=key, user="alice", server="", status=status, created=1_800_000_000, labels=marks
    )


async def test_what_a_killed_hub_did_not_write_is_made_up_for(store: Store) -> None:
    known = await store.read(runs.open_keys)
    await server_runs.compare(store, known, [_container("a"), _container("b", "exited")])
    row = await store.read(lambda s: s.get_one(ServerRun, "a"))
    assert (row.account, row.environment, row.cpu, row.memory) == (
        "user:alice",
        "torch",
        1.5,
        2**30,
    )
    assert row.began_at == datetime(2027, 1, 15, 8)
    assert await store.read(runs.open_keys) == {"a"}
    await server_runs.compare(store, {"a"}, [])
    assert await store.read(runs.open_keys) == set()


async def test_one_that_began_since_the_list_was_read_is_not_taken_for_ended(store: Store) -> None:
    known = await store.read(runs.open_keys)
    await store.run(lambda s: runs.begin(s, server_runs.of_container(_container("new"))))
    await server_runs.compare(store, known, [])
    assert await store.read(runs.open_keys) == {"new"}


async def test_a_run_ends_when_its_end_is_written_and_goes_on_when_that_is_taken_back(
    store: Store,
) -> None:
    await store.run(lambda s: runs.begin(s, server_runs.of_container(_container("a"))))
    await store.run(lambda s: ends.record(s, "a", "alice", "", Ending("stopped")))
    first = await store.read(lambda s: s.get_one(ServerRun, "a"))
    assert first.ended_at is not None
    await store.run(lambda s: ends.record(s, "a", "alice", "", Ending("ended")))
    assert (await store.read(lambda s: s.get_one(ServerRun, "a"))).ended_at == first.ended_at
    await store.run(lambda s: ends.forget(s, "a"))
    assert await store.read(runs.open_keys) == {"a"}
