"""Metrics: what Prometheus reads is what the store says; the dashboard asks for what exists."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.orm import Session

from commons.leases import LeaseState
from commons.store import GpuUsage, GpuWatch, Lease, LeaseDevice, Store
from commons.store.models import utcnow
from spawner.gpu.devices import health
from spawner.gpu.policy.placement import Device
from spawner.gpu.watch import metrics

DASHBOARD = Path(__file__).parents[3] / "config" / "grafana" / "gpus.json"
NOW = utcnow()
DEVICES = [
    Device("GPU-1", "A100", 80),
    Device("GPU-2", "A100", 80),
    Device("GPU-3", "T4", 16, sharing="time-slicing", slots=4, weight=0.25),
]


def lease(name: str, user: str, account: str, state: LeaseState, **values: object) -> Lease:
    since = NOW - timedelta(minutes=30)
    return Lease(id=name, username=user, account=account, state=state, requested_at=since, **values)


def fill(session: Session) -> None:
    health.sync_inventory(session, DEVICES, now=NOW)
    health.drain(session, "GPU-2", "carol")
    held = NOW - timedelta(minutes=20)
    session.add_all(
        [
            lease(
                "one",
                "alice",
                "group:vision",
                LeaseState.ACTIVE,
                held_at=held,
                devices=[LeaseDevice(device_id="GPU-1")],
            ),
            lease("two", "bob", "user:bob", LeaseState.QUEUED, gpus=2),
            lease("three", "dan", "user:dan", LeaseState.QUEUED, gpus=1),
            lease(
                "over",
                "alice",
                "group:vision",
                LeaseState.ENDED,
                held_at=held,
                ended_reason="start refused: engine_refused",
            ),
        ]
    )
    session.flush()
    session.add(
        GpuWatch(lease_id="one", at=NOW, use="idle", gpu_percent=2.0, idle_seconds=900, warnings=0)
    )
    session.add(
        GpuUsage(
            lease_id="one",
            username="alice",
            account="group:vision",
            weight=1.0,
            started_at=held,
            charged_to=NOW,
            gpu_seconds=1800.0,
        )
    )


@pytest.fixture
def samples(store: Store) -> dict[tuple[str, ...], float]:
    """Value by name and sorted label values."""
    store.transact(fill)
    text = store.transact(lambda s: metrics.text(s, NOW), read=True).decode()
    return {
        (sample.name.removeprefix("labcommons_gpu_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_there_is_leased_idle_and_not_offered(samples: dict[tuple[str, ...], float]) -> None:
    assert samples["slots", "A100", "exclusive", "local"] == 2
    assert samples["slots", "T4", "local", "time-slicing"] == 4
    assert samples["slots_not_offered", "A100", "drained", "local"] == 1
    assert samples["slots_leased", "A100", "group:vision"] == 1
    assert samples["slots_idle", "A100", "group:vision"] == 1
    assert samples["utilization_percent", "A100", "group:vision"] == 2


def test_who_waits_is_counted_and_not_named(samples: dict[tuple[str, ...], float]) -> None:
    assert samples["queue_requests", "user"] == 2
    assert samples["queue_gpus", "user"] == 3
    assert samples["queue_oldest_seconds", "user"] == pytest.approx(1800, abs=1)
    assert not [key for key in samples if {"user:bob", "bob", "alice"} & set(key)]


def test_history_is_summed_up(samples: dict[tuple[str, ...], float]) -> None:
    assert samples["wait_seconds_count", "group:vision"] == 2
    assert samples["wait_seconds_sum", "group:vision"] == pytest.approx(1200, abs=2)
    assert samples["hours_total", "group:vision"] == 0.5
    assert samples["leases_ended_total", "start_refused"] == 1


def test_every_query_of_the_dashboard_asks_for_what_exists(
    samples: dict[tuple[str, ...], float],
) -> None:
    known = {key[0] for key in samples}
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"labcommons_gpu_(\w+)", query)}
    assert asked <= known
    assert len(queries) >= 12
    labels = {"model", "node", "state", "account", "reason", "sharing"}
    for query in queries:
        for group in re.findall(r"by \((.*?)\)", query):
            assert set(group.split(", ")) <= labels


def test_a_site_without_gpus_has_metrics_too(store: Store) -> None:
    assert b"labcommons_gpu_slots" in store.transact(lambda s: metrics.text(s, NOW), read=True)
