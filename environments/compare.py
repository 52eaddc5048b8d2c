"""What two versions of an environment have in common and what not, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """One package that differs; ``before`` or ``after`` is None where it is not there."""

    name: str
    before: str | None
    after: str | None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.name} {self.after}"
        if self.after is None:
            return f"- {self.name} {self.before}"
        return f"~ {self.name} {self.before} -> {self.after}"


def compare(
    before: Iterable[Mapping[str, str]], after: Iterable[Mapping[str, str]]
) -> list[Change]:
    """The packages (name, version, build) that differ, sorted by name.

    A build is named only where the versions are the same.
    """
    old = {item["name"]: item for item in before}
    new = {item["name"]: item for item in after}
    found = []
    for name in sorted(old.keys() | new.keys()):
        left, right = old.get(name), new.get(name)
        same = left and right and left["version"] == right["version"]
        if same and left and right and left.get("build") == right.get("build"):
            continue
        found.append(Change(name, _shown(left, bool(same)), _shown(right, bool(same))))
    return found


def _shown(item: Mapping[str, str] | None, with_build: bool) -> str | None:
    if item is None:
        return None
    build = item.get("build")
    return f"{item['version']} ({build})" if with_build and build else item["version"]
