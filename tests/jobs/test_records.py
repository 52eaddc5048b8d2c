"""The store's side of jobs, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from commons.errors import NotAllowed, NotAvailable
from commons.messages import ENGLISH
from commons.store import Store
from commons.store.models import Job, utcnow
from jobs import records
from jobs.asked import Asked, parse
from jobs.records import State


def put(store: Store, user: str = "alice", **said: object) -> list[int]:
    wanted = parse({"command": ["true"], **said})
    return store.transact(lambda s: [one.id for one in records.submit(s, wanted, user)])


def end(store: Store, job: int, state: State) -> None:
    def work(session: object) -> None:
        records.begin(session, job)  # type: ignore[arg-type]
        records.end(session, job, state)  # type: ignore[arg-type]
        records.settle(session, job)  # type: ignore[arg-type]

    store.transact(work)


def test_two_hundred_arrays_fill_what_one_person_may_have_and_no_more(store: Store) -> None:
    wanted = Asked(("true",), tasks=tuple(range(1000)))
    for _ in range(2):
        store.transact(lambda s: records.submit(s, wanted, "alice"))
    for _ in range(198):
        with pytest.raises(NotAvailable):
            store.transact(lambda s: records.submit(s, wanted, "alice"))
    [bobs] = put(store, "bob")
    due = store.transact(records.due, read=True)
    assert len(due.begin) == records.WINDOW + 1
    assert bobs in due.begin
    assert {why.code for why in due.reasons.values()} == {"job_behind"}


def test_a_number_is_never_given_again(store: Store) -> None:
    [first] = put(store)
    end(store, first, State.DONE)
    store.transact(lambda s: records.forget(s, utcnow() + timedelta(days=91)))
    assert store.transact(lambda s: s.query(Job).count()) == 0
    assert put(store)[0] > first


def test_tasks_are_found_by_the_arrays_number(store: Store) -> None:
    jobs = put(store, array="3-5")
    [alone] = put(store)
    names = store.transact(lambda s: [records.name(one) for one in records.find(s, str(jobs[0]))])
    assert names == [f"{jobs[0]}_{task}" for task in (3, 4, 5)]
    [row] = store.transact(lambda s: records.find(s, f"{jobs[0]}_4"))
    assert row.id == jobs[1]
    assert store.transact(lambda s: records.find(s, str(alone)))[0].id == alone
    for wrong in (f"{jobs[0]}_9", str(jobs[1]), "x", "999", f"{alone}_0"):
        with pytest.raises(NotAllowed):
            store.transact(lambda s, wrong=wrong: records.find(s, wrong))


def test_nobody_waits_for_anothers_job(store: Store) -> None:
    [job] = put(store)
    with pytest.raises(NotAllowed):
        put(store, "bob", after=[str(job)])


def test_all_of_an_array_has_to_be_done(store: Store) -> None:
    first = put(store, array="0-1")
    [second] = put(store, after=[str(first[0])])
    end(store, first[0], State.DONE)
    due = store.transact(records.due, read=True)
    assert due.reasons[second].code == "job_waits_after"
    end(store, first[1], State.FAILED)
    assert list(store.transact(records.due, read=True).never) == [second]


def test_a_move_that_was_made_is_not_made_again(store: Store) -> None:
    [job] = put(store, retries=1)
    for _ in range(2):
        row = store.transact(lambda s: records.begin(s, job))
        assert row is not None
        assert (row.attempt, row.state) == (1, State.STARTING)
    for _ in range(2):
        store.transact(lambda s: records.run(s, job, "h1"))
    assert store.transact(lambda s: records.end(s, job, State.LOST, records.GONE())) is not None
    # Pending again, and nothing of it begins until nothing of it is left.
    assert store.transact(lambda s: records.begin(s, job)) is None
    store.transact(lambda s: records.settle(s, job))
    row = store.transact(lambda s: records.begin(s, job))
    assert row is not None
    assert row.attempt == 2
    store.transact(lambda s: records.end(s, job, State.DONE, exit_code=0))
    assert store.transact(lambda s: records.end(s, job, State.FAILED)) is None
    [shown] = store.transact(lambda s: records.show_all(s, records.find(s, str(job)), ENGLISH))
    assert (shown["state"], shown["exit_code"], shown["attempt"]) == ("done", 0, 2)


def test_one_that_was_cut_off_does_not_make_it_one_more_at_once(store: Store) -> None:
    """Kind: a place in the array is free while the first is cleared away; two take it."""
    jobs = put(store, array="0-1%1", retries=1)
    store.transact(lambda s: records.begin(s, jobs[0]))
    store.transact(lambda s: records.end(s, jobs[0], State.LOST, records.GONE()))
    store.transact(lambda s: records.settle(s, jobs[0]))
    assert store.transact(lambda s: records.begin(s, jobs[1])) is not None
    assert store.transact(lambda s: records.begin(s, jobs[0])) is None
