"""A team, as who leads it sees it."""

from __future__ import annotations

import json
from datetime import datetime

from sqlalchemy.orm import Session

from commons.store import DiskUse, RegisteredEnvironment
from commons.store.models import UsageMark, utcnow
from spawner.usage import rollup

from .conftest import HOSTILE, Console, ask
from .test_usage import put


def live(session: Session) -> None:
    today = utcnow().date()
    put(session, "alice", "group:vision", "torch", 3, today)
    put(session, "gone", "group:vision", "torch", 1, today)
    put(session, "dan", "course:ml101", "torch", 9, today)
    session.merge(UsageMark(name=rollup.MARK, value="UTC", at=datetime(2026, 11, 1)))
    session.add(DiskUse(area="teams", name="vision", bytes=3 * 2**30, largest=[], whole=True))
    for source, name in (("team-vision", f"torch {HOSTILE}"), ("team-speech", "whisper")):
        session.add(
            RegisteredEnvironment(
                source=source,
                environment=name,
                version="live",
                label=source,
                prefix="/x",
                python="3.13.5",
                state="registered",
                reason="",
                facts={},
                kernels=[],
            )
        )


async def test_a_lead_sees_people_gpus_usage_environments_and_folder(filled: Console) -> None:
    filled.store.transact(live)
    filled.store.transact(lambda s: ask(s, "alice", "more", "group:vision"))
    team = await filled.json("api/v1/teams/vision", "bob-token")
    people = {one["name"]: (one["lead"], one["gpu_hours"], one["waits"]) for one in team["members"]}
    # Who has left the team, and used something, is in the list.
    assert people == {
        "alice": (False, 3, 1),
        "bob": (True, 0, 0),
        "erin": (False, 0, 0),
        "gone": (False, 1, 0),
    }
    assert team["usage"]["gpu_hours"] == 4
    assert [one["user"] for one in team["queue"]] == ["alice"]
    assert [one["name"] for one in team["environments"]] == [f"torch {HOSTILE}"]
    assert team["folder"]["bytes"] == 3 * 2**30
    page = (await filled.get("teams/vision", "bob-token")).body.decode()
    assert "3.0 GB" in page
    assert HOSTILE not in page
    assert "whisper" not in page


async def test_it_is_for_who_leads_it(filled: Console) -> None:
    for token, code in (("alice-token", 403), ("dan-token", 403), ("carol-token", 200)):
        for path in ("teams/vision", "api/v1/teams/vision"):
            assert (await filled.get(path, token)).code == code, (token, path)
    assert (await filled.get("api/v1/teams/nosuch", "carol-token")).code == 404
    assert (await filled.json("api/v1/teams", "alice-token")) == {"teams": []}
    names = await filled.json("api/v1/teams", "carol-token")
    assert [one["name"] for one in names["teams"]] == ["vision", "speech"]


async def test_who_leads_one_is_led_to_it(filled: Console) -> None:
    answer = await filled.get("teams", "bob-token")
    assert (answer.code, answer.headers["Location"]) == (302, "/services/labcommons/teams/vision")
    assert "You lead no team" in (await filled.get("teams", "alice-token")).body.decode()


async def test_the_hub_that_does_not_answer_is_said(filled: Console) -> None:
    filled.broken["hub"] = True
    answer = await filled.get("api/v1/teams/vision", "bob-token")
    assert answer.code == 502
    assert "error" in json.loads(answer.body)
