"""Usage: page, CSV, printable report and REST; by command, too."""

from __future__ import annotations

import csv
import io
import json
from datetime import date, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import insert
from sqlalchemy.orm import Session

from commons.store import Store
from commons.store.models import UsageDay, UsageMark
from hub_ext.console.plots import ticks
from hub_ext.usage_cli import usage
from spawner.usage import rollup
from spawner.usage.days import Figures

from .conftest import HOSTILE, Console

DAY = date(2026, 10, 14)


def put(
    session: Session,
    person: str,
    account: str,
    environment: str,
    gpu_hours: float,
    day: date = DAY,
) -> None:
    """So many GPU-hours on one day, half of them idle."""
    figures = Figures(
        gpu_seconds=gpu_hours * 3600,
        charged_seconds=gpu_hours * 7200,
        idle_seconds=gpu_hours * 1800,
        cpu_seconds=gpu_hours * 14400,
        memory_seconds=gpu_hours * 28800,
        wait_seconds=240.0,
        longest_wait=180.0,
        waits=2,
        servers=1,
    )
    key = {"day": day, "username": person, "account": account, "environment": environment}
    session.execute(insert(UsageDay), [{**key, "model": "A100", **figures._asdict()}])


def fill(session: Session) -> None:
    put(session, "alice", "group:vision", "torch", 3)
    put(session, "alice", "user:alice", HOSTILE, 2)
    put(session, "=2+3", "course:ml101", "data", 5)
    rollup.sum_months(session, DAY, DAY, False)
    session.merge(UsageMark(name=rollup.MARK, value="UTC", at=datetime(2026, 11, 1)))


@pytest.fixture
def used(filled: Console) -> Console:
    filled.store.transact(fill)
    return filled


SPAN = "from=2026-10-01&to=2026-10-31"


@pytest.mark.parametrize(
    ("token", "hours"),
    [
        ("carol-token", {"=2+3": 5, "alice": 5}),
        ("alice-token", {"alice": 5}),
        ("bob-token", {"alice": 3}),
        ("dan-token", {"=2+3": 5}),
        ("carol-narrow-token", {}),
    ],
)
async def test_each_sees_what_is_theirs_to_see(
    used: Console, token: str, hours: dict[str, float]
) -> None:
    found = await used.json(f"api/v1/usage/report?{SPAN}&by=person", token)
    assert {line["name"]: line["gpu_hours"] for line in found["lines"]} == hours
    # Nobody sees more by asking for another's.
    for narrowed in ("person=alice", "account=course:ml101"):
        less = await used.json(f"api/v1/usage/report?{SPAN}&{narrowed}", token)
        assert {line["name"] for line in less["lines"]} <= hours.keys()
    file = await used.get(f"usage.csv?{SPAN}&by=person", token)
    rows = list(csv.DictReader(io.StringIO(file.body.decode("utf-8-sig"))))
    assert {row["person"].lstrip("'"): float(row["gpu_hours"]) for row in rows} == hours
    assert not any(row["person"].startswith("=") for row in rows)  # no formula


async def test_a_report_has_all_figures_in_hours(used: Console) -> None:
    found = await used.json(f"api/v1/usage/report?{SPAN}&by=team", "carol-token")
    [rest, vision] = found["lines"]
    assert (rest["name"], rest["gpu_hours"]) == ("", 7)
    assert vision == {
        "name": "vision",
        "gpu_hours": 3,
        "charged_gpu_hours": 6,
        "idle_share": 0.5,
        "cpu_hours": 12,
        "memory_gib_hours": 24,
        "waits": 2,
        "mean_wait_seconds": 120,
        "longest_wait_seconds": 180,
        "servers": 1,
        "jobs": 0,
    }
    assert (found["first"], found["timezone"]) == ("2026-10-01", "UTC")
    assert found["until"] == "2026-11-01T00:00:00Z"


async def test_the_page_has_a_plot_a_table_and_the_way_further_and_escapes_all(
    used: Console,
) -> None:
    page = (await used.get(f"usage?{SPAN}&by=environment", "carol-token")).body.decode()
    assert HOSTILE not in page
    assert page.count('<svg class="lc-plot ') == 2
    assert "torch: 3 h (2026-10-14)" in page
    by_team = (await used.get(f"usage?{SPAN}&by=team", "carol-token")).body.decode()
    assert "account=group%3Avision&amp;by=person" in by_team
    hostile = f"usage?{SPAN}&account=%22%3E{HOSTILE}&person={HOSTILE}"
    answer = await used.get(hostile, "alice-token")
    assert answer.code == 200
    assert HOSTILE not in answer.body.decode()


async def test_what_is_no_day_is_said_and_the_page_is_there(used: Console) -> None:
    answer = await used.get("usage?from=2026-02-30&by=x&of=y", "carol-token")
    assert answer.code == 400
    assert "“2026-02-30” is no day" in answer.body.decode()
    report = await used.get("usage/report?month=x", "carol-token")
    assert report.code == 400


async def test_the_report_of_a_month_is_one_page_to_print(used: Console) -> None:
    page = (await used.get("usage/report?month=2026-10", "carol-token")).body.decode()
    for heading in ("Team", "Course", "GPU model", "Environment", "Person"):
        assert f">{heading}</h2>" in page
    assert "data-print" in page
    empty = (await used.get("usage/report?month=2020-10", "bob-token")).body.decode()
    assert "Nothing was used in this month." in empty


def test_ticks_are_round_and_reach_the_most() -> None:
    assert ticks(0) == [0, 1]
    for most in (0.003, 0.9, 1, 7, 10, 99, 100, 101, 12345):
        found = ticks(most)
        assert found[0] == 0
        assert found[-1] >= most
        assert 3 <= len(found) <= 7


def test_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", url)
    store = Store(url)
    store.migrate()
    store.transact(fill)

    def call(*words: str) -> str:
        found = CliRunner().invoke(usage, list(words))
        assert found.exit_code == 0, found.output
        return found.stdout

    span = ("report", "--from", "2026-10-01", "--to", "2026-10-31")
    assert json.loads(call(*span, "--by", "course", "--json"))["lines"][0]["name"] in ("ml101", "")
    assert "vision" in call(*span, "--by", "team")
    assert call(*span, "--csv").splitlines()[1].startswith("'=2+3,5.0,10.0,0.5")
    assert "Nothing was used" in call("report", "--from", "2020-01-01", "--to", "2020-01-02")
    assert "summed up" in call("rebuild")  # there are no leases: nothing is left
    assert "Nothing was used" in call(*span)
    for wrong, code in ((("report", "--from", "x"), 1), (("report", "--csv", "--json"), 2)):
        assert CliRunner().invoke(usage, list(wrong)).exit_code == code
    store.close()
