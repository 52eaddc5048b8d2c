"""Limits on what homes, teams and courses have of the disk: who writes where there is too much
starts only what they need to delete.

The figures are those of the last look (``hub_ext.disk_watch``); a file system with project quotas
refuses the write itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.errors import NotAvailable
from commons.i18n import N_
from commons.messages import Locale, Message, Text
from commons.principal import Principal
from commons.scopes import SCOPES, Keeper, Scope, of_account
from commons.site import Site, Size, parse_bytes
from commons.site.storage import Storage
from commons.store import DiskUse
from commons.store.models import Course
from spawner.options.form import show_bytes

OVER = Text(
    "home_over_limit",
    N_(
        "Your home has {used}, and {limit} are allowed. Start a server of size “{size}” without a "
        "GPU and delete what you do not need; within half an hour anything starts again."
    ),
)


def _phrase(account: object, locale: Locale) -> str:
    scope = of_account(str(account))
    return scope.phrase(locale.gettext) if scope else str(account)


FOLDER_OVER = Text(
    "folder_over_limit",
    N_(
        "The folder of {scope} has {used}, and {limit} are allowed. Start a server of size "
        "“{size}” without a GPU and delete what is not needed there, or ask who keeps the most; "
        "within half an hour anything starts again."
    ),
    {"scope": _phrase},
)
LARGEST = Text("largest_folders", N_("The largest folders: {folders}."))


def own_limits(session: Session, limits: Storage) -> dict[str, int]:
    """Bytes by course, of those whose course.yaml says so: never more than what an administrator
    granted, or without that than the site's own limit.
    """
    found = {}
    for name, spec in session.execute(select(Course.name, Course.spec)):
        if asked := spec.get("storage"):
            most = (spec.get("granted") or {}).get("storage") or limits.courses
            found[name] = min(parse_bytes(one) for one in (asked, most) if one)
    return found


class Limits:
    """What each folder may have of the disk: its own limit, or that of all of its kind."""

    def __init__(self, session: Session, limits: Storage) -> None:
        self.site, self.own = limits, own_limits(session, limits)

    def of(self, area: str, name: str) -> int | None:
        """Bytes; None: any number."""
        own = self.own.get(name) if area == "courses" else None
        return own or self.site.limit(area)


def share(used: int, limit: int | None) -> float:
    """How much of a limit is used; 0 without one."""
    return used / limit if limit else 0.0


def largest(folders: Sequence[Mapping[str, Any]]) -> Message | None:
    """The largest folders in words; None where none is large."""
    named = [f"{one['folder']} ({show_bytes(int(one['bytes']))})" for one in folders]
    return LARGEST(folders=named) if named else None


def smallest(sizes: Mapping[str, Size]) -> str:
    """The size that is enough to delete files."""
    return min(sizes, key=lambda name: (sizes[name].guaranteed_bytes, sizes[name].memory_bytes))


def folder(scope: Scope) -> tuple[str, str]:
    """Area and name of a person's or a group's folder."""
    area, name = scope.folder.parts
    return area, name


def scope_of(area: str, name: str) -> Scope:
    """Whose folder it is. Raises StopIteration for no such area."""
    return next(Scope(r.name, name) for r in SCOPES.values() if r.folder == f"{area}/{{name}}")


def _writes(person: Principal, scope: Scope) -> bool:
    """Whether they can fill it, and empty it."""
    if scope.keeper is Keeper.SITE:
        return False
    return scope.row.members_write or person.leads(scope)


def check(
    session: Session, person: Principal, size: str, gpus: int, sizes: Mapping[str, Size], site: Site
) -> None:
    """Raises NotAvailable, naming the largest folders, where the person's home, or the folder of a
    team or course in which they write, is over its limit."""
    enough = smallest(sizes)
    if not gpus and size == enough:
        return
    title, limits = sizes[enough].title, Limits(session, site.storage)
    reasons: list[Message] = []
    for scope in person.scopes:
        if not _writes(person, scope):
            continue
        area, name = folder(scope)
        limit = limits.of(area, name)
        row = session.get(DiskUse, (area, name)) if limit else None
        if limit is None or row is None or row.bytes <= limit:
            continue
        said = {
            "used": show_bytes(row.bytes),
            "limit": show_bytes(limit),
            "size": title if isinstance(title, str) and title else enough,
        }
        home = scope.keeper is Keeper.PERSON
        named = largest(row.largest)
        reasons.append(OVER(**said) if home else FOLDER_OVER(scope=scope.account, **said))
        reasons += [named] if named else []
    if reasons:
        raise NotAvailable(reasons[0], *(reasons if len(reasons) > 1 else ()))
