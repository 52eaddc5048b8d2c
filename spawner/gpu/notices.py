"""What people have to be told about their GPUs: written once for each cause, shown where they are.

Whoever notices something calls ``add`` in the transaction in which it acts; the notebook, the
pages and mail show it from the table. Codes, levels and sentences are in ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub_ext.i18n import N_, Gettext
from hub_ext.store.models import GpuNotice, Lease, LeaseState, utcnow

SHOWN_FOR = timedelta(days=7)
SHOWN_AT_MOST = 50
Level = Literal["info", "warning", "error"]
Action = Literal["extend", "keep"]


@dataclass(frozen=True)
class Kind:
    """One sort of notice.

    Attributes:
        actions: what the person can do about it with a button.
        upcoming: of something that is going to happen: no longer shown once the lease is over.
        topic: of several about one thing of one lease, only the newest is shown.
        mailed: whether it is worth a mail; what only concerns who sits there is not.
    """

    level: Level
    sentence: str
    actions: tuple[Action, ...] = ()
    mailed: bool = True
    upcoming: bool = False
    topic: str = ""


# By code, what matters most first: JupyterLab shows 140 characters. Placeholders that end
# in ``_at`` are seconds since 1970, in the data and shown as a time; those that end in ``_for`` are
# seconds, shown as a duration.
KINDS: Mapping[str, Kind] = {
    "granted": Kind(
        "info",
        N_(
            "Your GPUs are there: the server has started. "
            "Open it before {open_by_at}, or they go to the next."
        ),
        upcoming=True,
    ),
    "not_opened": Kind(
        "warning", N_("Nobody opened the server after its GPUs were granted, so it was stopped.")
    ),
    "ends_soon": Kind(
        "warning",
        N_("The server ends at {ends_at}: its time limit is over then. Save your work, or extend."),
        ("extend",),
        upcoming=True,
        topic="end",
    ),
    "time_limit": Kind(
        "info", N_("The server was stopped: its time limit was over. Your files are all there.")
    ),
    "idle_warning": Kind(
        "warning",
        N_(
            "The GPUs have not been used for {idle_for}. Unless they are, or you keep them, "
            "the server is stopped at {stop_at}."
        ),
        ("keep",),
        upcoming=True,
        topic="idle",
    ),
    "idle_resumed": Kind(
        "info",
        N_("The server stays: its GPUs are in use again, or nobody waits for them any more."),
        mailed=False,
        upcoming=True,
        topic="idle",
    ),
    "idle": Kind(
        "info",
        N_(
            "The server was stopped, because its GPUs had not been used for {idle_for}. "
            "Your files are all there."
        ),
    ),
    "kept": Kind(
        "info",
        N_("The server is not stopped for idle GPUs before {keep_until_at}."),
        mailed=False,
        upcoming=True,
        topic="idle",
    ),
    "preempted_soon": Kind(
        "warning",
        N_(
            "The GPUs were borrowed from {account}, who needs them: the server ends at {stop_at}. "
            "Save your work."
        ),
        upcoming=True,
        topic="end",
    ),
    "preempted": Kind(
        "info",
        N_(
            "The server was stopped: its borrowed GPUs went back to their owner. "
            "Your files are all there."
        ),
    ),
    "gpu_lost": Kind(
        "error",
        N_(
            "A GPU of the server has failed ({devices}). "
            "Save your work and start the server again to get another one."
        ),
        upcoming=True,
    ),
    "gpu_failing": Kind(
        "warning",
        N_(
            "A GPU’s results may be wrong ({devices}): save your work and start the server again. "
            "It reports: {reason}."
        ),
    ),
    "gpus_out_of_reach": Kind(
        "error",
        N_(
            "The server no longer reaches its GPUs; something on the machine took them away. "
            "Save your work and start the server again."
        ),
        upcoming=True,
    ),
    "stopping": Kind(
        "warning", N_("The server ends at {stop_at}. Save your work."), upcoming=True, topic="end"
    ),
    "stopped": Kind("info", N_("The server was stopped. Your files are all there.")),
}


@dataclass(frozen=True)
class Notice:
    """A notice as it is shown."""

    id: int
    at: datetime
    code: str
    level: Level
    sentence: str
    actions: tuple[Action, ...]
    lease_id: str | None
    server: str
    seen: bool


def add(
    session: Session,
    *,
    username: str,
    lease_id: str | None,
    code: str,
    data: Mapping[str, Any],
    key: str,
    now: datetime | None = None,
) -> bool:
    """Tell a person something, once for a ``key`` (the cause, up to 160 characters).

    True when it is new. Raises KeyError for a code that is not in ``KINDS``.
    """
    KINDS[code]
    if session.scalar(select(GpuNotice.id).where(GpuNotice.key == key)) is not None:
        return False
    try:
        with session.begin_nested():
            session.add(
                GpuNotice(
                    username=username,
                    lease_id=lease_id,
                    code=code,
                    data=dict(data),
                    key=key,
                    at=now or utcnow(),
                )
            )
    except IntegrityError:  # another process said it at this moment
        return False
    return True


def show(
    session: Session,
    username: str,
    _: Gettext,
    timezone: tzinfo | None = None,
    now: datetime | None = None,
) -> list[Notice]:
    """A person's notices of the last days, newest first, at most ``SHOWN_AT_MOST``."""
    query = (
        select(GpuNotice, Lease)
        .outerjoin(Lease, Lease.id == GpuNotice.lease_id)
        .where(GpuNotice.username == username, GpuNotice.at > (now or utcnow()) - SHOWN_FOR)
        .order_by(GpuNotice.id.desc())
        .limit(SHOWN_AT_MOST)
    )
    shown: list[Notice] = []
    topics: set[tuple[str | None, str]] = set()
    for row, lease in session.execute(query):
        kind = KINDS.get(row.code)
        if kind is None or not still_true(row, lease):
            continue
        if kind.topic and (row.lease_id, kind.topic) in topics:
            continue
        topics.add((row.lease_id, kind.topic))
        shown.append(
            Notice(
                row.id,
                row.at,
                row.code,
                kind.level,
                sentence(row.code, row.data, _, timezone),
                kind.actions,
                row.lease_id,
                lease.server_name if lease is not None else "",
                row.seen_at is not None,
            )
        )
    return shown


def still_true(notice: GpuNotice, lease: Lease | None) -> bool:
    """Whether what a notice says is going to happen, still is: not of a lease that is over, and
    no end that was put off meanwhile.
    """
    if not KINDS[notice.code].upcoming:
        return True
    if lease is None or lease.state is LeaseState.ENDED:
        return False
    said = notice.data.get("ends_at")
    if said is None or lease.ends_at is None:
        return True
    return lease.ends_at.replace(tzinfo=UTC).timestamp() < float(said) + 1


def mark_seen(
    session: Session, username: str, ids: Collection[int], now: datetime | None = None
) -> int:
    """The person has seen these of their notices; how many that changed."""
    wanted = list(ids)[:SHOWN_AT_MOST]
    done = session.execute(
        update(GpuNotice)
        .where(
            GpuNotice.username == username, GpuNotice.id.in_(wanted), GpuNotice.seen_at.is_(None)
        )
        .values(seen_at=now or utcnow())
    )
    return int(getattr(done, "rowcount", 0))


def sentence(code: str, data: Mapping[str, Any], _: Gettext, timezone: tzinfo | None = None) -> str:
    """The sentence of a notice, with times in ``timezone`` (the process's own by default)."""
    return _(KINDS[code].sentence).format_map(_Shown(data, _, timezone))


class _Shown(dict[str, str]):
    """The data as it stands in a sentence. What is missing is a dash: a notice never fails."""

    def __init__(self, data: Mapping[str, Any], _: Gettext, timezone: tzinfo | None) -> None:
        super().__init__({name: _shown(name, value, _, timezone) for name, value in data.items()})

    def __missing__(self, name: str) -> str:
        return "–"


def _shown(name: str, value: object, _: Gettext, timezone: tzinfo | None) -> str:
    if isinstance(value, int | float) and name.endswith("_at"):
        when = datetime.fromtimestamp(value, UTC).astimezone(timezone)
        today = when.date() == datetime.now(when.tzinfo).date()
        text = f"{when:%H:%M}" if today else f"{when:%Y-%m-%d %H:%M}"
        # Who reads it in their own time zone need not be told which.
        return text if timezone is not None else f"{text} {when:%Z}"
    if isinstance(value, int | float) and name.endswith("_for"):
        minutes = max(1, round(value / 60))
        if minutes < 120:
            return _(N_("{count} min")).format(count=minutes)
        return _(N_("{count} h")).format(count=round(minutes / 60))
    return str(value)
