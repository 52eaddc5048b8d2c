"""The queue of builds: asked for by console and command, carried out by the hub.

Every function runs in the caller's transaction. What a job may become is in
``commons.store.environments.BUILD_MOVES``; a unique index keeps two jobs from running for one
environment.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer

from commons import frozen
from commons.errors import NotAvailable
from commons.i18n import N_
from commons.messages import Message, Text
from commons.scopes import Scope
from commons.site import Builds
from commons.store import tell
from commons.store.environments import BUILD_MOVES, BuildState, EnvironmentBuild
from commons.store.models import utcnow
from environments.builds.messages import RESTARTED

# Who listens is told of new jobs, and of those that have ended.
NEWS = "labcommons_builds"
# A job that the hub could not end in so many lives is not tried again.
MAX_ATTEMPTS = 3
LIVE = (BuildState.QUEUED, BuildState.RUNNING)
_MAX_MESSAGE = 4000


TOO_MANY_BUILDS = Text(
    "too_many_builds",
    N_("{count} of your builds are waiting already; wait until one is done, or cancel one."),
)


class JobMoveError(Exception):
    """A job cannot become what was asked: it did so before, or ended otherwise."""


@dataclass(frozen=True)
class BuildRequest:
    """What somebody asks for; already checked for form and rights.

    Attributes:
        action: ``create``, ``publish``, ``promote``, ``delete``; ``decide``: tell the folder of
            ``version`` what was decided about it; ``look``: find out what is in it.
        spec, words: contents of environment.yml and labcommons.yml.
        lock: contents of a pixi.lock, where packages are decided already.
        origin: of a copy: ``{"source": …, "owner": …, "name": …, "version": …}``.
        address: where the request came from.
    """

    action: str
    scope: Scope
    name: str
    requested_by: str
    spec: str = ""
    words: str = ""
    lock: str = ""
    origin: Mapping[str, Any] | None = None
    version: str | None = None
    address: str | None = None


def enqueue(session: Session, request: BuildRequest, limits: Builds) -> EnvironmentBuild:
    """A new job at the end of the queue. Raises NotAvailable when the person has too many, or
    where it is for a course that is frozen."""
    frozen.check_scope(session, request.scope)
    waiting = session.scalar(
        select(func.count())
        .select_from(EnvironmentBuild)
        .where(
            EnvironmentBuild.requested_by == request.requested_by,
            EnvironmentBuild.state == BuildState.QUEUED,
        )
    )
    if (waiting or 0) >= limits.waiting:
        raise NotAvailable(TOO_MANY_BUILDS(count=waiting))
    job = EnvironmentBuild(
        id=uuid.uuid4().hex,
        action=str(request.action),
        scope=request.scope.kind,
        owner=request.scope.owner,
        name=request.name,
        requested_by=request.requested_by,
        address=request.address,
        spec=request.spec,
        words=request.words,
        lock=request.lock,
        origin=dict(request.origin) if request.origin else None,
        version=request.version,
        state=BuildState.QUEUED,
    )
    session.add(job)
    session.flush()
    tell(session, NEWS)
    return job


def last_look(session: Session, scope: Scope) -> EnvironmentBuild | None:
    """The newest look into a folder that is known of."""
    return session.scalars(
        select(EnvironmentBuild)
        .where(
            EnvironmentBuild.action == "look",
            EnvironmentBuild.scope == scope.kind,
            EnvironmentBuild.owner == scope.owner,
        )
        .order_by(EnvironmentBuild.queued_at.desc())
        .limit(1)
    ).one_or_none()


def scope_of(job: EnvironmentBuild) -> Scope:
    """Where a job builds or deletes."""
    return Scope(job.scope, job.owner)


def get(session: Session, job_id: str) -> EnvironmentBuild | None:
    """A job by its id."""
    return session.get(EnvironmentBuild, job_id)


def recent(session: Session, limit: int = 50) -> list[EnvironmentBuild]:
    """The newest jobs, newest first, without the files that they were asked for with."""
    files = (EnvironmentBuild.spec, EnvironmentBuild.words, EnvironmentBuild.lock)
    return list(
        session.scalars(
            select(EnvironmentBuild)
            .options(*(defer(column) for column in files))
            .where(EnvironmentBuild.action != "look")
            .order_by(EnvironmentBuild.queued_at.desc())
            .limit(limit)
        )
    )


def live(session: Session) -> dict[str, BuildState]:
    """The ids of all jobs that have not ended, with their states."""
    rows = session.execute(
        select(EnvironmentBuild.id, EnvironmentBuild.state).where(EnvironmentBuild.state.in_(LIVE))
    )
    return dict(rows.tuples().all())


def running(session: Session) -> list[EnvironmentBuild]:
    """All jobs that run."""
    return list(
        session.scalars(
            select(EnvironmentBuild).where(EnvironmentBuild.state == BuildState.RUNNING)
        )
    )


def claim(session: Session, limits: Builds) -> EnvironmentBuild | None:
    """Make the first job run that may: in turn, within the limits of site and person."""
    busy = running(session)
    if len(busy) >= limits.at_once:
        return None
    prefixes = {(job.scope, job.owner, job.name) for job in busy}
    people = [job.requested_by for job in busy]
    queue = session.scalars(
        select(EnvironmentBuild)
        .where(EnvironmentBuild.state == BuildState.QUEUED)
        .order_by(EnvironmentBuild.queued_at, EnvironmentBuild.id)
        .limit(1000)
    )
    for job in queue:
        free = people.count(job.requested_by) < limits.per_person
        if free and (job.scope, job.owner, job.name) not in prefixes:
            move(job, BuildState.RUNNING)
            job.started_at = job.started_at or utcnow()
            job.attempts += 1
            return job
    return None


def move(job: EnvironmentBuild, state: BuildState) -> None:
    """Change the state. Raises JobMoveError for a move that the table does not have."""
    if state not in BUILD_MOVES[job.state]:
        raise JobMoveError(f"build {job.id} is {job.state}, it cannot become {state}")
    job.state = state
    if not BUILD_MOVES[state]:
        job.ended_at = utcnow()


def progress(
    session: Session,
    job_id: str,
    percent: int,
    message: Message | None = None,
) -> bool:
    """Record how far a running job is; True when somebody asked to cancel it."""
    job = session.get(EnvironmentBuild, job_id)
    if job is None or job.state is not BuildState.RUNNING:
        return True
    job.percent = max(job.percent, min(percent, 100))
    if message:
        job.message, job.said = str(message)[:_MAX_MESSAGE], message.as_json()
    return job.cancel_asked


def end(
    session: Session,
    job_id: str,
    state: BuildState,
    message: str,
    version: str | None = None,
    said: dict[str, Any] | None = None,
) -> None:
    """End a job. Raises JobMoveError when it ended before."""
    job = session.get(EnvironmentBuild, job_id)
    if job is None:
        raise JobMoveError(f"build {job_id} is not there")
    move(job, state)
    job.message, job.version = message[:_MAX_MESSAGE], version or job.version
    job.said = said
    if state is BuildState.DONE:
        job.percent = 100
    tell(session, NEWS)


def cancel(session: Session, job_id: str) -> EnvironmentBuild | None:
    """Cancel a job: at once when it waits, soon when it runs, not at all when it has ended."""
    job = session.get(EnvironmentBuild, job_id)
    if job is not None and job.state is BuildState.QUEUED:
        move(job, BuildState.CANCELLED)
    elif job is not None and job.state is BuildState.RUNNING:
        job.cancel_asked = True
    return job


def recover(session: Session) -> list[str]:
    """After a restart of the hub: what ran goes back to the queue, its container is found again.

    Returns the ids of the jobs that were tried too often and failed.
    """
    given_up = []
    for job in running(session):
        if job.cancel_asked:
            move(job, BuildState.CANCELLED)
        elif job.attempts >= MAX_ATTEMPTS:
            move(job, BuildState.FAILED)
            job.message = str(RESTARTED())
            job.said = RESTARTED().as_json()
            given_up.append(job.id)
        else:
            move(job, BuildState.QUEUED)
    return given_up


def forget(session: Session, older_than: timedelta, now: datetime | None = None) -> list[str]:
    """Delete the rows of jobs that ended long ago; returns their ids."""
    before = (now or utcnow()) - older_than
    old = list(
        session.scalars(
            select(EnvironmentBuild).where(
                EnvironmentBuild.state.not_in(LIVE), EnvironmentBuild.ended_at < before
            )
        )
    )
    for job in old:
        session.delete(job)
    return [job.id for job in old]
