"""The site's rules for environments, as functions of plain values; the day is passed in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hub_ext.site import Environments
from spawner.environments.channel import canonical_url
from spawner.environments.errors import PolicyError
from spawner.environments.lock import Lock
from spawner.environments.pythons import newest_python, python_end, python_state
from spawner.environments.spec import EnvironmentSpec

Level = Literal["refuse", "warn"]


@dataclass(frozen=True)
class Finding:
    """One rule that an environment breaks, or soon will.

    Attributes:
        code: what the rule is called, for programs.
        remedy: what would be accepted.
    """

    level: Level
    code: str
    message: str
    remedy: str

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"


def check(
    spec: EnvironmentSpec, lock: Lock | None, settings: Environments, today: date
) -> list[Finding]:
    """What the site's rules say of a spec and, once there is one, of its lock."""
    found = [*_channels(spec, settings), *_packages(spec, lock, settings), *_pip(spec, settings)]
    if lock is None:
        return found
    return [*found, *_python(lock, settings, today), *_committed(spec, lock, settings)]


def enforce(findings: Iterable[Finding]) -> None:
    """Raise PolicyError with everything that is refused."""
    refused = [finding for finding in findings if finding.level == "refuse"]
    if refused:
        raise PolicyError("\n".join(f"refused ({item.code}): {item}" for item in refused))


def _channels(spec: EnvironmentSpec, settings: Environments) -> list[Finding]:
    allowed = settings.policy.channels
    urls = {canonical_url(channel) for channel in allowed}
    return [
        Finding(
            "refuse",
            "channel",
            f"channel {channel} is not among this site's",
            f"take the packages from {', '.join(allowed)}",
        )
        for channel in spec.all_channels
        if allowed and channel not in allowed and canonical_url(channel) not in urls
    ]


def _packages(spec: EnvironmentSpec, lock: Lock | None, settings: Environments) -> list[Finding]:
    asked = [item.name for item in spec.dependencies] + [_pip_name(item) for item in spec.pip]
    got = [i.name for i in lock.packages] + [i.name for i in lock.pip] if lock else []
    found = []
    for name in sorted({*asked, *got}):
        reason = next(
            (
                why
                for what, why in settings.policy.denied_packages.items()
                if fnmatchcase(name, what)
            ),
            None,
        )
        if reason is not None:
            by = "" if name in asked else " (needed by what environment.yml names)"
            found.append(
                Finding(
                    "refuse",
                    "package",
                    f"package {name}{by} is not allowed here: {reason or 'no reason is given'}",
                    "leave it out",
                )
            )
    allowed = settings.policy.allowed_packages
    found += [
        Finding(
            "refuse",
            "package",
            f"package {name} is not among those that this site allows to ask for",
            "ask an administrator to add it to environments.policy.allowed_packages",
        )
        for name in asked
        if allowed and not any(fnmatchcase(name, what) for what in allowed)
    ]
    return found


def _pip_name(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def _pip(spec: EnvironmentSpec, settings: Environments) -> list[Finding]:
    rule = settings.policy.pip
    if not spec.pip or rule == "allow":
        return []
    names = ", ".join(map(_pip_name, spec.pip))
    return [
        Finding(
            rule,
            "pip",
            f"packages of pip beside conda's ({names})",
            "most of PyPI is on conda-forge; list them as conda packages",
        )
    ]


def _python(lock: Lock, settings: Environments, today: date) -> list[Finding]:
    version, rule = lock.version_of("python"), settings.policy.ended_python
    if version is None or rule == "allow":
        return []
    state, end = python_state(version, today), python_end(version)
    remedy = f"take Python {newest_python(today)}"
    if state == "ended":
        message = f"Python {version} gets no security fixes any more since {end}"
        return [Finding(rule, "python-ended", message, remedy)]
    if state == "ending":
        message = f"Python {version} gets security fixes until {end} only"
        return [Finding("warn", "python-ending", message, remedy)]
    return []


def _committed(spec: EnvironmentSpec, lock: Lock, settings: Environments) -> list[Finding]:
    rule = settings.policy.unlocked
    if rule == "allow" or spec.folder is None or lock.path.parent == spec.folder:
        return []
    return [
        Finding(
            rule,
            "unlocked",
            "no lock beside environment.yml answers it",
            f"run 'labcommons env lock {spec.name}', and commit its pixi.lock",
        )
    ]
