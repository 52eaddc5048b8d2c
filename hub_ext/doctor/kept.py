"""What the checks found last, in our database: for the page, REST, Prometheus and the banner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from commons.store.models import HealthCheck, utcnow
from hub_ext.doctor.registry import State

ORDER = tuple(State)  # from the best to the worst
FORGOTTEN = timedelta(days=30)  # a check that nobody has run for so long is none any more
MAX_ROWS = 200  # of one check
# What Prometheus gets: what is unknown may be anything, and is told as a warning is.
LEVELS = {"ok": 0, "advice": 1, "unknown": 2, "warning": 2, "broken": 3}


def worst(states: Iterable[str]) -> str:
    """The worst of some states; ``ok`` of none."""
    return max(states, key=ORDER.index, default="ok")  # type: ignore[arg-type]


def keep(session: Session, rows: Iterable[Mapping[str, Any]], now: datetime | None = None) -> None:
    """Remember findings in place of the earlier ones of the same checks."""
    now = now or utcnow()
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row["check"])[:60], []).append(row)
    for name, ones in found.items():
        state = worst(str(one["state"]) for one in ones)
        known = session.get(HealthCheck, name)
        if known is None:
            known = HealthCheck(name=name, state=state, since=now)
            session.add(known)
        elif known.state != state:
            known.since = now
        known.state, known.at, known.asked = state, now, False
        known.findings = [
            {key: one[key] for key in ("about", "state", "cause", "remedy")}
            for one in ones[:MAX_ROWS]
        ]
    session.execute(delete(HealthCheck).where(HealthCheck.at < now - FORGOTTEN))


def ask(session: Session) -> None:
    """Somebody wants to know now: the hub looks within seconds."""
    session.execute(update(HealthCheck).values(asked=True))


def asked(session: Session) -> bool:
    """Whether somebody wants to know; from then on nobody does, until asked again."""
    found = session.scalar(select(HealthCheck.name).where(HealthCheck.asked).limit(1))
    if found is not None:
        session.execute(update(HealthCheck).values(asked=False))
    return found is not None


def everything(session: Session) -> list[HealthCheck]:
    """The checks, the worst first."""
    rows = session.scalars(select(HealthCheck)).all()
    return sorted(rows, key=lambda row: (-ORDER.index(State(row.state)), row.name))


# What an administrator is told on every page, from which state on.
URGENT = {"room": State.BROKEN, "certificates": State.UNKNOWN}


def urgent(session: Session) -> list[dict[str, Any]]:
    """The worst finding of each check that cannot wait until somebody looks at the page Health."""
    found = []
    for name, least in URGENT.items():
        row = session.get(HealthCheck, name)
        if row is not None and ORDER.index(State(row.state)) >= ORDER.index(least):
            worst_one = max(row.findings, key=lambda one: ORDER.index(one["state"]))
            found.append({**worst_one, "check": name})
    return found


def metrics(session: Session, now: datetime) -> list[Metric]:
    """For Prometheus: by the name of the check alone, of which there are some twenty."""
    state = GaugeMetricFamily(
        "labcommons_doctor_check",
        "What labcommons doctor found: 0 ok, 1 advice, 2 warning or unknown, 3 broken.",
        labels=["check"],
    )
    age = GaugeMetricFamily(
        "labcommons_doctor_age_seconds", "Seconds since the check last ran.", labels=["check"]
    )
    for row in everything(session):
        state.add_metric([row.name], LEVELS[row.state])
        age.add_metric([row.name], max(0.0, (now - row.at).total_seconds()))
    return [state, age]
