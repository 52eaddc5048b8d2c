"""The queue of builds: whose turn it is, what a job may become, and what a restart leaves."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from commons.audit import AuditTrail
from commons.errors import NotAvailable
from commons.i18n import gettext_for
from commons.messages import verbatim
from commons.scopes import SHARED, Scope, personal
from commons.site import Builds, Site
from commons.store import Store
from commons.store.environments import BUILD_MOVES, BuildState, EnvironmentBuild
from commons.store.models import utcnow
from environments.builds import queue, runner
from environments.builds.messages import in_words
from environments.builds.runner import Runner
from environments.messages import steps
from spawner.runtime.memory import MemoryRuntime

LIMITS = Builds(at_once=2, per_person=1, waiting=3)
VISION = Scope("team", "vision")


def ask(store: Store, who: str = "alice", name: str = "one", scope: Scope | None = None) -> str:
    request = queue.BuildRequest("create", scope or personal(who), name, who, spec="x")
    return store.transact(lambda s: queue.enqueue(s, request, LIMITS)).id


def claim(store: Store) -> str | None:
    job = store.transact(lambda s: queue.claim(s, LIMITS))
    return job.id if job else None


def state(store: Store, job_id: str) -> BuildState:
    job = store.transact(lambda s: queue.get(s, job_id), read=True)
    assert job is not None
    return job.state


async def test_a_job_begins_when_it_is_asked_for_or_may_and_not_at_the_next_look(
    store: Store, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: asyncio.Queue[str] = asyncio.Queue()
    rounds, over, wait_for = 0, 0, 1
    take, news = Runner._take, Store.news

    async def taking(self: Runner) -> None:
        nonlocal rounds, over
        rounds += 1
        await take(self)
        over += 1

    async def listening(self: Store, channel: str) -> AsyncIterator[None]:
        nonlocal wait_for
        wait_for = sys.maxsize
        async for _ in news(self, channel):
            wait_for = min(wait_for, rounds + 1)  # the one that this begins
            yield

    monkeypatch.setattr(Runner, "_take", taking)
    monkeypatch.setattr(Store, "news", listening)
    monkeypatch.setattr(runner, "LOOK", 1000)
    monkeypatch.setattr(Runner, "_begin", lambda _, job: begun.put_nowait(job.id))

    async def nobody(_name: str) -> None:
        return None

    log, audit = logging.getLogger("test"), AuditTrail(None)
    builds = Runner(MemoryRuntime(), store, site, tmp_path, nobody, audit, log)
    running = asyncio.create_task(builds.forever())
    async with asyncio.timeout(20):
        while rounds == 0 or over < wait_for:  # until nothing but news begins another
            await asyncio.sleep(0.01)
        first = ask(store, "alice", "one")
        assert await begun.get() == first
        ask(store, "alice", "two")
        other = ask(store, "bob", "three")
        assert await begun.get() == other
        store.transact(lambda s: queue.end(s, first, BuildState.DONE, "", "1"))
        assert await begun.get() not in (first, other)
    running.cancel()
    await asyncio.wait([running])


def test_jobs_run_in_the_order_in_which_they_were_asked_for(store: Store) -> None:
    first, second = ask(store, "alice"), ask(store, "bob")
    assert [claim(store), claim(store)] == [first, second]


def test_one_person_does_not_take_every_place(store: Store) -> None:
    first = ask(store, "alice", "one")
    ask(store, "alice", "two")
    others = ask(store, "bob", "three")
    assert [claim(store), claim(store), claim(store)] == [first, others, None]


def test_no_more_run_at_once_than_the_site_allows(store: Store) -> None:
    for who in ("alice", "bob", "dan"):
        ask(store, who)
    assert [bool(claim(store)) for _ in range(3)] == [True, True, False]


def test_two_jobs_for_one_environment_run_one_after_the_other(store: Store) -> None:
    first = ask(store, "bob", "py", VISION)
    second = ask(store, "eve", "py", VISION)
    assert [claim(store), claim(store)] == [first, None]
    store.transact(lambda s: queue.end(s, first, BuildState.DONE, "", "1"))
    assert claim(store) == second


def test_the_database_itself_refuses_a_second_one_that_runs(store: Store) -> None:
    first, second = ask(store, "bob", "py", VISION), ask(store, "eve", "py", VISION)

    def run_both(session: Any) -> None:
        for job_id in (first, second):
            queue.move(session.get(EnvironmentBuild, job_id), BuildState.RUNNING)

    with pytest.raises(IntegrityError):
        store.transact(run_both)


def test_who_has_many_waiting_is_told_so(store: Store) -> None:
    for number in range(LIMITS.waiting):
        ask(store, "alice", f"env{number}")
    with pytest.raises(NotAvailable, match="3 of your builds are waiting"):
        ask(store, "alice", "one-more")
    assert ask(store, "bob")


def test_what_waits_is_cancelled_at_once_and_what_runs_is_asked_to_end(store: Store) -> None:
    waits, runs = ask(store, "alice"), ask(store, "bob")
    store.transact(lambda s: queue.cancel(s, waits))
    assert claim(store) == runs
    store.transact(lambda s: queue.cancel(s, runs))
    assert (state(store, waits), state(store, runs)) == (BuildState.CANCELLED, BuildState.RUNNING)
    assert store.transact(lambda s: queue.progress(s, runs, 50, verbatim("half")))


def test_progress_never_goes_back(store: Store) -> None:
    job_id = ask(store)
    claim(store)
    for percent in (40, 20, 250):
        assert not store.transact(
            lambda s, p=percent: queue.progress(s, job_id, p, verbatim(f"at {p}"))
        )
    job = store.transact(lambda s: queue.get(s, job_id), read=True)
    assert job is not None
    assert (job.percent, job.message) == (100, "at 250")


@pytest.mark.parametrize("before", list(BuildState))
@pytest.mark.parametrize("after", list(BuildState))
def test_a_job_moves_as_the_table_says_and_not_otherwise(
    before: BuildState, after: BuildState
) -> None:
    job = EnvironmentBuild(id="x", state=before)
    if after in BUILD_MOVES[before]:
        queue.move(job, after)
        assert job.state is after
    else:
        with pytest.raises(queue.JobMoveError):
            queue.move(job, after)


def test_after_a_restart_what_ran_is_taken_up_again_and_given_up_at_last(store: Store) -> None:
    job_id = ask(store)
    for _ in range(queue.MAX_ATTEMPTS - 1):
        assert claim(store) == job_id
        assert store.transact(queue.recover) == []
    assert claim(store) == job_id
    assert store.transact(queue.recover) == [job_id]
    assert state(store, job_id) is BuildState.FAILED


def test_a_restart_does_not_bring_back_what_somebody_cancelled(store: Store) -> None:
    job_id = ask(store)
    claim(store)
    store.transact(lambda s: queue.cancel(s, job_id))
    store.transact(queue.recover)
    assert state(store, job_id) is BuildState.CANCELLED


def test_only_what_ended_long_ago_is_forgotten(store: Store) -> None:
    ended, waits = ask(store, "alice"), ask(store, "bob", scope=SHARED)
    claim(store)
    store.transact(lambda s: queue.end(s, ended, BuildState.FAILED, "no"))
    later = utcnow() + timedelta(days=31)
    assert store.transact(lambda s: queue.forget(s, timedelta(days=30))) == []
    assert store.transact(lambda s: queue.forget(s, timedelta(days=30), later)) == [ended]
    assert state(store, waits) is BuildState.QUEUED or state(store, waits) is BuildState.RUNNING


def test_what_a_build_says_is_read_in_the_readers_language(store: Store) -> None:
    """The kind: what is kept is data, and becomes words where it is read, progress too."""
    job_id = ask(store)
    claim(store)
    store.transact(lambda s: queue.progress(s, job_id, 40, steps.INSTALLED(done=3, total=9)))
    job = store.transact(lambda s: queue.get(s, job_id), read=True)
    assert job is not None
    assert job.message == "3 of 9 packages installed"
    assert in_words(job.said, gettext_for("zh_CN")) == "已安装 3 个软件包（共 9 个）"
