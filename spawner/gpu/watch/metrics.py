"""GPUs in numbers for Prometheus, read from the store at each scrape.

Labels are bounded by the site: its models, nodes, teams and courses. People do not appear: all
that is charged to a person counts under ``user``. Counters are sums over the store's history, so
that they survive every restart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import extract, func, select
from sqlalchemy.orm import Session

from commons.leases import LeaseState
from commons.scopes import SCOPES, Keeper, of_account
from commons.store.models import GpuDevice, GpuNode, GpuUsage, GpuWatch, Lease, LeaseDevice
from spawner.gpu.devices import health

IDLE_AFTER = 300.0  # seconds; a pause to think is no idle GPU
REASONS = (
    "stopped",
    "time_limit",
    "idle",
    "preempted",
    "not_opened",
    "cancelled",
    "maintenance",
    "gpu_lost",
    "container gone",
    "container ended",
    "start refused",
    "start failed",
)


def text(session: Session, now: datetime, more: Iterable[Metric] = ()) -> bytes:
    """All metrics in Prometheus's text format, and more after them."""
    registry = CollectorRegistry()
    ours = [*_devices(session), *_now(session, now), *_history(session)]
    registry.register(_Given([*ours, *more]))
    return generate_latest(registry)


class _Given(Collector):
    """Metrics that were computed already."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._metrics


def account_label(account: str) -> str:
    """A team or course by its subject; ``user`` for whatever is charged to people."""
    scope = of_account(account)
    return account if scope and scope.keeper is Keeper.GROUP else SCOPES["personal"].account


def _gauge(
    name: str, help_: str, labels: list[str], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"labcommons_gpu_{name}", help_, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _devices(session: Session) -> Iterable[Metric]:
    drained = {
        row.name for row in session.scalars(select(GpuNode).where(GpuNode.drained_at.is_not(None)))
    }
    every, states, seen = Counter[tuple[str, ...]](), Counter[tuple[str, ...]](), []
    for row in session.scalars(select(GpuDevice)):
        if not row.present and row.health != "lost":
            continue
        every[row.model, row.node, row.sharing] += row.slots
        seen.append(row.seen_at)
        if row.health != "ok":
            states[row.model, row.node, row.health] += row.slots
        elif row.drained_at or row.node in drained:
            states[row.model, row.node, "drained"] += row.slots
    yield _gauge(
        "slots",
        "GPUs, MIG devices and share slots that the site has, whatever their state.",
        ["model", "node", "sharing"],
        every,
    )
    yield _gauge(
        "slots_not_offered",
        "Of these, those not offered: lost, failing or drained.",
        ["model", "node", "state"],
        states,
    )
    yield _gauge(
        "inventory_timestamp_seconds",
        "When the inventory was last read.",
        [],
        {(): _epoch(max(seen))} if seen else {},
    )


def _now(session: Session, now: datetime) -> Iterable[Metric]:
    leased, idle = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    used: dict[tuple[str, ...], list[float]] = defaultdict(list)
    query = (
        select(Lease.account, GpuDevice.model, GpuWatch.idle_seconds, GpuWatch.gpu_percent)
        .join(LeaseDevice, LeaseDevice.lease_id == Lease.id)
        .join(GpuDevice, GpuDevice.id == LeaseDevice.device_id)
        .outerjoin(GpuWatch, GpuWatch.lease_id == Lease.id)
        .where(LeaseDevice.released_at.is_(None))
    )
    for account, model, idle_seconds, percent in session.execute(query):
        key = (model, account_label(account))
        leased[key] += 1
        idle[key] += (idle_seconds or 0.0) >= IDLE_AFTER
        if percent is not None:
            used[key].append(percent)
    labels = ["model", "account"]
    yield _gauge("slots_leased", "Slots that somebody holds.", labels, leased)
    yield _gauge("slots_idle", "Of these, those that nobody has used for minutes.", labels, idle)
    yield _gauge(
        "utilization_percent",
        "Mean utilisation of leased GPUs, where the driver tells it.",
        labels,
        {key: sum(values) / len(values) for key, values in used.items()},
    )
    yield _gauge(
        "leases_out_of_reach",
        "Leases whose servers can no longer open their GPUs.",
        [],
        {(): len(health.out_of_reach(session))},
    )
    requests, gpus = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    oldest: dict[tuple[str, ...], float] = {}
    waiting = select(Lease.account, Lease.gpus, Lease.requested_at).where(
        Lease.state.in_((LeaseState.REQUESTED, LeaseState.QUEUED))
    )
    for account, count, since in session.execute(waiting):
        label = (account_label(account),)
        requests[label] += 1
        gpus[label] += count
        oldest[label] = max(oldest.get(label, 0.0), (now - since).total_seconds())
    yield _gauge("queue_requests", "Requests that wait.", ["account"], requests)
    yield _gauge("queue_gpus", "GPUs that waiting requests ask for.", ["account"], gpus)
    yield _gauge(
        "queue_oldest_seconds", "How long the oldest request has waited.", ["account"], oldest
    )


def _history(session: Session) -> Iterable[Metric]:
    counts = Counter[str]()
    sums: dict[str, float] = defaultdict(float)
    waited = extract("epoch", Lease.held_at) - extract("epoch", Lease.requested_at)
    granted = (
        select(Lease.account, func.count(), func.sum(waited))
        .where(Lease.held_at.is_not(None))
        .group_by(Lease.account)
    )
    for account, count, seconds in session.execute(granted):
        counts[account_label(account)] += count
        sums[account_label(account)] += float(seconds or 0)
    wait = SummaryMetricFamily(
        "labcommons_gpu_wait_seconds",
        "From request to grant, of every lease granted so far.",
        labels=["account"],
    )
    for label, count in sorted(counts.items()):
        wait.add_metric([label], count, max(0.0, sums[label]))
    yield wait
    ended = CounterMetricFamily(
        "labcommons_gpu_leases_ended", "Leases that ended, by reason.", labels=["reason"]
    )
    by_reason = Counter[str]()
    query = select(Lease.ended_reason, func.count()).where(Lease.state == LeaseState.ENDED)
    for reason, count in session.execute(query.group_by(Lease.ended_reason)):
        by_reason[_reason(reason or "")] += count
    for reason in (*REASONS, "other"):
        ended.add_metric([reason.replace(" ", "_")], by_reason[reason])
    yield ended
    hours = CounterMetricFamily(
        "labcommons_gpu_hours", "GPU-hours charged, weighted.", labels=["account"]
    )
    charged: dict[str, float] = defaultdict(float)
    usage = select(GpuUsage.account, func.sum(GpuUsage.gpu_seconds)).group_by(GpuUsage.account)
    for account, spent in session.execute(usage):
        charged[account_label(account)] += float(spent or 0) / 3600
    for label, total in sorted(charged.items()):
        hours.add_metric([label], total)
    yield hours


def _reason(reason: str) -> str:
    return next((known for known in REASONS if reason.startswith(known)), "other")


def _epoch(at: datetime) -> float:
    return (at - datetime(1970, 1, 1)).total_seconds()
