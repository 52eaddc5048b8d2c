"""Maintenance: who may start, what waits, who is warned, and how servers are stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from traitlets.config import Config

from commons import broadcasts, maintenance
from commons.errors import BadRequest
from commons.i18n import gettext_for
from commons.leases import ServerKey
from commons.site import Site
from commons.store import Broadcast, GpuNotice, Lease, ServerEnd, Store
from commons.store.models import ServerStart, utcnow
from hub_ext.maintenance import NOTE_EVERY, Maintenance
from hub_ext.maintenance_cli import maintenance as command
from rig.hub_in_memory import Lab, hub_lab
from spawner.gpu.ledger.allocation import Ask, Standing, run_pass
from spawner.gpu.policy.reasons import sentence
from spawner.gpu.watch.server_activity import Jupyter
from spawner.starts import kept
from spawner.starts.pace import Pace
from spawner.starts.room import Need


class World:
    """A hub, and what carries maintenance out."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.store = lab, lab.resources.store
        self.keeper = self.begin_anew()

    def begin_anew(self) -> Maintenance:
        """As a hub that was restarted has it."""
        shared, servers = self.lab.resources, self.lab.servers
        self.keeper = Maintenance(
            self.store, servers, shared.turns, shared.admission, self.goes_on, self.lab.app.log
        )
        return self.keeper

    async def goes_on(self, server: ServerKey) -> Jupyter:
        """A server's own word; bob's says nothing."""
        return Jupyter() if server[0] == "bob" else Jupyter(2, 0.0)

    async def start(self, **asked: Any) -> None:
        given = {"en": "Disks", "zh": "换盘", "by": "carol"} | asked
        await self.store.run(lambda s: maintenance.start(s, **given).id)
        await self.keeper.look()

    async def stop(self) -> None:
        await self.store.run(lambda s: maintenance.stop(s, "carol").id)
        await self.keeper.look()

    async def shift(self, **values: Any) -> None:
        """Time has passed."""
        await self.store.run(lambda s: s.query(Broadcast).update(values))


@pytest.fixture
async def world(site: Site, tmp_path: Path) -> AsyncIterator[World]:
    config = Config()
    config.JupyterHub.tornado_settings = {"slow_spawn_timeout": 20, "slow_stop_timeout": 10}
    config.Authenticator.allowed_users = {"alice", "bob", "carol"}
    config.Authenticator.admin_users = {"carol"}
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    async with hub_lab(store, site, tmp_path, config) as lab:
        made = World(lab)
        await made.keeper.look()
        yield made
    store.close()


async def test_nobody_but_administrators_starts_and_all_can_when_it_is_over(world: World) -> None:
    lab = world.lab
    await world.start(until="2h")
    status, answer = await lab.rest("POST", "users/alice/server")
    assert status == 409, answer
    assert "for maintenance: “Disks” Expected end" in json.dumps(answer, ensure_ascii=False)
    assert (await lab.rest("POST", "users/carol/server"))[0] == 201
    world.begin_anew()  # it survives a restart of the hub
    await world.keeper.look()
    assert (await lab.rest("POST", "users/alice/server"))[0] == 409
    await world.shift(ends_at=utcnow() - timedelta(seconds=1))  # it ends by itself
    await world.keeper.look()
    assert (await lab.rest("POST", "users/alice/server"))[0] == 201


async def test_what_is_in_line_keeps_its_place_and_starts_afterwards(world: World) -> None:
    turns = world.lab.resources.turns
    await world.start()
    told: list[Any] = []
    waits = asyncio.create_task(turns.take(("bob", ""), Need(2**20, 1), 1.0, told.append))
    mine = asyncio.create_task(turns.take(("carol", ""), Need(2**20, 1), 2.0, told.append))
    await asyncio.wait_for(mine, 20)
    assert not waits.done()
    await world.stop()
    await asyncio.wait_for(waits, 20)
    for name in ("bob", "carol"):
        turns.give_back((name, ""))


async def test_who_waits_for_gpus_gets_none_until_it_is_over_and_administrators_do(
    world: World,
) -> None:
    admission = world.lab.resources.admission

    async def ask(user: str, gpus: int, **more: Any) -> Standing:
        return await admission.submit(Ask(user, "", f"user:{user}", gpus, "A100", **more))

    held, waits = await ask("alice", 2), await ask("bob", 2)
    assert (held.held, waits.held) == (True, False)
    # Written by whatever process: the hub need not have looked.
    begun = {"en": "Disks", "by": "carol", "until": "1h"}
    await world.store.run(lambda s: maintenance.start(s, **begun).id)
    await admission.end(held.lease, "stopped")
    await world.store.run(run_pass)  # another process decides
    assert (await ask("dan", 1)).held is False, "asked in the moment in which it began"
    carols = await ask("carol", 1, anytime=True)
    assert carols.held
    await admission.end(carols.lease, "stopped")
    watch = admission.watch(waits.lease)
    async with asyncio.timeout(20):
        while "maintenance_waits" not in {why.code for why in watch.standing.reasons}:
            await watch.next()
    [why] = watch.standing.reasons
    assert "(until " in sentence(why, str)
    assert watch.standing.verdict.expected_start == why.params["until"]
    assert "束" in sentence(why, gettext_for("zh_CN"))
    await world.store.run(lambda s: maintenance.stop(s, "carol").id)
    await world.keeper.look()
    async with asyncio.timeout(20):
        while not (await watch.next()).held:
            pass


def test_a_start_that_waits_for_its_end_grows_no_older_and_is_not_given_up(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    now = utcnow()

    def world(session: Any) -> list[tuple[str, bool]]:
        for name, minutes in (("young", 250), ("old", 300)):
            asked = now - timedelta(minutes=minutes)
            session.add(
                ServerStart(username=name, server_name="", asked_at=asked, user_options={}, tries=1)
            )
        row = maintenance.start(session, en="Disks", by="carol", now=now - timedelta(minutes=240))
        for _ in range(5):  # hubs that are restarted meanwhile
            kept.keep(session, "young", "", {})
        row.withdrawn_at = now - timedelta(minutes=10)
        session.flush()
        return sorted((one.server[0], one.again) for one in kept.left(session))

    assert store.transact(world) == [("old", False), ("young", True)]


async def test_who_has_gpus_and_waits_to_start_gives_them_back_and_keeps_their_place(
    world: World,
) -> None:
    lab = world.lab
    await lab.resources.turns.take(("carol", ""), Need(2**20, 1), 1.0, lambda place: None)
    lab.resources.turns.pace = Pace(1, most=1)
    gpus = {"environment": "data", "gpus": 1, "gpu_type": "A100"}
    asked = asyncio.create_task(lab.rest("POST", "users/alice/server", gpus))
    leases = partial(
        world.store.read, lambda s: [(x.state, x.ended_reason) for x in s.query(Lease)]
    )
    async with asyncio.timeout(20):
        while lab.resources.turns.place(("alice", "")) is None:
            await asyncio.sleep(0.01)
        assert [state for state, _ in await leases()] == ["held"]
        await world.start(until="1h")
        while ("queued", None) not in await leases():
            await asyncio.sleep(0.01)
        assert sorted(await leases()) == [("ended", "maintenance"), ("queued", None)]
        lab.resources.turns.give_back(("carol", ""))
        await world.stop()
        assert (await asked)[0] in (201, 202)
        while ("active", None) not in await leases():
            await asyncio.sleep(0.01)


async def test_people_are_warned_once_a_stage_and_servers_are_stopped_with_the_cause(
    world: World,
) -> None:
    lab = world.lab
    for name in ("alice", "bob"):
        assert (await lab.rest("POST", f"users/{name}/server"))[0] == 201
    await world.start(stop="2h", until="3h")

    async def warned() -> list[str]:
        found = await world.store.read(
            lambda s: [n.key.split(":")[2] for n in s.query(GpuNotice) if n.username == "bob"]
        )
        return sorted(found)

    assert await warned() == ["None"]
    for minutes, stages in ((59, ["3600", "None"]), (13, ["3600", "None"]), (9, None)):
        await world.shift(stop_at=utcnow() + timedelta(minutes=minutes))
        world.begin_anew()
        await world.keeper.look()
        assert await warned() == (stages or ["3600", "600", "None"])
    await lab.until(lambda: len(world.keeper._busy) == 2)
    for _ in range(NOTE_EVERY):
        await world.keeper.look()
    found = await world.store.read(lambda s: maintenance.as_json(maintenance.current(s)))
    # Whose kernels work comes first; what a server does not say is not known.
    works = [(one["user"], one["busy_kernels"]) for one in found["working"]]
    assert works == [("alice", 2), ("bob", None)]
    await world.shift(stop_at=utcnow())
    await world.keeper.look()
    await lab.until(lambda: not lab.servers.known())
    ends = await world.store.read(lambda s: [e.cause for e in s.query(ServerEnd)])
    assert ends == ["maintenance", "maintenance"]
    # What an administrator starts after that goes on.
    assert (await lab.rest("POST", "users/carol/server"))[0] == 201
    await world.keeper.look()
    assert [key for key, _, _ in lab.servers.working()] == [("carol", "")]
    await world.stop()
    assert await warned_of(world) == 0


async def test_one_that_is_planned_is_told_before_and_closes_at_its_begin(world: World) -> None:
    lab = world.lab
    assert (await lab.rest("POST", "users/alice/server"))[0] == 201
    await world.start(starts="3d", until="4h", stop="30m")
    with pytest.raises(BadRequest) as twice:
        await world.start()
    assert twice.value.status == 409
    board = broadcasts.Board(world.store)
    assert await board.fresh() == [], "not yet: in three days"
    assert (await lab.rest("POST", "users/bob/server"))[0] == 201
    await world.keeper.look()
    assert await warned_of(world) == 2, "what goes on for days is told at once"

    async def at(**before: float) -> list[dict[str, Any]]:
        begins = utcnow() + timedelta(**before)
        await world.shift(starts_at=begins, stop_at=begins + timedelta(minutes=30))
        await world.keeper.look()
        board = broadcasts.Board(world.store)
        return [broadcasts.told(one, str, UTC) for one in await board.fresh()]

    [told] = await at(hours=2)
    assert (told["kind"], told["dismissible"]) == ("warning", True)
    assert "from" in told["more"]
    row = await world.store.read(maintenance.found)
    assert maintenance.as_json(row)["state"] == "planned"
    assert row.working == []
    await at(minutes=29)  # the stop is within the hour
    assert await warned_of(world) == 4
    assert len((await world.store.read(maintenance.found)).working) == 2
    [begun] = await at(seconds=-1)
    assert (begun["kind"], begun["dismissible"]) == ("maintenance", False)
    assert begun["id"] != told["id"], "who has closed the announcement reads it again"
    await lab.servers.stop("bob", "")
    assert (await lab.rest("POST", "users/bob/server"))[0] == 409
    await world.stop()
    assert await warned_of(world) == 0
    assert (await lab.rest("POST", "users/bob/server"))[0] == 201


async def warned_of(world: World) -> int:
    return await world.store.read(
        lambda s: s.query(GpuNotice).filter(GpuNotice.code == maintenance.CODE).count()
    )


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"en": ""}, "broadcast_text"),
        ({"until": "never"}, "broadcast_time"),
        ({"until": "2h", "stop": "3h"}, "maintenance_stop"),
        ({"until": "2000-01-01T00:00"}, "broadcast_end"),
        ({"starts": "91d"}, "maintenance_begin"),
        ({"starts": "2h", "until": "89d23h"}, "broadcast_end"),
        ({"starts": "3000-01-01T12:00", "stop": "2026-01-01T00:00"}, "maintenance_begin"),
        ({"starts": "2h", "stop": "2000-01-01T00:00"}, "maintenance_stop"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, asked: dict[str, Any], code: str) -> None:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    with pytest.raises(BadRequest) as refused:
        store.transact(lambda s: maintenance.start(s, **({"en": "Disks", "by": "carol"} | asked)))
    assert refused.value.code == code


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    monkeypatch.setenv("LABCOMMONS_DATA", str(tmp_path))
    store = Store()
    store.migrate()
    run = CliRunner().invoke
    none = "There is no maintenance, and none is planned.\n"
    assert run(command, ["status"]).output == none
    planned = run(command, ["start", "Disks", "--begin", "2d", "--until", "2h", "--json"])
    assert json.loads(planned.output)["state"] == "planned", planned.output
    assert "planned from" in run(command, ["status"]).output
    assert run(command, ["stop"]).output == none
    started = run(command, ["start", "Disks", "--until", "2h", "--stop", "1h"])
    assert "Disks" in started.output, started.output
    assert run(command, ["start", "Again"]).exit_code == 1
    assert json.loads(run(command, ["status", "--json"]).output)["on"] is True
    assert run(command, ["stop"]).output == none
    assert run(command, ["stop"]).exit_code == 1
