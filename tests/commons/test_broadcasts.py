"""Messages to everybody: what may be said, how long it is shown, and what each reader is told."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from commons import broadcasts
from commons.errors import BadRequest
from commons.i18n import gettext_for
from commons.store import Store, StoreError
from commons.store.models import utcnow
from hub_ext.broadcast_cli import broadcast

NOW = datetime(2026, 11, 27, 12)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    made.migrate()
    return made


def send(store: Store, **asked: Any) -> str:
    given = {"kind": "info", "en": "Slow today", "until": "2h", "by": "carol"} | asked
    return store.transact(lambda s: broadcasts.send(s, **given).id)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"en": ""}, "broadcast_text"),
        ({"en": "\u202e \u200b\n"}, "broadcast_text"),
        ({"en": "x" * 501}, "broadcast_text"),
        ({"zh": 5}, "broadcast_text"),
        ({"kind": "maintenance"}, "broadcast_kind"),
        ({"until": ""}, "broadcast_time"),
        ({"until": "soon"}, "broadcast_time"),
        ({"until": "9999-12-31T23:59", "timezone": "America/New_York"}, "broadcast_time"),
        ({"until": "2h", "starts": "2026-13-40T99:99"}, "broadcast_time"),
        ({"until": "2026-11-27T11:00"}, "broadcast_end"),
        ({"until": "91d"}, "broadcast_end"),
        ({"until": "2026-11-27T18:00", "timezone": "Nowhere/Land"}, "broadcast_time"),
        ({"until": "2026-11-27T18:00", "timezone": "../../etc/passwd"}, "broadcast_time"),
    ],
)
def test_what_cannot_be_sent_is_refused(store: Store, asked: dict[str, Any], code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        send(store, now=NOW, **asked)
    assert refused.value.code == code


def test_times_are_of_the_zone_and_durations_of_the_begin(store: Store) -> None:
    asked = {"starts": "2026-11-27T18:00", "until": "90m", "timezone": "Asia/Shanghai"}
    send(store, now=NOW - timedelta(hours=3), **asked)
    [row] = store.transact(lambda s: broadcasts.standing(s, NOW - timedelta(hours=3)))
    assert row.starts_at == datetime(2026, 11, 27, 10)
    assert row.ends_at == datetime(2026, 11, 27, 11, 30)


def test_five_at_once_and_no_more_until_one_is_withdrawn(store: Store) -> None:
    sent = [send(store) for _ in range(broadcasts.AT_ONCE)]
    with pytest.raises(BadRequest, match="Withdraw one first"):
        send(store)
    store.transact(lambda s: broadcasts.withdraw(s, sent[0], "dan"))
    with pytest.raises(BadRequest) as twice:
        store.transact(lambda s: broadcasts.withdraw(s, sent[0], "dan"))
    assert twice.value.status == 404
    send(store)


def test_each_reads_their_language_or_the_one_that_there_is(store: Store) -> None:
    send(store, en="<b>Slow</b>", zh="慢")
    send(store, en="", zh="只有中文", kind="warning")
    board = broadcasts.Board(store)
    shown = asyncio.run(board.fresh())
    for language, texts in (("en", ["<b>Slow</b>", "只有中文"]), ("zh_CN", ["慢", "只有中文"])):
        told = [broadcasts.told(one, gettext_for(language), ZoneInfo("UTC")) for one in shown]
        assert [one["text"] for one in told] == texts
        assert all(one["dismissible"] for one in told)


async def test_the_board_ends_them_by_itself_and_keeps_what_it_knows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(store)
    later = send(store, starts="1h")
    board = broadcasts.Board(store)
    assert [one.id for one in await board.fresh()] != [later]
    monkeypatch.setattr(broadcasts, "FRESH", 0.0)

    async def silent(_work: object) -> None:
        raise StoreError("away")

    monkeypatch.setattr(store, "read", silent)
    assert len(await board.fresh()) == 1, "the store is silent: what is known stays"
    hours = timedelta(hours=1, minutes=30)
    monkeypatch.setattr(broadcasts, "utcnow", lambda: utcnow() + hours)
    assert [one.id for one in board.now()][-1] == later, "its begin has come"
    monkeypatch.setattr(broadcasts, "utcnow", lambda: utcnow() + 3 * hours)
    assert board.now() == [], "gone at their end"


def test_the_command_sends_lists_and_withdraws(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", store.url)
    monkeypatch.setenv("LABCOMMONS_DATA", str(tmp_path))
    (tmp_path / "audit" / "hub").mkdir(parents=True)
    run = CliRunner().invoke
    assert "No message was sent" in run(broadcast, ["list"]).output
    assert run(broadcast, ["send", "Slow", "--until", "later"]).exit_code == 1
    sent = run(broadcast, ["send", "Slow", "--zh", "慢", "--until", "2h"])
    message = sent.output.split(":")[0]
    assert sent.exit_code == 0, sent.output
    assert f"{message}  info  shown" in run(broadcast, ["list"]).output
    assert run(broadcast, ["withdraw", message]).output == f"Withdrawn: {message}.\n"
    assert '"state": "withdrawn"' in run(broadcast, ["list", "--json"]).output
    trail = "".join(one.read_text() for one in (tmp_path / "audit" / "hub").glob("*.jsonl"))
    assert trail.count("broadcast-change") == 2
