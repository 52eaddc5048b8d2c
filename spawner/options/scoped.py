"""Environments of teams, courses, the site and oneself, as a server can be started with them.

Such a server is one of an image, the one that the environment came from where it came from one; its
folder is mounted there anyway. What differs is the kernel of new notebooks, and what is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy.orm import Session

from commons.principal import Principal
from commons.rights import Action, can
from commons.scopes import Keeper, Scope
from commons.store.environments import ScopeEnvironment
from environments import catalog
from environments.about import About, parse_about
from environments.builds import repository
from environments.catalog import CatalogEntry
from environments.errors import SpecError
from spawner.options.choice import Catalog, usable


@dataclass(frozen=True, kw_only=True)
class ScopedEntry(CatalogEntry):
    """An environment outside images; called SOURCE/NAME.

    Attributes:
        base: whose image its server is started from.
        scope: whose it is.
    """

    base: CatalogEntry
    scope: Scope

    @property
    def runs_in(self) -> CatalogEntry:
        """The image environment whose server it needs."""
        return self.base

    @property
    def groups(self) -> Sequence[Scope]:
        """Whose it is, where that is a group."""
        return [self.scope] if self.scope.keeper is Keeper.GROUP else []

    @property
    def place(self) -> tuple[bool, int, str]:
        """After the images; what says it is the default is so for its group, not for the site."""
        return (True, super().place[1], self.name)


def offered(session: Session, person: Principal, packages: bool = True) -> Catalog:
    """All that a person may start a server with, in the order in which it is shown.

    What a course has comes first for its students; then images, then what groups, the person and
    the site built. ``packages``: False for a start, which does not need the lists of packages.
    """
    images = usable(catalog.newest(session, packages=packages), person)
    scopes = [scope for scope in person.scopes if scope.has_folder]
    rows = repository.of_scopes(session, scopes, packages)
    found: dict[str, list[CatalogEntry]] = {name: list(all) for name, all in images.items()}
    found |= {one.name: [one] for one in _scoped(rows, images, person, packages)}
    mine = {scope for scope in person.positions if not person.leads(scope) and _is_course(scope)}
    return dict(sorted(found.items(), key=lambda item: not _is_of(item[1][0], mine)))


def _scoped(
    rows: Iterable[ScopeEnvironment], images: Catalog, person: Principal, packages: bool
) -> Iterable[ScopedEntry]:
    bases = {
        name: next(entry for entry in versions if entry.is_offered)
        for name, versions in images.items()
    }
    if not bases:
        return
    for row in rows:
        scope = repository.scope_of(row)
        fits = row.current and row.kernels and row.state != "withdrawn"
        if fits and can(person, Action.USE, scope):
            yield _entry(row, scope, _base(row, bases), packages)


def _base(row: ScopeEnvironment, bases: Mapping[str, CatalogEntry]) -> CatalogEntry:
    origin: Mapping[str, Any] = row.origin or {}
    came = bases.get(str(origin.get("name"))) if origin.get("source") == "image" else None
    return came or next(iter(bases.values()))


def _entry(row: ScopeEnvironment, scope: Scope, base: CatalogEntry, packages: bool) -> ScopedEntry:
    about = _about(row.words)
    known = {field.name: getattr(base, field.name) for field in fields(CatalogEntry)}
    return ScopedEntry(
        **known
        | {
            "name": f"{scope.source}/{row.name}",
            "version": row.version,
            "prefix": str(scope.environments / row.name),
            "python": row.python,
            "lock_digest": row.lock_digest,
            "words": {
                "title": about.title or row.name,
                "description": about.description or "",
                "order": about.order,
            },
            "main_packages": [],
            "packages": row.packages if packages else [],
            "kernelspecs": row.kernels,
            "created_at": row.created_at,
            "tag": row.tag,
            "gpu": about.gpu,
            "server_size": about.size,
            "access": {},
            "deprecated_at": row.deprecated_at,
            "deprecated_reason": row.deprecated_reason,
            "withdrawn_at": None,
            "withdrawn_reason": None,
        },
        base=base,
        scope=scope,
    )


def _about(words: str) -> About:
    try:
        return parse_about(words or None, "labcommons.yml").about
    except SpecError:
        return About()


def _is_course(scope: Scope) -> bool:
    return scope.keeper is Keeper.GROUP and not scope.row.charged_first


def _is_of(entry: CatalogEntry, scopes: Iterable[Scope]) -> bool:
    return any(scope in entry.groups for scope in scopes)
