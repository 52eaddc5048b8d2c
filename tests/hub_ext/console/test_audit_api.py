"""The audit trail by REST, as a page and as a file: every event once, as it was asked for."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from commons.audit import ACTIONS, Chain, make_event
from hub_ext.console import audit_api, audit_pages

from .conftest import HOSTILE, Console


async def get(console: Console, **query: str) -> Any:
    answer = await console.get(f"api/v1/audit?{urlencode(query)}", "carol-token")
    assert answer.code == 200
    return json.loads(answer.body)


async def test_pages_have_every_event_once(console: Console, tmp_path: Path) -> None:
    at = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)
    for writer in ("hub", "command"):
        Chain(tmp_path / "audit" / writer, writer).append(
            [make_event("login", "success", user=f"{writer}{n}", at=at) for n in range(5)]
        )
    seen: list[str] = []
    before = ""
    for _ in range(5):
        said = await get(console, limit="3", before=before)
        seen += [event["user"]["name"] for event in said["events"]]
        before = said["next"]
        if not before:
            break
    assert sorted(seen) == sorted(f"{w}{n}" for w in ("hub", "command") for n in range(5))
    assert [e["user"]["name"] for e in (await get(console, person="hub3"))["events"]] == ["hub3"]


def write(console: Console, count: int, **more: Any) -> None:
    """Logins of ada0, ada1, …, one a minute of a morning in UTC; every third is refused."""
    events = [
        make_event(
            "login",
            "success" if n % 3 else "failure",
            user=f"ada{n}",
            at=datetime(2026, 11, 27, 9, n, tzinfo=UTC),
            details={"server": f"{HOSTILE}{n}", "a": "=1+1"},
            **more,
        )
        for n in range(count)
    ]
    Chain(console.data / "audit" / "hub", "hub").append(events)


async def page(console: Console, **query: str) -> str:
    answer = await console.get(
        f"audit?{urlencode(query)}", "carol-token", Cookie="labcommons-tz=Asia/Shanghai"
    )
    assert answer.code == 200, answer.body
    return answer.body.decode()


def people(page: str) -> list[str]:
    return re.findall(r'<bdi translate="no">([^<]*)</bdi>', page)


async def test_the_page_filters_and_goes_on(console: Console) -> None:
    assert "Nothing has been written down yet" in await page(console)
    write(console, 55)
    first = await page(console)
    assert people(first) == [f"ada{n}" for n in range(54, 4, -1)]
    assert "2026-11-27 17:54:00" in first, "by the reader's clock"
    assert HOSTILE not in first
    [older] = re.findall(r'rel="next" href="[^"?]*\?([^"]*)"', first)
    rest = await console.get(f"audit?{older.replace('&amp;', '&')}", "carol-token")
    assert people(rest.body.decode()) == [f"ada{n}" for n in range(4, -1, -1)]
    assert 'rel="next"' not in rest.body.decode()
    for asked, found in (
        ({"person": "ada7"}, ["ada7"]),
        ({"about": f"{HOSTILE}12"}, ["ada12"]),
        ({"action": "logout"}, []),
        ({"outcome": "failure", "until": "2026-11-27T17:07"}, ["ada6", "ada3", "ada0"]),
        ({"since": "2026-11-27T17:53"}, ["ada54", "ada53"]),
        ({"since": "9999-99-99"}, people(first)),
    ):
        assert people(await page(console, **asked)) == found, asked
    assert "No event fits" in await page(console, person="nobody")
    for path in ("audit", "audit.csv", "audit.jsonl"):
        assert (await console.get(path, "alice-token")).code == 403


async def test_who_looks_for_what_is_not_there_gets_an_answer_in_time(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long trail is looked through in pieces; each answer says how far it came."""
    write(console, 3)
    monkeypatch.setattr(audit_api, "PATIENCE", 0.0)
    await looked_through(console, {"person": "ada0"})
    await looked_through(console, {"until": "2026-11-27T17:01"})


async def looked_through(console: Console, asked: dict[str, str]) -> None:
    """Only the oldest of three fits."""
    found = []
    for far in ("17:02:00", "17:01:00", ""):
        body = await page(console, **asked)
        found += people(body)
        assert (f"Nothing fits back to 2026-11-27 {far}" in body) == bool(far), body
        if following := re.findall(r'rel="next" href="[^"?]*\?([^"]*)"', body):
            asked = dict(parse_qsl(following[0].replace("&amp;", "&")))
    assert found == ["ada0"]


async def test_what_fits_is_exported_whole_and_harmless_to_spreadsheets(console: Console) -> None:
    write(console, 60)
    audit_pages.PIECE, kept = 7, audit_pages.PIECE
    try:
        lines = await console.get("audit.jsonl", "carol-token")
        table = await console.get("audit.csv?outcome=failure", "carol-token")
    finally:
        audit_pages.PIECE = kept
    found = [json.loads(line) for line in lines.body.splitlines()]
    assert [one["user"]["name"] for one in found] == [f"ada{n}" for n in range(60)]
    rows = [*csv.DictReader(io.StringIO(table.body.decode("utf-8-sig"), newline=""))]
    assert [row["person"] for row in rows] == [f"ada{n}" for n in range(0, 60, 3)]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert "attachment" in table.headers["Content-Disposition"]


async def test_looking_and_exporting_are_events(
    console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    write(console, 1)
    caplog.set_level("INFO", "labcommons.audit")  # where a console without a chain writes
    asked = urlencode({"person": "ada0", "action": "login"})
    for path in ("audit", "audit.csv", "api/v1/audit"):
        assert (await console.get(f"{path}?{asked}", "carol-token")).code == 200
    seen = [json.loads(r.getMessage()) for r in caplog.records if r.name == "labcommons.audit"]
    assert [one["event"]["action"] for one in seen] == ["look", "export", "look"]
    for one in seen:
        told = {key: one["labcommons"][key] for key in ("what", "person", "action")}
        assert told == {"what": "audit", "person": "ada0", "action": "login"}


def test_every_action_has_words() -> None:
    assert audit_pages.WORDS.keys() == ACTIONS.keys()
