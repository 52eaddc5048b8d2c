"""Somebody who is shut out here is cut off at once, by cookie and by token, and let in again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from traitlets.config import Config

from commons.site import Site
from commons.store import DirectoryPerson, Store, blocks
from commons.store.models import AnnouncedStop, PersonBlock
from hub_ext.blocks import Blocks
from hub_ext.stops import AnnouncedStops
from rig.hub_in_memory import TOKEN, Lab, hub_lab

CONSOLE = "of-the-console"


@pytest.fixture
async def lab(site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()

    def came(session: Session) -> None:
        session.add(DirectoryPerson(name="alice", confirmed=1.0, roles={}))

    store.transact(came)
    config = Config()
    config.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0, "slow_stop_timeout": 10}
    config.JupyterHub.services = [
        {"name": "test", "api_token": TOKEN},
        {"name": "labcommons", "api_token": CONSOLE},
    ]
    async with hub_lab(store, site, tmp_path, config) as lab:
        yield lab
    store.close()


def begin(lab: Lab) -> Blocks:
    """What the whole hub does at its start."""
    found = Blocks(lab.app, lab.resources.store, lab.app.log)
    lab.app.tornado_application.settings["blocks"] = found
    return found


def block(lab: Lab, stops: bool = False) -> None:
    lab.resources.store.transact(lambda s: blocks.put(s, "alice", "carol", "Coins", stops=stops))


async def test_cookies_and_tokens_of_somebody_who_is_blocked_open_nothing(lab: Lab) -> None:
    kept = begin(lab)
    own = lab.app.users["alice"].new_api_token()
    async with lab.browser("alice") as alice, lab.browser("bob") as bob:
        assert (await alice.get("home")).status == 200
        assert (await lab.rest("GET", "user", token=own))[0] == 200
        block(lab)
        await kept.look()
        assert (await alice.get("home")).status == 302
        assert (await lab.rest("GET", "user", token=own))[0] == 403
        assert (await bob.get("home")).status == 200
        lab.resources.store.transact(lambda s: blocks.take_back(s, "alice"))
        kept._stamp = None
        await kept.look()
        # The login is over; what they had made themselves works again.
        assert (await alice.get("home")).status == 302
        assert (await lab.rest("GET", "user", token=own))[0] == 200


async def test_servers_stop_where_that_is_asked_and_say_why(lab: Lab) -> None:
    kept = begin(lab)
    await lab.started()
    block(lab)
    await kept.look()
    store = lab.resources.store
    asked = select(AnnouncedStop.by, AnnouncedStop.message)
    assert store.transact(lambda s: s.execute(asked).all()) == []
    server = lab.spawner().api_token
    used = {"servers": {"": {"last_activity": "2026-11-29T08:00:00Z"}}}
    said = await lab.rest("POST", "users/alice/activity", used, token=server)
    assert said[0] == 200, "that a server goes on is heard"
    assert (await lab.rest("GET", "user", token=server))[0] == 403
    block(lab, stops=True)
    kept._stamp = None
    await kept.look()
    assert store.transact(lambda s: s.execute(asked).all()) == [("carol", "Coins")]
    await AnnouncedStops(store, lab.servers).look()
    assert ("alice", "") not in lab.servers.known()


async def test_a_hub_that_was_killed_in_between_carries_it_out(lab: Lab) -> None:
    kept = begin(lab)
    block(lab, stops=True)
    await kept.look()
    acted = lab.resources.store.transact(lambda s: s.get_one(PersonBlock, "alice").acted_at)
    assert acted is not None

    def killed(session: Session) -> None:
        session.get_one(PersonBlock, "alice").acted_at = None

    lab.resources.store.transact(killed)
    await begin(lab).look()
    assert lab.resources.store.transact(lambda s: s.get_one(PersonBlock, "alice").acted_at)


async def test_the_hub_tells_the_console_alone_what_runs(lab: Lab) -> None:
    await lab.servers.start("alice", "", {"size": "small", "gpus": 0, "account": "user:alice"})
    await lab.until(lambda: lab.spawner().ready)
    status, said = await lab.rest("GET", "live", token=CONSOLE)
    assert status == 200
    (one,) = said["servers"]
    assert (one["user"], one["server"], one["state"]) == ("alice", "", "running")
    assert (one["account"], one["gpus"], one["size"]) == ("user:alice", 0, "small")
    assert one["started"]
    live = lab.app.tornado_settings["live"]
    await lab.until(lambda: not len(live.meter.asking))
    live._made = -9.0
    status, said = await lab.rest("GET", "live", token=CONSOLE)
    assert said["servers"][0]["memory"] == 2**20
    made = lab.app.users["alice"].new_api_token(note="cron")
    status, person = await lab.rest("GET", "live?person=alice", token=CONSOLE)
    assert [one["note"] for one in person["tokens"]] == ["cron"]
    assert made not in str(person)
    assert (await lab.rest("GET", "live?person=zoe", token=CONSOLE))[0] == 404
    for other in (TOKEN, made, lab.spawner().api_token, "none"):
        assert (await lab.rest("GET", "live", token=other))[0] == 403
