"""What needs somebody now, the most urgent first, each with where its remedy is.

Of others, an administrator is told everything, a lead what is charged to their groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from enum import IntEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.i18n import N_
from commons.messages import Locale, Message, Text, verbatim
from commons.principal import Principal
from commons.rights import Action, Resource, can
from commons.scopes import SITE
from commons.site import Site, words_in
from commons.store import BuildState, DiskUse, EnvironmentBuild
from commons.store.models import Job, Lease, utcnow
from environments.builds import service
from hub_ext.console.server_views import Server
from hub_ext.doctor import kept
from jobs.records import State
from spawner.gpu import views
from spawner.gpu.policy.reasons import duration, shown_moment
from spawner.gpu.policy.state import Reason
from spawner.options import show_bytes
from spawner.storage import Limits, share

PATIENCE = 30 * 60.0  # seconds in the queue, after which somebody waits too long
SOON = 30 * 60.0  # seconds before the end of a server of one's own
FRESH = timedelta(days=1)  # a failure is told for so long
FULL = 0.95  # of its memory
MOST = 8  # items of one kind; how many more there are is said


class Level(IntEnum):
    """How soon; the first come first."""

    BROKEN = 0
    WARNING = 1
    NOTE = 2


@dataclass(frozen=True)
class Item:
    """One thing, and where it is mended; ``href`` is below the console's address."""

    level: Level
    kind: str
    about: str
    cause: Message
    href: str
    remedy: Message | None = None

    def as_json(self, locale: Locale) -> dict[str, Any]:
        """For JSON, in words."""
        return {
            "level": self.level.name.lower(),
            "kind": self.kind,
            "about": self.about,
            "cause": self.cause.in_words(locale),
            "remedy": self.remedy.in_words(locale) if self.remedy else None,
            "href": self.href,
        }


_length = {"length": lambda seconds, locale: duration(float(seconds), locale.gettext)}
_STATES = {"failing": N_("failing"), "lost": N_("lost")}
GPU_STATE = Text(
    "today_gpu",
    N_("is {state} on {node}"),
    when={"reason": N_("is {state} on {node}: {reason}")},
    shown={"state": lambda state, locale: locale.gettext(_STATES.get(state, str(state)))},
)
DRAIN_IT = Text("today_drain", N_("Drain it, and look at the machine: docs/gpu.md."))
WAITS = Text(
    "today_waits",
    N_("has waited for GPUs for {length}"),
    when={"reason": N_("has waited for GPUs for {length}: {reason}")},
    shown=_length,
)
BUILD_FAILED = Text("today_build", N_("was not built"), when={"why": N_("was not built: {why}")})
JOB_FAILED = Text("today_job", N_("has failed"))
MEMORY = Text("today_memory", N_("uses {used} of {limit} of memory, and may be ended for it"))
ENDS = Text("today_ends", N_("ends at {at}"), shown={"at": shown_moment})
HOME_FILLS = Text("today_home", N_("Your home has {used} of {limit}."))
MORE = Text("today_more", N_("{count} more"))
NOT_KNOWN = Text(
    "today_hub",
    N_("The hub does not say what runs. Servers run on; look at Health, and try again."),
)


def items(
    session: Session,
    viewer: Principal,
    site: Site,
    servers: Sequence[Server],
    known: bool,
    lang: str,
    now: float,
) -> list[Item]:
    """The most urgent first; of each kind at most ``MOST``."""
    every = bool(can(viewer, Action.ADMINISTER, SITE))
    kinds: list[Iterable[Item]] = [
        *((_health(session, lang), _gpus(session)) if every else ()),
        _waiting(session, viewer, now),
        _builds(session, viewer),
        _jobs(session, viewer),
        _memory(servers),
        _ends(servers, viewer, now),
        _home(session, viewer, site),
    ]
    found = [] if known else [Item(Level.BROKEN, "hub", "", NOT_KNOWN(), "doctor")]
    for kind in kinds:
        ones = list(kind)
        found += ones[:MOST]
        if more := ones[MOST:]:
            left = MORE(count=len(more))
            found.append(Item(min(one.level for one in more), more[0].kind, "", left, more[0].href))
    return sorted(found, key=lambda one: one.level)


# By the check of labcommons doctor: the page on which it is mended.
_PAGES = {"room": "disk", "storage": "disk", "prune": "disk", "quotas": "disk", "gpus": "#devices",
          "environments": "environments", "audit": "audit"}  # fmt: skip
_LEVELS = {"broken": Level.BROKEN, "warning": Level.WARNING, "unknown": Level.WARNING}


def _health(session: Session, lang: str) -> Iterator[Item]:
    for row in kept.everything(session):
        for one in row.findings:
            if one["state"] in _LEVELS:
                yield Item(
                    _LEVELS[one["state"]],
                    row.name,
                    str(one["about"] or row.name),
                    verbatim(words_in(one["cause"], lang)),
                    _PAGES.get(row.name, "doctor"),
                    verbatim(words_in(one["remedy"], lang)) if one["remedy"] else None,
                )


def _gpus(session: Session) -> Iterator[Item]:
    for one in views.devices(session):
        if one["health"] != "ok" and one["health"] in _STATES:
            said = GPU_STATE(state=one["health"], node=one["node"], reason=one["reason"] or None)
            yield Item(Level.BROKEN, "gpus", one["id"], said, "#devices", DRAIN_IT())


def _waiting(session: Session, viewer: Principal, now: float) -> Iterator[Item]:
    early = utcnow() - timedelta(seconds=PATIENCE)
    query = select(
        Lease.username, Lease.account, Lease.requested_at, Lease.verdict, Lease.server_name
    ).where(Lease.state.in_(views.WAITING), Lease.requested_at < early)
    for row in session.execute(query.order_by(Lease.requested_at)):
        if not can(viewer, Action.SEE_LEASE, Resource.charged(row.account, row.username)):
            continue
        reasons = (row.verdict or {}).get("reasons") or ()
        said = WAITS(
            length=now - row.requested_at.replace(tzinfo=UTC).timestamp(),
            reason=Reason.from_json(reasons[0]) if reasons else None,
        )
        yield Item(Level.WARNING, "queue", row.username, said, "#queue")


def _builds(session: Session, viewer: Principal) -> Iterator[Item]:
    """The last of each environment, where that failed."""
    query = select(EnvironmentBuild).where(EnvironmentBuild.queued_at > utcnow() - FRESH)
    last: dict[tuple[str, str, str], EnvironmentBuild] = {}
    for job in session.scalars(query.order_by(EnvironmentBuild.queued_at)):
        last[job.scope, job.owner, job.name] = job
    for job in last.values():
        if job.state is not BuildState.FAILED:
            continue
        resource = service.resource_of(job)
        if not can(viewer, Action.SEE_BUILD, resource):
            continue
        why = Message.from_json(job.said) if job.said else None
        name = f"{resource.scope.source}/{job.name}"
        level = Level.WARNING if job.requested_by == viewer.name else Level.NOTE
        yield Item(level, "builds", name, BUILD_FAILED(why=why), "environments")


def _jobs(session: Session, viewer: Principal) -> Iterator[Item]:
    query = select(Job).where(
        Job.username == viewer.name,
        Job.state.in_((State.FAILED, State.LOST)),
        Job.ended_at > utcnow() - FRESH,
    )
    for row in session.scalars(query.order_by(Job.id.desc())):
        said = Message.from_json(row.reason) if row.reason else JOB_FAILED()
        name = str(row.array or row.id)
        yield Item(Level.WARNING, "jobs", name, said, f"jobs/{name}")


def _memory(servers: Iterable[Server]) -> Iterator[Item]:
    for one in servers:
        run = one.run
        if run.memory and run.memory_limit and run.memory >= FULL * run.memory_limit:
            said = MEMORY(used=show_bytes(run.memory), limit=show_bytes(run.memory_limit))
            yield Item(Level.WARNING, "memory", run.key, said, f"servers?sort=memory&q={run.user}")


def _ends(servers: Iterable[Server], viewer: Principal, now: float) -> Iterator[Item]:
    for one in servers:
        if one.run.user == viewer.name and one.ends is not None and one.ends - now < SOON:
            yield Item(Level.WARNING, "ends", one.run.key, ENDS(at=one.ends), "servers")


def _home(session: Session, viewer: Principal, site: Site) -> Iterator[Item]:
    row = session.get(DiskUse, ("homes", viewer.name))
    limit = Limits(session, site.storage).of("homes", viewer.name)
    if row is not None and limit and share(row.bytes, limit) >= site.storage.warn:
        said = HOME_FILLS(used=show_bytes(row.bytes), limit=show_bytes(limit))
        yield Item(Level.WARNING, "home", "", said, "disk")


def counts(found: Iterable[Item]) -> Mapping[str, int]:
    """How many of each level there are."""
    levels = [one.level for one in found]
    return {level.name.lower(): levels.count(level) for level in Level}
