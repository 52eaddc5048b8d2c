"""The plan that brings containers, leases and the hub together."""

from __future__ import annotations

import asyncio
import logging

from hypothesis import given
from hypothesis import strategies as st

from commons.leases import LeaseState
from commons.store import Store
from spawner.reconcile import LeaseRecord, Reconciler, plan
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.protocol import ServerState


def container(user: str, lease: str = "", status: str = "running", server: str = "") -> ServerState:
    labels = {"labcommons.lease": lease} if lease else {}
    return ServerState(
        handle=f"c-{user}-{lease}", user=user, server=server, status=status, labels=labels
    )


def lease(
    id_: str, user: str, state: LeaseState = LeaseState.ACTIVE, resumable: bool = False
) -> LeaseRecord:
    return LeaseRecord(id_, (user, ""), state, resumable)


def test_a_running_server_is_left_alone() -> None:
    todo = plan([container("alice", "l1")], [lease("l1", "alice")], {("alice", "")})
    assert (todo.remove, todo.end, todo.activate) == ((), (), ())


def test_a_lease_written_before_the_hub_was_killed_ends() -> None:
    todo = plan([], [lease("l1", "alice", LeaseState.HELD)], set())
    assert todo.end == (("l1", "container gone"),)


def test_a_container_the_hub_forgot_goes_and_its_lease_ends() -> None:
    forgotten = container("alice", "l1")
    todo = plan([forgotten], [lease("l1", "alice")], set())
    assert todo.remove == (forgotten,)
    assert todo.end == (("l1", "orphaned"),)


def test_a_container_that_was_created_and_never_started_goes() -> None:
    created = container("alice", "l1", status="created")
    assert plan([created], [], set()).remove == (created,)


def test_a_server_on_its_way_up_is_left_alone_with_and_without_container() -> None:
    known = {("alice", ""), ("bob", "")}
    leases = [lease("l1", "alice", LeaseState.HELD), lease("l2", "bob", LeaseState.HELD)]
    todo = plan([container("alice", "l1", status="created")], leases, known)
    assert (todo.remove, todo.end, todo.activate) == ((), (), ())


def test_a_lease_whose_container_runs_becomes_active() -> None:
    todo = plan(
        [container("alice", "l1")], [lease("l1", "alice", LeaseState.HELD)], {("alice", "")}
    )
    assert todo.activate == (("l1", "c-alice-l1"),)


def test_a_server_that_the_hub_takes_for_running_without_a_container_is_told() -> None:
    known = {("alice", ""), ("bob", ""), ("carol", "")}
    runs, ended = container("alice"), container("bob", status="exited")
    running = {("alice", ""): "c-alice-", ("bob", ""): "c-bob-", ("carol", ""): "c-carol-"}
    todo = plan([runs, ended], [], known, running=running)
    assert todo.gone == (("bob", ""), ("carol", ""))
    assert (todo.remove, todo.end) == ((), ())


def test_a_server_whose_container_was_replaced_runs_no_more() -> None:
    todo = plan([container("alice")], [], {("alice", "")}, running={("alice", ""): "another"})
    assert todo.gone == (("alice", ""),)


def test_who_waited_when_the_hub_was_killed_keeps_the_place() -> None:
    waits = [
        lease("l1", "alice", LeaseState.QUEUED, True),
        lease("l2", "bob", LeaseState.HELD, True),
    ]
    half_made = container("bob", "l2", status="created")
    todo = plan([half_made], waits, set())
    assert (todo.end, todo.again, todo.remove) == ((), (), (half_made,))


def test_a_server_that_the_hub_was_killed_before_remembering_is_asked_for_again() -> None:
    todo = plan([container("alice", "l1")], [lease("l1", "alice", resumable=True)], set())
    assert (todo.end, todo.again) == ((), ("l1",))


def test_a_lease_that_the_ledger_lost_is_written_again_the_oldest_first() -> None:
    young, old = container("alice", "l1"), container("bob", "l2")
    young = young.model_copy(update={"created": 2.0})
    todo = plan([young, old], [], {("alice", ""), ("bob", "")})
    assert todo.restore == (old, young)
    assert todo.remove == ()


def test_a_container_whose_lease_is_over_is_left_to_the_hub() -> None:
    todo = plan([container("alice", "l1")], [], {("alice", "")}, frozenset({"l1"}))
    assert todo.restore == ()


names = st.sampled_from(["alice", "bob", "carol"])


@given(
    st.lists(st.tuples(names, st.sampled_from(["", "l1", "l2", "l3"])), max_size=5),
    st.dictionaries(st.sampled_from(["l1", "l2", "l3"]), names, max_size=3),
    st.sets(names),
)
def test_afterwards_nothing_is_left_of_servers_the_hub_does_not_know(
    running: list[tuple[str, str]], leased: dict[str, str], known: set[str]
) -> None:
    containers = [container(user, lease_id) for user, lease_id in running]
    servers = {(user, "") for user in known}
    todo = plan(containers, [lease(i, user) for i, user in leased.items()], servers)
    left = [c for c in containers if c not in todo.remove]
    assert all(c.user in known for c in left)
    assert {i for i, _ in todo.end} == {i for i, user in leased.items() if user not in known}


async def test_it_goes_on_pass_after_pass(store: Store) -> None:
    passes = asyncio.Queue[None]()

    class Counting(MemoryRuntime):
        async def list(self) -> list[ServerState]:
            passes.put_nowait(None)
            return await super().list()

    reconciler = Reconciler(Counting("lab"), store, set, logging.getLogger())
    work = asyncio.ensure_future(reconciler.forever(0.01))
    for _ in range(3):
        ended, _ = await asyncio.wait(
            [work, asyncio.ensure_future(passes.get())], return_when=asyncio.FIRST_COMPLETED
        )
        assert work not in ended, work.exception()
    work.cancel()
