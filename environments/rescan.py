"""All versions that were built, against the advisories that there are now.

What is matched is names and versions that are known already: nothing of an environment is read or
run. Of images the bill of materials says what Python distributions they have.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import holes
from commons.holes import Found, Version
from commons.scopes import IMAGE, Keeper, Scope
from commons.site import EnvironmentScan
from commons.store import EnvironmentVersion, ScopeEnvironment, Store
from environments import scan
from environments.checking import known_as
from environments.files import SBOM_FILE
from environments.inventory import Installed

_MAX_SBOM = 64 * 2**20
_PYPI = "pkg:pypi/"


def rescan(store: Store, settings: EnvironmentScan, data: Path) -> dict[str, int]:
    """Look, write down what was found, tell who uses it.

    Gives the numbers of versions, advisories, holes, new ones, and people told. Raises BuildError
    where the advisories cannot be read: what the last look found stays then.
    """
    assert settings.advisories is not None
    packages = store.transact(lambda session: _packages(session, data), read=True)
    documents = _Counted(scan.advisories(settings.advisories))
    found = list(_match(packages, documents, settings))
    new, told = store.transact(
        lambda session: holes.record(session, found, len(packages), documents.count)
    )
    return {
        "versions": len(packages),
        "advisories": documents.count,
        "holes": len(found),
        "new": new,
        "told": told,
    }


class _Counted:
    """An iterable that knows how much it gave."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items, self.count = items, 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.count += 1
            yield item


def _packages(session: Session, data: Path) -> dict[Version, set[tuple[str, str]]]:
    """PyPI's names and versions of what each version has."""
    found: dict[Version, set[tuple[str, str]]] = {}
    for row in session.scalars(select(EnvironmentVersion).where(~EnvironmentVersion.removed)):
        known = _of_sbom(data / "versions" / row.name / row.version / SBOM_FILE)
        version = Version(IMAGE.source, "", row.name, row.version)
        found[version] = _named(row.packages) if known is None else known
    for one in session.scalars(select(ScopeEnvironment)):
        scope = Scope(one.scope, one.owner)
        owner = scope.owner if scope.keeper is Keeper.PERSON else ""
        version = Version(scope.source, owner, one.name, one.version)
        found[version] = _named(one.packages)
    return found


def _named(packages: Iterable[Any]) -> set[tuple[str, str]]:
    items = known_as(
        (str(one["name"]), str(one["version"]), one.get("channel") == "pypi") for one in packages
    )
    return {pair for item in items for pair in item.distributions}


def _of_sbom(path: Path) -> set[tuple[str, str]] | None:
    """The distributions in a bill of materials; None where there is none that can be read."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_SBOM))
        return {
            (canonicalize_name(one["name"]), str(one["version"]))
            for one in document["components"]
            if str(one.get("purl", "")).startswith(_PYPI)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _match(
    packages: dict[Version, set[tuple[str, str]]],
    documents: Iterable[Any],
    settings: EnvironmentScan,
) -> Iterator[Found]:
    """Each package is looked for once, however many versions have it."""
    who: dict[tuple[str, str], list[Version]] = {}
    for version, pairs in packages.items():
        for pair in pairs:
            who.setdefault(pair, []).append(version)
    installed = [
        Installed("pip", name, version, distributions=((name, version),))
        for name, version in sorted(who)
    ]
    for hole in scan.match(installed, documents):
        rule = scan.finding_of(hole, settings)
        for version in who[hole.package, hole.version] if rule else ():
            yield Found(
                version,
                hole.id[:100],
                hole.package[:128],
                hole.version[:64],
                hole.severity,
                hole.title,
                hole.fixed[:64],
                rule[0].level == "refuse",
            )
