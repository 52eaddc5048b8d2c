"""What needs somebody now: for each role its own, the most urgent first, with its remedy."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.scopes import Scope, personal
from commons.store import BuildState, EnvironmentBuild
from commons.store.models import GpuDevice, Lease, utcnow
from hub_ext.doctor import kept
from jobs import records
from jobs.asked import parse
from jobs.records import State

from .conftest import HOSTILE, Console, ask, runs


def failed(session: Session, scope: Scope, name: str, who: str) -> None:
    session.add(
        EnvironmentBuild(
            id=f"{name}-{who}", action="create", scope=scope.kind, owner=scope.owner, name=name,
            requested_by=who, state=BuildState.FAILED, queued_at=utcnow(), ended_at=utcnow(),
        )
    )  # fmt: skip


def busy(session: Session) -> None:
    """Something of each kind is not well."""
    words = {"en": f"The disk is full {HOSTILE}", "zh_CN": "磁盘已满"}
    kept.keep(
        session,
        [
            {"check": "room", "about": "data", "state": "broken", "cause": words, "remedy": words},
            {"check": "clock", "about": "", "state": "ok", "cause": words, "remedy": None},
        ],
    )
    gpu = session.get_one(GpuDevice, "GPU-2")
    gpu.health, gpu.health_reason = "failing", "Xid 79"
    for name, account in (("s07", "course:ml101"), ("erin", "group:vision"), ("zoe", "")):
        lease = session.get_one(Lease, ask(session, name, account=account, gpus=3))
        lease.requested_at = utcnow() - timedelta(hours=2)
    failed(session, Scope("team", "vision"), "torch", "erin")
    failed(session, personal("alice"), "mine", "alice")
    [row] = records.submit(session, parse({"command": ["true"]}), "alice")
    records.begin(session, row.id)
    records.end(session, row.id, State.FAILED, records.EXITED(code=3), 3, 2**20)
    [_] = records.submit(session, parse({"command": ["sleep", "9"]}), "alice")


@pytest.fixture
def lab(filled: Console) -> Console:
    filled.store.transact(busy)
    filled.tells(runs("alice", memory=10**9), runs("bob", "train", account="group:vision"))
    return filled


async def items(console: Console, token: str) -> list[tuple[str, str, str]]:
    found = (await console.json("api/v1/today", token))["items"]
    return [(one["level"], one["kind"], one["about"]) for one in found]


async def test_each_role_is_told_its_own_and_the_most_urgent_first(lab: Console) -> None:
    assert await items(lab, "carol-token") == [
        ("broken", "room", "data"),
        ("broken", "gpus", "GPU-2"),
        ("warning", "queue", "s07"),
        ("warning", "queue", "erin"),
        ("warning", "queue", "zoe"),
        ("warning", "memory", "alice"),
        ("note", "builds", "team-vision/torch"),
        ("note", "builds", "personal/mine"),
    ]
    assert await items(lab, "bob-token") == [
        ("warning", "queue", "erin"),
        ("note", "builds", "team-vision/torch"),
    ]
    assert await items(lab, "dan-token") == [("warning", "queue", "s07")]
    assert await items(lab, "alice-token") == [
        ("warning", "builds", "personal/mine"),
        ("warning", "jobs", "1"),
        ("warning", "memory", "alice"),
    ]
    # The page leads to the remedy, and shows what is one's own.
    page = (await lab.get("today", "carol-token")).body.decode()
    assert HOSTILE not in page
    for words in ("The disk is full", "labcommons/disk", "#devices", "has waited for GPUs for 2 h"):
        assert words in page, words
    page = (await lab.get("today", "alice-token")).body.decode()
    assert "exit code 3" in page
    assert "sleep 9" in page, "her jobs that are not over"
    assert "The disk is full" not in page
    assert "Start a server" in (await lab.get("today", "dan-token")).body.decode()


async def test_of_many_things_of_a_kind_the_first_are_told_and_how_many_more(
    filled: Console,
) -> None:
    def wait(session: Session) -> None:
        for n in range(12):
            lease = session.get_one(Lease, ask(session, f"w{n:02}", gpus=3))
            lease.requested_at = utcnow() - timedelta(hours=2)

    filled.store.transact(wait)
    found: list[dict[str, Any]] = (await filled.json("api/v1/today", "carol-token"))["items"]
    waits = [one for one in found if one["kind"] == "queue"]
    assert (len(waits), waits[-1]["cause"]) == (9, "4 more")


async def test_a_mended_failure_is_told_no_more(lab: Console) -> None:
    def mend(session: Session) -> None:
        for job in session.scalars(select(EnvironmentBuild)):
            job.state = BuildState.DONE
        session.get_one(GpuDevice, "GPU-2").health = "ok"

    lab.store.transact(mend)
    kinds = {kind for _, kind, _ in await items(lab, "carol-token")}
    assert kinds == {"room", "queue", "memory"}
