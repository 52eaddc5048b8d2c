"""What happens to servers, at the hub and by whom is in the audit trail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jupyterhub import orm, roles

from commons.audit import AuditTrail, Chain
from commons.audit.chain import files
from commons.audit.reading import Filter, events
from commons.site import Site
from commons.store import Store
from commons.store.ends import Ending
from rig.hub_in_memory import Lab, hub_lab

ACTIONS = ("server-start", "server-end")


@pytest.fixture
async def lab(store: Store, site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    async with hub_lab(store, site, tmp_path) as lab:
        lab.resources.audit = AuditTrail(Chain(tmp_path / "audit" / "hub", "hub"))
        lab.app.tornado_application.settings["audit"] = lab.resources.audit
        yield lab
        lab.resources.audit.close()


def told(lab: Lab, *actions: str) -> list[tuple[str, str, str, str]]:
    lab.resources.audit.close()
    found = events(lab.resources.data / "audit", Filter())
    return [
        (
            event["event"]["action"],
            event["user"]["name"],
            event["event"].get("reason", ""),
            str(event["labcommons"].get("of", "") or event["labcommons"].get("by", "")),
        )
        for event in found
        if event["event"]["action"] in actions
    ]


async def test_a_start_and_each_way_to_end_are_events_with_who_and_why(lab: Lab) -> None:
    for ending in (None, Ending("idle"), Ending("stopped_by", by="carol")):
        spawner = await lab.started()
        spawner.ending = ending
        await spawner.user.stop("")
    spawner = await lab.started()
    lab.memory.finish(spawner.container_ref, 3)
    async with asyncio.timeout(30):
        while await spawner.poll() is None:
            await asyncio.sleep(0.01)
    found = [(action, reason, by) for action, _, reason, by in told(lab, *ACTIONS)]
    assert found == [
        ("server-start", "", ""), ("server-end", "stopped", ""),
        ("server-start", "", ""), ("server-end", "idle", ""),
        ("server-start", "", ""), ("server-end", "stopped_by", "carol"),
        ("server-start", "", ""), ("server-end", "ended", ""),
    ]  # fmt: skip
    [first, *_] = events(lab.resources.data / "audit", Filter(action="server-start"))
    assert first["labcommons"]["environment"]
    assert first["labcommons"]["size"]


async def test_changes_refusals_and_looks_at_the_hub_are_events_and_no_token_is_in_them(
    lab: Lab,
) -> None:
    database = lab.app.db
    for name, admin in (("bob", False), ("carol", True)):
        person = orm.User.find(database, name) or orm.User(name=name)
        person.admin = admin
        database.add(person)
        database.commit()
        roles.assign_default_roles(database, person)
    carols = lab.app.users["carol"].new_api_token()
    code, made = await lab.rest("POST", "users/bob/tokens", {"note": "x"}, token=carols)
    assert code == 201
    await lab.rest("GET", "users/bob", token=carols)
    await lab.rest("POST", "users/newcomer", token=carols)
    await lab.rest("GET", "users", token="wrong-token")
    await lab.rest("DELETE", f"users/bob/tokens/{made['id']}", token=carols)
    async with lab.browser("alice") as browser:
        await browser.send("logout", {"confirmed": "yes"})
    found = told(lab, "token-change", "user-change", "access-denied", "look", "logout")
    assert [one for one in found if one[1] == "carol"] == [
        ("token-change", "carol", "", "bob"),
        ("look", "carol", "read", "bob"),
        ("user-change", "carol", "", "newcomer"),
        ("token-change", "carol", "", "bob"),
    ]
    assert ("access-denied", "", "bad_token", "") in found
    assert ("logout", "alice", "", "") in found
    text = b"".join(path.read_bytes() for path in files(lab.resources.data / "audit" / "hub"))
    for secret in (made["token"], carols, "wrong-token"):
        assert secret.encode() not in text
    assert all(json.loads(line)["ecs"] for line in text.splitlines())
