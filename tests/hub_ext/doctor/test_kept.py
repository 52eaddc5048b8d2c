"""What is kept of findings: states and their ages, for the page, Prometheus and the banner."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from commons.store import Store
from commons.store.models import utcnow
from hub_ext.doctor import kept, rounds
from spawner.gpu.watch import metrics

ALERTS = Path(__file__).parents[3] / "config" / "prometheus" / "alerts.yml"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = Store(f"sqlite:///{tmp_path / 'ours.sqlite'}")
    one.migrate()
    yield one
    one.close()


def row(check: str, state: str, about: str = "") -> dict[str, Any]:
    words = {"en": "so", "zh_CN": "如此"}
    return {"check": check, "about": about, "state": state, "cause": words, "remedy": words}


def test_a_check_is_as_its_worst_finding_and_since_when(store: Store) -> None:
    begun = utcnow() - timedelta(hours=2)
    later = begun + timedelta(hours=1)
    store.transact(lambda s: kept.keep(s, [row("disk", "ok"), row("disk", "broken")], begun))
    store.transact(lambda s: kept.keep(s, [row("disk", "broken"), row("ledger", "ok")], later))
    (disk, ledger) = store.transact(kept.everything, read=True)
    assert (disk.name, disk.state, disk.since, disk.at) == ("disk", "broken", begun, later)
    assert (ledger.name, ledger.state) == ("ledger", "ok")


def test_what_nobody_looks_at_any_more_is_forgotten(store: Store) -> None:
    long_ago = utcnow() - 2 * kept.FORGOTTEN
    store.transact(lambda s: kept.keep(s, [row("old", "broken")], long_ago))
    store.transact(lambda s: kept.keep(s, [row("new", "ok")]))
    assert [one.name for one in store.transact(kept.everything, read=True)] == ["new"]


def test_prometheus_gets_state_and_age(store: Store) -> None:
    store.transact(lambda s: kept.keep(s, [row("disk", "broken"), row("agent", "unknown")]))
    now = utcnow()
    text = store.transact(lambda s: metrics.text(s, now, kept.metrics(s, now))).decode()
    assert 'labcommons_doctor_check{check="disk"} 3.0' in text
    assert 'labcommons_doctor_check{check="agent"} 2.0' in text
    assert 'labcommons_doctor_age_seconds{check="disk"}' in text


def test_administrators_are_told_of_what_cannot_wait_and_of_nothing_else(store: Store) -> None:
    well = [row("disk", "broken"), row("certificates", "ok"), row("room", "warning", "data")]
    store.transact(lambda s: kept.keep(s, well))
    assert store.transact(kept.urgent, read=True) == []
    two = [row("certificates", "warning", "ca.crt"), row("certificates", "broken", "served")]
    store.transact(lambda s: kept.keep(s, two))
    full = [row("room", "ok", "data"), row("room", "broken", "Docker")]
    store.transact(lambda s: kept.keep(s, full))
    found = [(one["check"], one["about"]) for one in store.transact(kept.urgent, read=True)]
    assert found == [("room", "Docker"), ("certificates", "served")]


def test_the_hub_looks_when_it_is_time_and_when_somebody_asks(store: Store, tmp_path: Path) -> None:
    note = tmp_path / "looked"
    script = f"open({str(note)!r}, 'a').write('x')"
    look = rounds.Rounds(store, (sys.executable, "-c", script))
    store.transact(lambda s: kept.keep(s, [row("disk", "ok")]))

    async def several() -> None:
        await look.once()
        await look.once()  # it is not time, and nobody has asked
        await store.run(kept.ask)
        await look.once()
        await look.once()

    asyncio.run(several())
    assert note.read_text() == "xx"


def test_a_look_that_hangs_is_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "LIMIT", 0.1)
    asyncio.run(rounds.Rounds(store, ("sleep", "600")).once())


def test_the_alerts_are_of_metrics_that_there_are(store: Store) -> None:
    """As Prometheus's schema of rules has them: groups, rules, expressions of our own metrics."""
    document = YAML(typ="safe", pure=True).load(ALERTS.read_text("utf-8"))
    assert document.keys() == {"groups"}
    store.transact(lambda s: kept.keep(s, [row("databases", "ok")]))
    now = utcnow()
    text = store.transact(lambda s: metrics.text(s, now, kept.metrics(s, now))).decode()
    for group in document["groups"]:
        assert group.keys() <= {"name", "interval", "rules"}
        for rule in group["rules"]:
            assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
            assert re.fullmatch(r"\d+[smh]", rule["for"])
            for name in re.findall(r"labcommons_\w+", rule["expr"]):
                assert f"\n{name}{{" in text
