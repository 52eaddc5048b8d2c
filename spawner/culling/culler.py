"""The hub's loop over servers that nobody uses, or that are old (``servers.culling``).

What is seen goes through ``policy``; what follows is written in one transaction a round: the
record, notices, and that a server is going to be stopped. Where something cannot be known, nothing
is done, and a hub that is killed goes on from what is written.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import NotAvailable
from commons.i18n import N_
from commons.leases import ServerKey
from commons.messages import Text
from commons.site.culling import CullingRule
from commons.store import Store, StoreError
from commons.store.ends import Ending
from commons.store.models import GpuNotice, ServerWatch, utcnow
from commons.work import Keyed, Periodic
from spawner import exams
from spawner.culling import policy
from spawner.culling.policy import Facts, Record, Step
from spawner.gpu.watch import idle
from spawner.gpu.watch.idle import Tally, Use
from spawner.gpu.watch.server_activity import Jupyter
from spawner.warm import records

INTERVAL = 60.0  # seconds between two looks
RECENT = 120.0  # seconds; what happened in Jupyter since then is going on
AT_ONCE = 8  # servers asked at a time
RESUMED = 3600.0  # seconds for which it is told that a warning is over
SHOWN = 7 * 86400.0  # and that a server is too old, unless it ends before

NOT_WATCHED = Text("server_not_watched", N_("This server is not going to be stopped."))
KEPT_ENOUGH = Text(
    "server_kept_enough",
    N_("This server has been kept for as long as is allowed ({hours} h). Use it, or let it end."),
)
STOPPING = Text("server_stops_now", N_("This server is being stopped. Start it again."))


@dataclass(frozen=True)
class Running:
    """A server that runs; ``started``: seconds since 1970."""

    server: ServerKey
    container: str
    started: float
    facts: Facts


@dataclass(frozen=True)
class Look:
    """What one round saw of it."""

    one: Running
    rule: CullingRule
    use: Use
    busy: bool | None


class Servers(Protocol):
    """The hub, as the culler needs it."""

    def culled(self) -> Sequence[Running]:
        """The servers that run, with what rules are chosen by."""

    async def stop(self, user: str, server: str, ending: Ending | None = None) -> None:
        """Stop a server; returns when it is gone."""


class Culler:
    """Looks after the servers of one hub.

    Args:
        jupyter: asks a server what goes on in it; answers ``Jupyter()`` where that fails.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        store: Store,
        rules: Sequence[CullingRule],
        servers: Servers,
        jupyter: Callable[[ServerKey], Awaitable[Jupyter]],
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.rules, self.servers = store, rules, servers
        self.jupyter, self.log, self.clock = jupyter, log, clock
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._acts = Keyed("servers that nobody uses", log)

    async def run(self) -> None:
        """Look for ever; at once over where the site has no rules."""
        if self.rules:
            await Periodic(
                "servers that nobody uses", self.look, INTERVAL, self.log, expected=(StoreError,)
            ).run()

    async def look(self) -> None:
        """One round."""
        # Started ahead of time: nobody has come yet; and those that an exam's clock ends.
        held = await self.store.read(lambda s: {*records.held(s), *exams.servers(s)})
        looks = await asyncio.gather(
            *(
                self._see(one, rule)
                for one in self.servers.culled()
                if one.server not in held
                if (rule := policy.rule_for(self.rules, one.facts)) is not None
            )
        )
        now = self.clock()
        for one, ending in await self.store.run(partial(judge, looks=looks, now=now)):
            self.log.info("stopping %s/%s (%s)", *one.server, ending.cause)
            self._acts.start(one.server, partial(self._stop, one, ending))

    async def _see(self, one: Running, rule: CullingRule) -> Look:
        async with self._limit:
            said = await self.jupyter(one.server)
        busy = None if said.busy_kernels is None else bool(said.busy_kernels)
        return Look(one, rule, policy.use_of(rule, said, self.clock(), RECENT), busy)

    async def _stop(self, one: Running, ending: Ending) -> None:
        # Another may have taken its place meanwhile.
        if any(other.container == one.container for other in self.servers.culled()):
            await self.servers.stop(*one.server, ending)

    @property
    def busy(self) -> bool:
        """Whether a server is being stopped."""
        return bool(self._acts)

    async def close(self) -> None:
        """Leave what is under way."""
        await self._acts.close()


# -- transactions -------------------------------------------------------------------------


def judge(session: Session, looks: Iterable[Look], now: float) -> list[tuple[Running, Ending]]:
    """Write down how servers were used, and what follows; those that are to be stopped."""
    seen = {look.one.container: look for look in looks}
    # Locked: who presses "Keep" at this moment comes before, or after.
    rows = {row.key: row for row in session.scalars(select(ServerWatch).with_for_update())}
    for key in rows.keys() - seen.keys():
        _silence(session, key)
        session.delete(rows[key])
    ends = []
    for key, look in seen.items():
        row = rows.get(key) or _new(look, now)
        session.add(row)
        tally = idle.advance(record_of(row).tally, now, look.use, 3 * INTERVAL)
        before = record_of(row)
        step, record = policy.judge(
            look.rule,
            Record(tally, before.old_at, before.keep_until, before.kept),
            started=look.one.started,
            busy=look.busy,
        )
        row.keep_for, row.keep_at_most = look.rule.keep_seconds
        row.stopping = step in policy.STOPS
        _write(row, record)
        age = look.rule.age_seconds or 0.0
        if row.stopping:
            ends.append((look.one, _ending(step, record, age)))
        elif step is not Step.NOTHING:
            _tell(session, row, step, record, age, now)
    return ends


def _ending(step: Step, record: Record, age: float) -> Ending:
    if step is Step.STOP_IDLE:
        return Ending("culled", data={"idle_for": record.tally.idle})
    return Ending("max_age", data={"age_for": age})


def _tell(
    session: Session, row: ServerWatch, step: Step, record: Record, age: float, now: float
) -> None:
    number = record.tally.warnings
    data: Mapping[str, object]
    match step:
        case Step.WARN_IDLE:
            code = "cull_warning"
            data = {"idle_for": record.tally.idle, "stop_at": record.tally.stop_at}
        case Step.RESUME:
            code, data = "cull_resumed", {"told_until": now + RESUMED}
        case _:  # a busy kernel may put it off
            code = "max_age_soon"
            data = {"age_for": age, "stop_at": record.old_at, "told_until": now + SHOWN}
    _add(session, row, code, data, f"cull:{row.key}:{code}:{number}")


def _add(
    session: Session, row: ServerWatch, code: str, data: Mapping[str, object], key: str
) -> None:
    notices.add(
        session,
        username=row.username,
        lease_id=None,
        server=row.server_name,
        code=code,
        data=data,
        key=key,
    )


def _silence(session: Session, key: str) -> None:
    """What was going to happen to a server that is gone is no news any more."""
    session.execute(
        update(GpuNotice)
        .where(
            GpuNotice.key.startswith(f"cull:{key}:", autoescape=True), GpuNotice.seen_at.is_(None)
        )
        .values(seen_at=utcnow())
    )


def _new(look: Look, now: float) -> ServerWatch:
    user, server = look.one.server
    return ServerWatch(
        key=look.one.container,
        username=user,
        server_name=server,
        at=now,
        use=Use.UNKNOWN.value,
        idle_seconds=0.0,
        warnings=0,
        kept_seconds=0.0,
    )


def record_of(row: ServerWatch) -> Record:
    """What is kept of a server."""
    tally = Tally(row.at, Use(row.use), row.idle_seconds, row.warned_at, row.stop_at, row.warnings)
    return Record(tally, row.old_at, row.keep_until, row.kept_seconds)


def _write(row: ServerWatch, record: Record) -> None:
    tally = record.tally
    row.at, row.use, row.idle_seconds = tally.at, tally.use.value, tally.idle
    row.warned_at, row.stop_at, row.warnings = tally.warned_at, tally.stop_at, tally.warnings
    row.old_at, row.keep_until, row.kept_seconds = record.old_at, record.keep_until, record.kept


def keep(session: Session, username: str, server: str, now: float) -> float:
    """The person wants to keep a server that nobody uses; until when it is kept.

    Raises NotAvailable where there is nothing to keep, or the rule allows no more.
    """
    query = select(ServerWatch).where(
        ServerWatch.username == username, ServerWatch.server_name == server
    )
    latest = query.order_by(ServerWatch.at.desc()).limit(1).with_for_update()
    row = session.scalars(latest).first()
    if row is None:
        raise NotAvailable(NOT_WATCHED())
    if row.stopping:
        raise NotAvailable(STOPPING())
    record = policy.keep(record_of(row), now, row.keep_for, row.keep_at_most)
    if record is None:
        raise NotAvailable(KEPT_ENOUGH(hours=f"{row.keep_at_most / 3600:g}"))
    _write(row, record)
    until = float(record.keep_until or now)
    _add(session, row, "server_kept", {"keep_until_at": until}, f"cull:{row.key}:kept:{now:.0f}")
    return until
