"""People in the console: who knows what of whom, and shutting somebody out."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from commons.store import DirectoryPerson, DiskUse, blocks
from commons.store.models import PersonBlock, utcnow

from .conftest import HOSTILE, Console, runs

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def came(session: Session) -> None:
    """alice, bob and s01 have been here, and carol, who is an administrator."""
    for name, roles, barred in (
        ("alice", {"teams": {"vision": "member"}}, None),
        ("bob", {"teams": {"vision": "lead"}}, None),
        ("s01", {"courses": {"ml101": "student"}}, time.time()),
        ("carol", {"admin": True}, None),
    ):
        session.add(
            DirectoryPerson(
                name=name, confirmed=time.time(), roles=roles, barred=barred,
                reason="account_disabled" if barred else None,
            )
        )  # fmt: skip
    session.add(
        DiskUse(
            area="homes", name="alice", bytes=3 * 2**30, whole=True,
            largest=[{"folder": HOSTILE, "bytes": 2**30}],
        )
    )  # fmt: skip


@pytest.fixture
def known(filled: Console) -> Console:
    filled.store.transact(came)
    filled.tells(
        runs("alice", gpus=1, memory=5 * 10**8),
        runs("bob", "train", account="group:vision"),
        alice="2026-11-29T08:30:00Z",
    )
    return filled


async def names(console: Console, token: str, query: str = "") -> list[str]:
    return [one["name"] for one in (await console.json(f"api/v1/people{query}", token))["people"]]


async def test_who_knows_of_whom(known: Console) -> None:
    assert await names(known, "carol-token") == ["alice", "bob", "carol", "s01"]
    assert await names(known, "bob-token") == ["alice", "bob"]
    assert await names(known, "dan-token") == ["s01"]
    assert await names(known, "alice-token") == ["alice"]
    assert await names(known, "carol-narrow-token") == ["carol"]
    # A lead is told nothing of what is alice's own.
    of_lead = await known.json("api/v1/people/alice", "bob-token")
    assert (of_lead["home_bytes"], of_lead["servers"], of_lead["seen"]) == (None, [], None)
    assert of_lead["groups"] == {"group:vision": "member"}
    of_admin = await known.json("api/v1/people/alice", "carol-token")
    assert (of_admin["home_bytes"], of_admin["servers"]) == (3 * 2**30, ["alice"])
    assert of_admin["seen"] == "2026-11-29T08:30:00Z"
    assert (await known.get("api/v1/people/s01", "bob-token")).code == 403
    assert (await known.get("api/v1/people/nobody", "bob-token")).code == 403
    assert (await known.get("api/v1/people/nobody", "carol-token")).code == 404


async def test_people_are_searched_and_sorted(known: Console) -> None:
    for query, found in (
        ("?q=ALI", ["alice"]),
        ("?group=group:vision", ["alice", "bob"]),
        ("?state=here", ["alice", "bob"]),
        ("?state=barred", ["s01"]),
        ("?state=admins", ["carol"]),
        ("?sort=home", ["alice", "bob", "carol", "s01"]),
        ("?sort=seen&q=b", ["bob"]),
    ):
        assert await names(known, "carol-token", query) == found, query


async def test_a_block_has_a_reason_an_end_and_a_line_in_the_trail(known: Console) -> None:
    body = {"reason": "Mined\ncoins", "until": "7d", "stop": True}
    answer = await known.send("PUT", "api/v1/people/alice/block", "carol-token", body)
    told = json.loads(answer.body)["block"]
    assert (told["reason"], told["by"], told["carried_out"]) == ("Mined coins", "carol", False)
    row = known.store.transact(lambda s: s.get_one(PersonBlock, "alice"))
    assert row.until is not None
    assert timedelta(days=6) < row.until - utcnow() <= timedelta(days=7)
    assert await names(known, "carol-token", "?state=blocked") == ["alice"]
    answer = await known.send("DELETE", "api/v1/people/alice/block", "carol-token")
    assert json.loads(answer.body)["block"] is None
    again = await known.send("DELETE", "api/v1/people/alice/block", "carol-token")
    assert again.code == 409


async def test_who_blocks_whom(known: Console) -> None:
    body = {"reason": "No"}
    for token, name, status in (
        ("bob-token", "alice", 403),
        ("carol-narrow-token", "alice", 403),
        ("carol-server-token", "alice", 403),
        ("carol-token", "carol", 409),
        ("carol-token", "nobody", 400),
    ):
        answer = await known.send("PUT", f"api/v1/people/{name}/block", token, body)
        assert answer.code == status, (token, name)
    for wrong in ({"reason": " "}, {"reason": "x" * 301}, {"reason": "x", "until": "2001-01-01"},
                  {"reason": "x", "until": "soon"}, {}):  # fmt: skip
        answer = await known.send("PUT", "api/v1/people/alice/block", "carol-token", wrong)
        assert answer.code == 400, wrong
    assert known.store.transact(lambda s: blocks.standing(s)) == {}


async def test_the_pages_say_what_the_viewer_may_know(known: Console) -> None:
    of_lead = (await known.get("people/alice", "bob-token")).body.decode()
    assert "Block here" not in of_lead
    assert "Tokens</h2>" not in of_lead
    page = (await known.get("people/alice", "carol-token")).body.decode()
    assert "Block alice" in page
    assert HOSTILE not in page
    assert "audit?person=alice" in page
    refused = await known.send("POST", "people/alice", "bob-token", "do=block&reason=x", **FORM)
    assert refused.code == 403
    done = await known.send(
        "POST", "people/alice", "carol-token", "do=block&reason=Mined+coins&until=1d", **FORM
    )
    assert done.code == 302
    page = (await known.get("people/alice", "carol-token")).body.decode()
    assert "Mined coins" in page
    assert "Let in again" in page
    page = (await known.get("people", "bob-token")).body.decode()
    assert "blocked here" not in page, "that is for administrators to know"
    await known.send("POST", "people/alice", "carol-token", "do=unblock", **FORM)
    assert known.store.transact(lambda s: blocks.of(s, "alice")) is None


def test_a_block_that_is_over_counts_for_nothing(known: Console) -> None:
    def work(session: Session) -> None:
        block = blocks.put(session, "alice", "carol", "No", utcnow() + timedelta(hours=1))
        later = utcnow() + timedelta(hours=2)
        assert blocks.of(session, "alice") == block
        assert blocks.of(session, "alice", later) is None
        assert blocks.standing(session, later) == {}

    known.store.transact(work)
