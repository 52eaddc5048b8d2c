"""The queue of builds: whose turn it is, what a job may become, and what a restart leaves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from hub_ext.site import Builds
from hub_ext.store import Store
from hub_ext.store.environments import BUILD_MOVES, BuildState, EnvironmentBuild
from hub_ext.store.models import utcnow
from spawner.errors import NotAvailable
from spawner.tiers import jobs
from spawner.tiers.tier import SHARED, Kind, Tier

LIMITS = Builds(at_once=2, per_person=1, waiting=3)
VISION = Tier(Kind.TEAM, "vision")


def ask(store: Store, who: str = "alice", name: str = "one", tier: Tier | None = None) -> str:
    request = jobs.Request("create", tier or Tier(Kind.PERSONAL, who), name, who, spec="x")
    return store.transact(lambda s: jobs.enqueue(s, request, LIMITS)).id


def claim(store: Store) -> str | None:
    job = store.transact(lambda s: jobs.claim(s, LIMITS))
    return job.id if job else None


def state(store: Store, job_id: str) -> BuildState:
    job = store.transact(lambda s: jobs.get(s, job_id), read=True)
    assert job is not None
    return job.state


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
    store.transact(lambda s: jobs.end(s, first, BuildState.DONE, "", "1"))
    assert claim(store) == second


def test_the_database_itself_refuses_a_second_one_that_runs(store: Store) -> None:
    first, second = ask(store, "bob", "py", VISION), ask(store, "eve", "py", VISION)

    def run_both(session: Any) -> None:
        for job_id in (first, second):
            jobs.move(session.get(EnvironmentBuild, job_id), BuildState.RUNNING)

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
    store.transact(lambda s: jobs.cancel(s, waits))
    assert claim(store) == runs
    store.transact(lambda s: jobs.cancel(s, runs))
    assert (state(store, waits), state(store, runs)) == (BuildState.CANCELLED, BuildState.RUNNING)
    assert store.transact(lambda s: jobs.progress(s, runs, 50, "half"))


def test_progress_never_goes_back(store: Store) -> None:
    job_id = ask(store)
    claim(store)
    for percent in (40, 20, 250):
        assert not store.transact(lambda s, p=percent: jobs.progress(s, job_id, p, f"at {p}"))
    job = store.transact(lambda s: jobs.get(s, job_id), read=True)
    assert job is not None
    assert (job.percent, job.message) == (100, "at 250")


@pytest.mark.parametrize("before", list(BuildState))
@pytest.mark.parametrize("after", list(BuildState))
def test_a_job_moves_as_the_table_says_and_not_otherwise(
    before: BuildState, after: BuildState
) -> None:
    job = EnvironmentBuild(id="x", state=before)
    if after in BUILD_MOVES[before]:
        jobs.move(job, after)
        assert job.state is after
    else:
        with pytest.raises(jobs.JobMoveError):
            jobs.move(job, after)


def test_after_a_restart_what_ran_is_taken_up_again_and_given_up_at_last(store: Store) -> None:
    job_id = ask(store)
    for _ in range(jobs.MAX_ATTEMPTS - 1):
        assert claim(store) == job_id
        assert store.transact(jobs.recover) == []
    assert claim(store) == job_id
    assert store.transact(jobs.recover) == [job_id]
    assert state(store, job_id) is BuildState.FAILED


def test_a_restart_does_not_bring_back_what_somebody_cancelled(store: Store) -> None:
    job_id = ask(store)
    claim(store)
    store.transact(lambda s: jobs.cancel(s, job_id))
    store.transact(jobs.recover)
    assert state(store, job_id) is BuildState.CANCELLED


def test_only_what_ended_long_ago_is_forgotten(store: Store) -> None:
    ended, waits = ask(store, "alice"), ask(store, "bob", tier=SHARED)
    claim(store)
    store.transact(lambda s: jobs.end(s, ended, BuildState.FAILED, "no"))
    later = utcnow() + timedelta(days=31)
    assert store.transact(lambda s: jobs.forget(s, timedelta(days=30))) == []
    assert store.transact(lambda s: jobs.forget(s, timedelta(days=30), later)) == [ended]
    assert state(store, waits) is BuildState.QUEUED or state(store, waits) is BuildState.RUNNING
