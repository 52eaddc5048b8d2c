"""The site's rules for environments, as functions of plain values; the day is passed in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from commons.messages import Message
from commons.site import Environments
from environments.channel import OFFLINE_URL, canonical_url
from environments.errors import PolicyError
from environments.lock import Lock
from environments.messages import making
from environments.messages import rules as texts
from environments.pythons import newest_python, python_end, python_state
from environments.spec import EnvironmentSpec

Level = Literal["refuse", "warn"]
# The code of what counts for nothing in an environment.yml.
SPEC = "spec"


@dataclass(frozen=True)
class Finding:
    """One rule that an environment breaks, or soon will.

    Attributes:
        code: what the rule is called, for programs.
        what: what is wrong.
        advice: what would be accepted.
    """

    level: Level
    code: str
    what: Message
    advice: Message

    @property
    def message(self) -> str:
        """What is wrong, in English."""
        return str(self.what)

    @property
    def remedy(self) -> str:
        """What would be accepted, in English."""
        return str(self.advice)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready: in English, and as data for who reads another language."""
        return {
            "level": self.level,
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "data": {"what": self.what.as_json(), "advice": self.advice.as_json()},
        }

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"


def check(
    spec: EnvironmentSpec, lock: Lock | None, settings: Environments, today: date
) -> list[Finding]:
    """What the site's rules say of a spec and, once there is one, of its lock."""
    found = [Finding("warn", SPEC, remark, texts.AS_CONDA_READS()) for remark in spec.remarks]
    found += [*_channels(spec, settings), *_packages(spec, lock, settings), *_pip(spec, settings)]
    if lock is None:
        return found
    return [*found, *_python(lock, settings, today), *_committed(spec, lock, settings)]


def enforce(findings: Iterable[Finding]) -> None:
    """Raise PolicyError with everything that is refused."""
    refused = [finding for finding in findings if finding.level == "refuse"]
    if refused:
        raise PolicyError(
            making.REFUSED(
                findings=[
                    making.REFUSED_ONE(rule=item.code, what=item.what, remedy=item.advice)
                    for item in refused
                ]
            )
        )


def _channels(spec: EnvironmentSpec, settings: Environments) -> list[Finding]:
    allowed = settings.policy.channels
    urls = {canonical_url(channel) for channel in allowed}
    return [
        Finding(
            "refuse",
            "channel",
            texts.CHANNEL(channel=channel),
            texts.TAKE_FROM(allowed=allowed),
        )
        for channel in spec.all_channels
        if allowed
        and channel not in allowed
        and canonical_url(channel) not in (*urls, OFFLINE_URL)  # which the settings allow
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
                    (texts.DENIED if name in asked else texts.DENIED_NEEDED)(
                        name=name, reason=reason or texts.NO_REASON()
                    ),
                    texts.LEAVE_OUT(),
                )
            )
    allowed = settings.policy.allowed_packages
    found += [
        Finding(
            "refuse",
            "package",
            texts.NOT_ALLOWED(name=name),
            texts.ASK_TO_ALLOW(),
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
    names = list(map(_pip_name, spec.pip))
    return [Finding(rule, "pip", texts.PIP(names=names), texts.AS_CONDA())]


def _python(lock: Lock, settings: Environments, today: date) -> list[Finding]:
    version, rule = lock.version_of("python"), settings.policy.ended_python
    if version is None or rule == "allow":
        return []
    state, end = python_state(version, today), python_end(version)
    advice = texts.TAKE_PYTHON(newest=newest_python(today))
    if state == "ended":
        what = texts.PYTHON_ENDED(version=version, end=end)
        return [Finding(rule, "python-ended", what, advice)]
    if state == "ending":
        what = texts.PYTHON_ENDING(version=version, end=end)
        return [Finding("warn", "python-ending", what, advice)]
    return []


def _committed(spec: EnvironmentSpec, lock: Lock, settings: Environments) -> list[Finding]:
    rule = settings.policy.unlocked
    if rule == "allow" or spec.folder is None or lock.path.parent == spec.folder:
        return []
    return [
        Finding(
            rule,
            "unlocked",
            texts.UNLOCKED(),
            texts.COMMIT_LOCK(name=spec.name),
        )
    ]
