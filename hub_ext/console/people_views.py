"""People as far as somebody may know of them: of others, those of the groups that they look after.

Who they are is the directory's word at their last login or look; what is said beside it is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from commons.principal import Principal
from commons.rights import Action, can
from commons.scopes import SITE, Scope
from commons.store import DirectoryPerson, DiskUse, ScopeEnvironment, blocks, ends
from commons.store.blocks import Block
from commons.store.models import Lease, ServerEnd, SshKey
from hub_ext.console.server_views import Server
from spawner.gpu.views import HOLDING, WAITING, iso

SHOWN = 100  # people of a page
LONGEST = 100  # characters of a filter
LAST = 5  # ends of servers that are shown of one person
STATES = ("here", "blocked", "barred", "admins")
SORTS = ("user", "seen", "servers", "home")


@dataclass(frozen=True)
class Asked:
    """Which people, and in which order; what is empty lets all pass."""

    q: str = ""
    group: str = ""
    state: str = ""
    sort: str = "user"

    @classmethod
    def read(cls, given: Callable[[str], str]) -> Asked:
        """From an address; what is none of the choices is as if it were not there."""
        found = {name: given(name).strip()[:LONGEST] for name in cls.__dataclass_fields__}
        found["state"] = found["state"] if found["state"] in STATES else ""
        found["sort"] = found["sort"] if found["sort"] in SORTS else "user"
        return cls(**found)

    def fits(self, one: Person) -> bool:
        """Whether it is one of these."""
        states: Mapping[str, object] = {
            "here": one.servers, "blocked": one.block, "barred": one.barred, "admins": one.admin,
        }  # fmt: skip
        return (
            self.q.lower() in one.name.lower()
            and (not self.group or self.group in one.groups)
            and (not self.state or bool(states[self.state]))
        )

    def in_order(self, found: Iterable[Person]) -> list[Person]:
        """By name, or who was here last, has the most servers or the largest home first."""
        by: Mapping[str, Callable[[Person], float]] = {
            "seen": lambda one: -(one.seen or 0),
            "servers": lambda one: -len(one.servers),
            "home": lambda one: -(one.home or 0),
        }
        named = sorted(found, key=lambda one: one.name)
        return sorted(named, key=by[self.sort]) if self.sort in by else named


@dataclass(frozen=True)
class Person:
    """Somebody; times in seconds since 1970.

    Attributes:
        groups: position by account: ``{"group:vision": "lead"}``; those that the viewer may know.
        seen: when they were last here; None where that is not known, or not the viewer's to know.
        barred: what the directory says against them; "" for nothing.
        home: bytes, as measured; of others for administrators.
        servers, leases, waiting: of these the ones that the viewer may see.
    """

    name: str
    admin: bool
    groups: Mapping[str, str]
    seen: float | None = None
    barred: str = ""
    block: Block | None = None
    home: int | None = None
    servers: Sequence[Server] = ()
    leases: int = 0
    waiting: int = 0

    def as_json(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "admin": self.admin,
            "groups": dict(self.groups),
            "seen": iso(self.seen),
            "barred": self.barred or None,
            "block": block_json(self.block),
            "home_bytes": self.home,
            "servers": [one.run.key for one in self.servers],
            "leases": self.leases,
            "waiting": self.waiting,
        }


def block_json(block: Block | None) -> dict[str, Any] | None:
    """For JSON."""
    if block is None:
        return None
    return {
        "reason": block.reason,
        "by": block.by,
        "at": iso(block.at),
        "until": iso(block.until),
        "carried_out": block.acted,
    }


def scopes_of(roles: Mapping[str, Any]) -> dict[Scope, str]:
    """Positions by group, from what is remembered of the directory's word."""
    return {
        Scope(kind, name): str(position)
        for kind, key in (("team", "teams"), ("course", "courses"))
        for name, position in dict(roles.get(key) or {}).items()
    }


_PEOPLE = select(
    DirectoryPerson.name, DirectoryPerson.roles, DirectoryPerson.barred, DirectoryPerson.reason
)


def people(
    session: Session,
    viewer: Principal,
    servers: Iterable[Server],
    seen: Mapping[str, float],
    only: str = "",
) -> list[Person]:
    """Those of whom the viewer may know; ``only`` one. ``servers`` are those that they may see."""
    every = bool(can(viewer, Action.ADMINISTER, SITE))
    led = {scope for scope in viewer.led if can(viewer, Action.LOOK_AFTER, scope)}
    held = _counts(session, HOLDING, None if every else {one.account for one in led})
    waits = _counts(session, WAITING, None if every else {one.account for one in led})
    blocked = blocks.standing(session)
    homes = {row.name: row.bytes for row in session.execute(_HOMES)} if every else {}
    runs: dict[str, list[Server]] = {}
    for one in servers:
        runs.setdefault(one.run.user, []).append(one)
    found = []
    for name, roles, barred, reason in session.execute(
        _PEOPLE.where(DirectoryPerson.name == only) if only else _PEOPLE
    ):
        positions = scopes_of(roles)
        known = positions if every else {s: word for s, word in positions.items() if s in led}
        if not every and not known and name != viewer.name:
            continue
        if name == viewer.name:
            known = positions
        found.append(
            Person(
                name,
                bool(roles.get("admin")),
                {scope.account: word for scope, word in known.items()},
                seen.get(name) if every or name == viewer.name else None,
                str(reason or "barred") if barred is not None and every else "",
                blocked.get(name) if every else None,
                homes.get(name),
                runs.get(name, ()),
                held[name],
                waits[name],
            )
        )
    return found


_HOMES = select(DiskUse.name, DiskUse.bytes).where(DiskUse.area == "homes")


def _counts(session: Session, states: Sequence[Any], accounts: set[str] | None) -> Counter[str]:
    query = select(Lease.username, func.count().label("many")).where(Lease.state.in_(states))
    if accounts is not None:
        query = query.where(Lease.account.in_(accounts))
    rows = session.execute(query.group_by(Lease.username))
    return Counter({row.username: row.many for row in rows})


def more(session: Session, name: str) -> dict[str, Any]:
    """What an administrator sees of one person beside ``people``."""
    query = select(ServerEnd).where(ServerEnd.username == name).order_by(ServerEnd.id.desc())
    disk = session.get(DiskUse, ("homes", name))
    own = select(ScopeEnvironment.name).where(
        ScopeEnvironment.scope == "personal",
        ScopeEnvironment.owner == name,
        ScopeEnvironment.current,
    )
    keys = select(func.count()).select_from(SshKey).where(SshKey.username == name)
    return {
        "ends": [row for row in session.scalars(query.limit(LAST)) if row.cause in ends.CAUSES],
        "largest": list(disk.largest)[:LAST] if disk is not None else [],
        "environments": sorted(session.scalars(own)),
        "ssh_keys": int(session.scalar(keys) or 0),
    }
