"""The demo shows limits, budgets, a reservation and a past from its first minute."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select

from commons.site import load_site
from commons.store import Store
from commons.store.models import GpuReservation, GpuUsage, Lease
from hub_ext import demo
from spawner.gpu.ledger import invariants
from spawner.gpu.ledger.snapshot import read_snapshot
from spawner.gpu.quotas.document import read_document

CONFIG = Path(__file__).parents[2] / "config" / "demo"
NOW = datetime(2026, 11, 26, 9, 30)


def begin(store: Store, now: datetime = NOW) -> bool:
    limits = read_document((CONFIG / "quotas.yaml").read_text("utf-8"))
    return store.transact(lambda s: demo.begin(s, load_site(CONFIG / "site.yaml"), limits, now))


def test_a_new_demo_has_something_to_show(store: Store) -> None:
    assert begin(store)
    assert not store.transact(lambda s: invariants.check(s, deep=True, patience=0, now=NOW))
    snapshot = store.transact(lambda s: read_snapshot(s, NOW.timestamp()))
    assert [window.name for window in snapshot.windows][:1] == ["Machine learning, lab"]
    assert {"group:vision", "course:ml101"} <= set(snapshot.quotas)

    def past(session):  # type: ignore[no-untyped-def]
        used = select(GpuUsage.account, func.sum(GpuUsage.gpu_seconds)).group_by(GpuUsage.account)
        return dict(session.execute(used).all()), session.scalar(
            select(func.count()).select_from(Lease).where(Lease.state != "ended")
        )

    used, live = store.transact(past)
    assert live == 0
    assert used["group:vision"] == 10 * 13.5 * 3600
    assert used["course:ml101"] == 10 * 3 * 3600


def test_it_never_comes_between_what_somebody_has_set(store: Store) -> None:
    assert begin(store)
    assert not begin(store)
    store.transact(lambda s: s.execute(GpuReservation.__table__.delete()))
    assert not begin(store)
