"""The site's rules for environments, as functions of plain values; the day is passed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hub_ext.i18n import N_
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
        text: what is wrong, with places for ``values``.
        advice: what would be accepted, likewise.
    """

    level: Level
    code: str
    text: str
    advice: str
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """What is wrong, in English."""
        return self.text.format_map(self.values)

    @property
    def remedy(self) -> str:
        """What would be accepted, in English."""
        return self.advice.format_map(self.values)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data: in English, and what a page needs to say it in another language."""
        return {
            "level": self.level,
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "text": self.text,
            "advice": self.advice,
            "values": dict(self.values),
        }

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
            N_("channel {channel} is not among this site's"),
            N_("take the packages from {allowed}"),
            {"channel": channel, "allowed": ", ".join(allowed)},
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
            found.append(
                Finding(
                    "refuse",
                    "package",
                    N_("package {name} is not allowed here: {reason}")
                    if name in asked
                    else N_(
                        "package {name} (needed by what environment.yml names) is not allowed "
                        "here: {reason}"
                    ),
                    N_("leave it out"),
                    {"name": name, "reason": reason or "no reason is given"},
                )
            )
    allowed = settings.policy.allowed_packages
    found += [
        Finding(
            "refuse",
            "package",
            N_("package {name} is not among those that this site allows to ask for"),
            N_("ask an administrator to add it to environments.policy.allowed_packages"),
            {"name": name},
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
            N_("packages of pip beside conda's ({names})"),
            N_("most of PyPI is on conda-forge; list them as conda packages"),
            {"names": names},
        )
    ]


def _python(lock: Lock, settings: Environments, today: date) -> list[Finding]:
    version, rule = lock.version_of("python"), settings.policy.ended_python
    if version is None or rule == "allow":
        return []
    state, end = python_state(version, today), python_end(version)
    advice = N_("take Python {newest}")
    values = {"version": version, "end": str(end), "newest": newest_python(today)}
    if state == "ended":
        text = N_("Python {version} gets no security fixes any more since {end}")
        return [Finding(rule, "python-ended", text, advice, values)]
    if state == "ending":
        text = N_("Python {version} gets security fixes until {end} only")
        return [Finding("warn", "python-ending", text, advice, values)]
    return []


def _committed(spec: EnvironmentSpec, lock: Lock, settings: Environments) -> list[Finding]:
    rule = settings.policy.unlocked
    if rule == "allow" or spec.folder is None or lock.path.parent == spec.folder:
        return []
    return [
        Finding(
            rule,
            "unlocked",
            N_("no lock beside environment.yml answers it"),
            N_("run 'labcommons env lock {name}', and commit its pixi.lock"),
            {"name": spec.name},
        )
    ]
