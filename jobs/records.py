"""Jobs in the store: each change of state is one transaction, and harmless to repeat.

    pending -> starting -> running -> done, failed, cancelled, preempted or lost

*starting* is written before a container is asked for, with the attempt that it is; how it ended,
before anything of it is removed; ``settled``, when nothing is left. So whoever is killed leaves a
row from which the next one goes on, and an attempt is started once. Preempted and lost ones are
pending again while they may be tried again.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import BadRequest, NotAvailable
from commons.i18n import N_
from commons.leases import LeaseState, job_server
from commons.messages import Locale, Message, Text
from commons.rights import NO_JOB
from commons.store import runs
from commons.store.database import tell
from commons.store.models import GpuWatch, Job, Lease, utcnow
from jobs.asked import Asked, number
from spawner.gpu.ledger import transitions
from spawner.gpu.policy.state import Reason
from spawner.gpu.views import iso

NEWS = "labcommons_jobs"
MOST_UNFINISHED = 2000  # of a person
# So many of a person's wait in the queue of GPUs, or for their turn; the rest stands behind them.
WINDOW = 20
KEPT = timedelta(days=90)  # once they are over
SHOWN = 500


class State(StrEnum):
    """How far a job is."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    LOST = "lost"


UNFINISHED = (State.PENDING, State.STARTING, State.RUNNING)
AT_WORK = (State.STARTING, State.RUNNING)

TOO_MANY = Text(
    "jobs_too_many",
    N_("You have {held} jobs that are not over, and may have {most}. Cancel some, or wait."),
)
WAITS_BEHIND = Text("job_behind", N_("Waits for others of your own that were asked for before."))
WAITS_AFTER = Text("job_waits_after", N_("Waits until {jobs} is done."))
WAITS_ARRAY = Text("job_waits_array", N_("{most} tasks of this array run at once."))
NEVER_AFTER = Text("job_never_after", N_("The job {job}, after which it was to run, is not done."))
EXITED = Text("job_exited", N_("The program ended with exit code {code}."))
SIGNALLED = Text("job_signalled", N_("The program was ended by signal {signal}."))
OUT_OF_MEMORY = Text(
    "job_out_of_memory",
    N_("The program took more memory than it may have. Choose a larger size."),
)
TIME_OVER = Text("job_time_over", N_("Its time limit was over."))
STOPPED = Text("job_cancelled", N_("It was cancelled by {by}."))
MADE_ROOM = Text("job_made_room", N_("It made room for others, as preemptible jobs do."))
GONE = Text("job_lost", N_("The machine, or what runs containers there, was restarted under it."))
TRIED_AGAIN = Text("job_tried_again", N_("It is tried again: {reason}"))


def seconds(at: datetime) -> float:
    """A time of the store, in seconds since 1970."""
    return at.replace(tzinfo=UTC).timestamp()


def name(row: Job) -> str:
    """What people call it: ``17``, or of an array ``17_3``."""
    return str(row.id) if row.array is None else f"{row.array}_{row.task}"


# -- asking ----------------------------------------------------------------------------------------


def submit(
    session: Session, asked: Asked, user: str, environment: str = "", now: datetime | None = None
) -> list[Job]:
    """Write a job, or all tasks of an array. Raises BadRequest, NotAvailable, NotAllowed."""
    held = session.scalar(
        select(func.count()).where(Job.username == user, Job.state.in_(UNFINISHED))
    )
    held, more = int(held or 0), len(asked.tasks) or 1
    if held + more > MOST_UNFINISHED:
        raise NotAvailable(TOO_MANY(held=held, most=MOST_UNFINISHED))
    after = [_first(session, one, user) for one in asked.after]
    rows = [
        Job(
            username=user,
            task=task,
            at_once=asked.at_once,
            command=list(asked.command),
            folder=asked.folder,
            options=dict(asked.options),
            time_limit=None if asked.minutes is None else asked.minutes * 60,
            after=after,
            retries=asked.retries,
            preemptible=asked.preemptible,
            environment=environment,
            state=State.PENDING,
            submitted_at=now or utcnow(),
        )
        for task in (asked.tasks or (None,))
    ]
    session.add(rows[0])
    session.flush()
    if asked.tasks:
        for row in rows:
            row.array = rows[0].id
        session.add_all(rows[1:])
        session.flush()
    tell(session, NEWS)
    return rows


def _first(session: Session, wanted: tuple[int, int | None], user: str) -> int:
    """The row that stands for a job of somebody's: of an array, its first."""
    rows = _named(session, *wanted)
    if not rows or rows[0].username != user:
        raise NO_JOB.error()
    return rows[0].id


def _named(session: Session, wanted: int, task: int | None) -> list[Job]:
    if task is not None:
        query = select(Job).where(Job.array == wanted, Job.task == task)
    else:
        query = select(Job).where(or_(Job.id == wanted, Job.array == wanted))
    rows = list(session.scalars(query.order_by(Job.id)))
    # A number within an array is none of its own.
    return [row for row in rows if task is not None or row.array in (None, wanted)]


def find(session: Session, said: str) -> list[Job]:
    """A job, a task of an array, or all tasks of one. Raises NotAllowed (404)."""
    try:
        rows = _named(session, *number(said))
    except BadRequest:
        rows = []
    if not rows:
        raise NO_JOB.error()
    return rows


def cancel(session: Session, rows: Iterable[Job], by: str) -> int:
    """Have them ended; how many were not over, and nobody had said so before."""
    count = 0
    for row in rows:
        if row.state in UNFINISHED and not row.stop:
            row.stop, row.stopped_by = "cancelled", by[:255]
            count += 1
    tell(session, NEWS)
    return count


# -- what is to be done ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Due:
    """What the keeper has to look at.

    Attributes:
        begin: pending ones that wait for nothing of ours, the earliest first.
        reasons: why other pending ones wait.
        never: those that wait for what will not come, and for which job.
        rows: all that is not over, or not settled, by number.
    """

    begin: tuple[int, ...] = ()
    reasons: Mapping[int, Message] = field(default_factory=dict)
    never: Mapping[int, str] = field(default_factory=dict)
    rows: Mapping[int, Job] = field(default_factory=dict)


def due(session: Session) -> Due:
    """As it is now."""
    query = select(Job).where(or_(Job.state.in_(UNFINISHED), Job.settled.is_(False)))
    rows = {row.id: row for row in session.scalars(query.order_by(Job.id))}
    pending = [row for row in rows.values() if row.state == State.PENDING and row.settled]
    firsts = {one for row in pending for one in row.after}
    before = _states(session, firsts)
    at_work: Counter[int | None] = Counter(
        row.array for row in rows.values() if row.array and row.state in AT_WORK
    )
    window: Counter[str] = Counter()
    begin: list[int] = []
    reasons: dict[int, Message] = {}
    never: dict[int, str] = {}
    for row in pending:
        bad = next((f for f in row.after if any(_is_bad(s) for s in before[f][1])), None)
        if bad is not None:
            never[row.id] = before[bad][0]
            continue
        left = [before[f][0] for f in row.after if any(s != State.DONE for s in before[f][1])]
        if left and not row.stop:
            reasons[row.id] = WAITS_AFTER(jobs=left)
        elif row.array and row.at_once and at_work[row.array] >= row.at_once and not row.stop:
            reasons[row.id] = WAITS_ARRAY(most=row.at_once)
        elif window[row.username] >= WINDOW and not row.stop:
            reasons[row.id] = WAITS_BEHIND()
        else:
            begin.append(row.id)
            window[row.username] += 1
            at_work[row.array] += 1
    return Due(tuple(begin), reasons, never, rows)


def _states(session: Session, firsts: Iterable[int]) -> dict[int, tuple[str, list[str]]]:
    """By row that stands for a job: what it is called, and the states of all of it."""
    wanted = set(firsts)
    found: dict[int, tuple[str, list[str]]] = defaultdict(lambda: ("", [State.LOST]))
    if wanted:
        query = select(Job.id, Job.array, Job.state).where(
            or_(Job.id.in_(wanted), Job.array.in_(wanted))
        )
        states: dict[int, list[str]] = {}
        for one, array, state in session.execute(query):
            states.setdefault(array if array in wanted else one, []).append(state)
        found.update({first: (str(first), all_) for first, all_ in states.items()})
    return found


def _is_bad(state: str) -> bool:
    return state not in UNFINISHED and state != State.DONE


def preemptible(session: Session) -> dict[tuple[str, str], int]:
    """Preemptible jobs that are not over, by their place among servers."""
    query = select(Job.username, Job.id).where(Job.preemptible, Job.state.in_(UNFINISHED))
    return {(user, job_server(one)): one for user, one in session.execute(query)}


def wait(session: Session, reasons: Mapping[int, Message | None]) -> None:
    """Write why pending ones wait."""
    for one, reason in reasons.items():
        row = _row(session, one)
        if row is not None and row.state == State.PENDING:
            row.reason = None if reason is None else reason.as_json()


# -- moves -----------------------------------------------------------------------------------------


def _row(session: Session, job: int) -> Job | None:
    return session.get(Job, job, with_for_update=True, populate_existing=True)


def pin(session: Session, job: int, environment: str) -> None:
    """The version that it runs with, chosen once."""
    row = _row(session, job)
    if row is not None and not row.environment:
        row.environment = environment


def begin(session: Session, job: int) -> Job | None:
    """It is about to be started, or goes on being so; None where it is not to be."""
    row = _row(session, job)
    if row is None or row.stop:
        return None
    if row.state == State.PENDING and row.settled:
        if row.array is not None and row.at_once is not None:
            same = Job.array == row.array, Job.state.in_(AT_WORK)
            if (session.scalar(select(func.count()).where(*same)) or 0) >= row.at_once:
                return None  # one that was cut off has taken its place meanwhile
        row.state, row.reason, row.settled = State.STARTING, None, False
        row.attempt, row.handle = row.attempt + 1, ""
        row.exit_code = row.started_at = None
    return row if row.state == State.STARTING else None


def run(session: Session, job: int, handle: str, lease: str = "") -> None:
    """Its container runs. Raises LeaseMoveError where its lease has ended meanwhile."""
    if lease:
        transitions.activate(session, lease, handle)
        transitions.opened(session, lease)
    row = _row(session, job)
    if row is not None and row.state == State.STARTING:
        row.state, row.handle, row.started_at = State.RUNNING, handle, utcnow()


def stop(session: Session, job: int, why: str, by: str = "") -> None:
    """It is to end, for the first reason that was said."""
    row = _row(session, job)
    if row is not None and row.state in UNFINISHED and not row.stop:
        row.stop, row.stopped_by = why, by[:255]


def end(
    session: Session,
    job: int,
    state: State,
    reason: Message | None = None,
    exit_code: int | None = None,
    memory_peak: int | None = None,
) -> Job | None:
    """It is over, or pending again; the row, where this ended it."""
    row = _row(session, job)
    if row is None or row.state not in UNFINISHED:
        return None
    runs.over(session, row.handle)
    if row.state != State.PENDING:
        row.exit_code = exit_code
        row.memory_peak = max(memory_peak or 0, row.memory_peak or 0) or None
    row.ended_at, row.reason = utcnow(), None if reason is None else reason.as_json()
    if state in (State.PREEMPTED, State.LOST) and row.attempt <= row.retries:
        row.state, row.ended_at, row.stop, row.stopped_by = State.PENDING, None, "", ""
        row.reason = TRIED_AGAIN(reason=reason).as_json()
    else:
        row.state = state
        _tell(session, row, reason)
    tell(session, NEWS)
    return row


def settle(session: Session, job: int) -> None:
    """Nothing is left of its container and lease."""
    row = _row(session, job)
    if row is not None and row.state not in AT_WORK:
        row.settled, row.handle = True, ""


def note_gpus(session: Session, rows: Iterable[Job]) -> None:
    """Keep the most that was seen of the use of GPUs."""
    keys = {(row.username, job_server(row.id)): row.id for row in rows}
    if not keys:
        return
    query = (
        select(Lease.username, Lease.server_name, GpuWatch.gpu_percent)
        .join(GpuWatch, GpuWatch.lease_id == Lease.id)
        .where(Lease.state == LeaseState.ACTIVE, GpuWatch.gpu_percent.is_not(None))
    )
    for user, server, percent in session.execute(query):
        row = _row(session, keys[user, server]) if (user, server) in keys else None
        if row is not None:
            row.gpu_peak = max(percent or 0.0, row.gpu_peak or 0.0)


def forget(session: Session, now: datetime) -> list[int]:
    """Those that have been over for long; what depends on them is over, too."""
    old = Job.ended_at < now - KEPT, Job.settled, Job.state.not_in(UNFINISHED)
    gone = list(session.scalars(select(Job.id).where(*old)))
    session.execute(delete(Job).where(*old))
    return gone


def _tell(session: Session, row: Job, reason: Message | None) -> None:
    """Its owner: once for a job, and once for an array, when all of it is over."""
    if row.stopped_by == row.username:
        return  # they know
    about: dict[str, Any] = {"job": name(row), "command": shown(row.command)}
    code = "job_done" if row.state == State.DONE else "job_not_done"
    if row.array is not None:
        session.flush()
        counted: dict[str, int] = {}
        query = select(Job.state, func.count()).where(Job.array == row.array).group_by(Job.state)
        for state, count in session.execute(query):
            counted[state] = count
        if any(counted.get(state) for state in UNFINISHED):
            return
        done, count = counted.get(State.DONE, 0), sum(counted.values())
        about |= {"job": str(row.array), "done": done, "count": count}
        code, reason = "jobs_over", None
    notices.add(
        session,
        username=row.username,
        lease_id=None,
        code=code,
        data=about,
        key=f"job:{row.array or row.id}:{row.id if row.array is None else 'all'}",
        more=[reason] if reason is not None and code != "job_done" else [],
    )


def shown(command: Sequence[str]) -> str:
    """A command for people, in a line."""
    return re.sub(r"\s+", " ", " ".join(command))[:120]


# -- showing ---------------------------------------------------------------------------------------


def mine(session: Session, user: str | None, over: bool = True) -> list[Job]:
    """Somebody's, or everybody's, the newest first."""
    query = select(Job).order_by(Job.id.desc()).limit(SHOWN)
    if user is not None:
        query = query.where(Job.username == user)
    if not over:
        query = query.where(Job.state.in_(UNFINISHED))
    return list(session.scalars(query))


def show_all(session: Session, rows: Sequence[Job], locale: Locale) -> list[dict[str, Any]]:
    """For programs, with sentences for people; of those that wait for GPUs, why."""
    waits = {row.username for row in rows if row.state == State.PENDING and row.options.get("gpus")}
    verdicts: dict[tuple[str, str], Mapping[str, Any]] = {}
    if waits:
        query = select(Lease.username, Lease.server_name, Lease.verdict).where(
            Lease.username.in_(waits), Lease.state == LeaseState.QUEUED
        )
        verdicts = {(user, server): said or {} for user, server, said in session.execute(query)}
    return [_show(row, verdicts.get((row.username, job_server(row.id))), locale) for row in rows]


def _show(row: Job, verdict: Mapping[str, Any] | None, locale: Locale) -> dict[str, Any]:
    kept = [Message.from_json(row.reason)] if row.reason else []
    waits = [Reason.from_json(one) for one in (verdict or {}).get("reasons", ())]
    return {
        "id": name(row),
        "user": row.username,
        "state": row.state,
        "ending": bool(row.stop) and row.state in UNFINISHED,
        "reasons": [one.as_json(locale) for one in (waits or kept)],
        "position": (verdict or {}).get("position"),
        "expected_start": iso((verdict or {}).get("expected_start")),
        "command": list(row.command),
        "folder": row.folder,
        "environment": row.environment or row.options.get("environment") or "",
        "size": row.options.get("size") or "",
        "gpus": int(row.options.get("gpus") or 0),
        "time_limit": None if row.time_limit is None else row.time_limit // 60,
        "preemptible": row.preemptible,
        "retries": row.retries,
        "attempt": row.attempt,
        "exit_code": row.exit_code,
        "memory_peak": row.memory_peak,
        "gpu_peak": row.gpu_peak,
        "submitted_at": iso(row.submitted_at),
        "started_at": iso(row.started_at),
        "ended_at": iso(row.ended_at),
    }
