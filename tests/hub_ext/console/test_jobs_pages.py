"""The page Jobs, and one job's: what stands there, whose, and what the form asks for."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from commons.store.models import Job
from jobs import records
from jobs.asked import parse
from jobs.records import State

from .conftest import Console


def put(console: Console, user: str = "alice", **said: object) -> int:
    wanted = parse({"command": ["python", "<b>x</b>.py"], **said})
    return console.store.transact(lambda s: records.submit(s, wanted, user)[0].id)


async def test_who_has_none_is_told_what_to_do(console: Console) -> None:
    answer = await console.get("jobs", "alice-token")
    assert answer.code == 200
    assert "labcommons run --gpus 1" in answer.body.decode()


async def test_each_sees_their_own_and_administrators_see_whose(console: Console) -> None:
    job = put(console)
    own = (await console.get("jobs", "alice-token")).body.decode()
    assert f'data-post="jobs/{job}"' in own
    assert "<b>x</b>" not in own
    assert f'data-post="jobs/{job}"' not in (await console.get("jobs", "bob-token")).body.decode()
    assert "<strong>alice</strong>" in (await console.get("jobs", "carol-token")).body.decode()
    assert (await console.get(f"jobs/{job}", "bob-token")).code == 404


async def test_what_it_printed_is_text(console: Console) -> None:
    job = put(console)
    console.store.transact(lambda s: records.begin(s, job))
    folder = console.data / "jobs"
    folder.mkdir()
    (folder / f"{job}.1.log").write_text("epoch 1 <script>alert(1)</script>\n")
    page = (await console.get(f"jobs/{job}", "alice-token")).body.decode()
    assert "epoch 1 &lt;script&gt;" in page
    found = await console.json(f"api/v1/jobs/{job}/log?offset=8", "alice-token")
    assert found["log"].startswith("<script>")


async def test_a_server_asks_for_its_owner_and_ends_what_it_asked_for(console: Console) -> None:
    body = {"command": ["python", "a.py"], "environment": "team-vision/torch"}
    answer = await console.send("POST", "api/v1/jobs", "alice-server-token", body)
    assert answer.code == 201
    rows = console.store.transact(lambda s: s.query(Job).all())
    assert [(row.username, row.environment, row.state) for row in rows] == [
        ("alice", "", State.PENDING)
    ]
    answer = await console.send("DELETE", f"api/v1/jobs/{rows[0].id}", "alice-server-token")
    assert answer.code == 200
    assert console.store.transact(lambda s: s.query(Job).one()).stop == "cancelled"


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        ({"command": "python 'a"}, "quotation mark"),
        ({"notebook": "a.py"}, ".ipynb"),
        ({}, "Say what is to be run"),
        ({"command": "true", "gpus": "many"}, "whole numbers"),
        ({"command": "true", "folder": "../bob"}, "no folder of your home"),
    ],
)
async def test_what_is_wrong_is_said_beside_the_form(
    console: Console, sent: dict[str, str], word: str
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await console.send("POST", "jobs", "alice-token", urlencode(sent), **headers)
    assert (answer.code, word in answer.body.decode()) == (400, True)
    assert console.store.transact(lambda s: s.query(Job).count()) == 0
