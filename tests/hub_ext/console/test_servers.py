"""All servers in the console: who sees which, and what may be done with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from commons import notices
from commons.store.models import AnnouncedStop, GpuWatch, Lease

from .conftest import Console, runs

HOUR = 3600


@pytest.fixture
def busy(filled: Console) -> Console:
    """alice's with a GPU, bob's for the team and one of his own, and s01's without a GPU."""
    filled.tells(
        runs("alice", gpus=1, memory=5 * 10**8, cpu=0.5),
        runs("bob", "train", account="group:vision", gpus=1, active="2026-11-29T08:00:00Z"),
        runs("bob", memory=9 * 10**8),
        runs("s01", account="course:ml101", memory=10**8),
        s01="2026-11-29T08:30:00Z",
    )
    return filled


async def keys(console: Console, token: str, query: str = "") -> list[str]:
    return [one["who"] for one in (await console.json(f"api/v1/servers{query}", token))["servers"]]


async def act(console: Console, token: str, do: str, *who: str, **more: Any) -> dict[str, Any]:
    answer = await console.send("POST", f"api/v1/servers/{do}", token, {"who": list(who), **more})
    assert answer.code == 200, answer.body
    found = json.loads(answer.body)
    return {**found, "left": {one["who"]: one["reason"]["code"] for one in found["left"]}}


def stops(console: Console) -> list[tuple[str, str, str, str]]:
    return console.store.transact(
        lambda s: [
            (one.username, one.server_name, one.by, one.message)
            for one in s.scalars(select(AnnouncedStop))
        ]
    )


async def test_who_sees_which_servers(busy: Console) -> None:
    assert await keys(busy, "carol-token") == ["alice", "bob", "bob/train", "s01"]
    # bob leads team vision: alice's own server is not the team's.
    assert await keys(busy, "bob-token") == ["bob", "bob/train"]
    assert await keys(busy, "dan-token") == ["s01"]
    assert await keys(busy, "alice-token") == ["alice"]
    assert await keys(busy, "carol-narrow-token") == []


async def test_servers_are_searched_and_sorted(busy: Console) -> None:
    for query, found in (
        ("?q=bob", ["bob", "bob/train"]),
        ("?gpus=without", ["bob", "s01"]),
        ("?account=course:ml101", ["s01"]),
        ("?sort=memory", ["bob", "alice", "s01", "bob/train"]),
        ("?state=starting", []),
        ("?state=no&sort=no", ["alice", "bob", "bob/train", "s01"]),
    ):
        assert await keys(busy, "carol-token", query) == found, query


async def test_a_server_tells_its_lease_and_its_end(busy: Console) -> None:
    def limited(session: Any) -> None:
        lease = session.scalars(select(Lease).where(Lease.username == "alice")).one()
        lease.ends_at = lease.held_at.replace(year=2031)

    busy.store.transact(limited)
    found = {
        one["who"]: one for one in (await busy.json("api/v1/servers", "carol-token"))["servers"]
    }
    assert found["alice"]["why"] == "time_limit"
    assert found["alice"]["ends"].startswith("2031-")
    assert (found["alice"]["lease"] is None, found["s01"]["lease"]) == (False, None)


async def test_a_stop_says_why_and_is_asked_of_the_hub(busy: Console) -> None:
    told = await act(busy, "carol-token", "stop", "s01", "bob/train", "zoe", message="Service.")
    assert told == {"done": ["s01", "bob/train"], "left": {"zoe": "server_unknown"}}
    assert set(stops(busy)) == {
        ("s01", "", "carol", "Service."), ("bob", "train", "carol", "Service."),
    }  # fmt: skip


async def test_nobody_stops_what_is_anothers(busy: Console) -> None:
    for token in ("alice-token", "dan-token", "carol-narrow-token"):
        told = await act(busy, token, "stop", "bob", "bob/train")
        assert told["done"] == [], token
    assert stops(busy) == []
    for token in ("alice-server-token", "carol-server-token"):
        answer = await busy.send("POST", "api/v1/servers/stop", token, {"who": ["alice"]})
        assert answer.code == 403


async def test_a_message_reaches_who_uses_a_server_once(busy: Console) -> None:
    told = await act(busy, "bob-token", "message", "bob", "bob/train", message="Come\nsoon")
    assert told["done"] == ["bob", "bob/train"]
    said = busy.store.transact(lambda s: notices.show(s, "bob", str))
    assert [one.sentence for one in said] == ["bob: “Come soon”"]


async def test_more_time_is_for_servers_with_a_limit(busy: Console) -> None:
    told = await act(busy, "carol-token", "extend", "alice", "s01", by="2h")
    assert told == {"done": [], "left": {"alice": "servers_no_end", "s01": "servers_no_end"}}


@pytest.mark.parametrize(
    ("do", "body"),
    [
        ("stop", {"who": []}),
        ("stop", {"who": ["alice"], "grace": "2d"}),
        ("stop", {"who": ["alice"], "message": "x" * 501}),
        ("stop", {"who": "alice"}),
        ("message", {"who": ["alice"], "message": " "}),
        ("extend", {"who": ["alice"], "by": "soon"}),
        ("stop", {"who": [f"a{n}" for n in range(2001)]}),
    ],
)
async def test_what_cannot_be_meant_is_refused(busy: Console, do: str, body: Any) -> None:
    answer = await busy.send("POST", f"api/v1/servers/{do}", "carol-token", body)
    assert answer.code == 400
    assert stops(busy) == []


async def test_without_the_hub_nothing_is_known_and_the_page_says_so(busy: Console) -> None:
    assert await keys(busy, "carol-token")
    # Who asks was found out before it went away.
    from hub_ext.console import live

    assert live.read({"servers": [], "seen": {}}).servers == ()
    with pytest.raises(Exception, match="502"):
        live.read({"servers": [{"user": 1}], "seen": {}})


async def test_the_page_asks_with_whom_it_hits_and_then_does_it(busy: Console) -> None:
    page = (await busy.get("servers", "carol-token")).body.decode()
    assert page.count('name="who"') == 4
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    asked = await busy.send("POST", "servers", "carol-token", "do=stop&all=yes&q=bob", **form)
    text = asked.body.decode()
    assert (asked.code, text.count('name="who"'), stops(busy)) == (200, 2, [])
    assert "2 servers:" in text
    done = await busy.send(
        "POST", "servers", "carol-token", "do=stop&sure=yes&who=bob&who=zoe&message=Bye", **form
    )
    assert "Being stopped: bob" in done.body.decode()
    assert "There is no such server" in done.body.decode()
    assert stops(busy) == [("bob", "", "carol", "Bye")]


async def test_every_gpu_tells_an_administrator_who_holds_it_and_how_it_is_used(
    busy: Console,
) -> None:
    def watched(session: Any) -> None:
        lease = session.scalars(select(Lease).where(Lease.username == "alice")).one()
        session.add(
            GpuWatch(
                lease_id=lease.id, at=lease.held_at, use="idle", gpu_percent=3.0, idle_seconds=7200
            )
        )  # fmt: skip

    busy.store.transact(watched)
    page = (await busy.get("", "carol-token")).body.decode()
    assert 'data-spark="GPU-0/0" data-value="3.0"' in page
    assert "idle for 2 h" in page
    assert "Drain the machine" in page
    page = (await busy.get("", "alice-token")).body.decode()
    assert "data-spark" not in page
    assert "Drain the machine" not in page
