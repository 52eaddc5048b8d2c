"""What the page shows, as plain data: sources, their environments, versions and kernels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from commons.errors import BadRequest
from commons.i18n import N_, Gettext
from commons.scopes import SCOPES, parse_source
from commons.site import words_in
from kernels.messages import Message
from kernels.service.entries import Key, RegistryEntry, State

# Environments on one page; a search finds the others.
SHOWN = 200

STATES = {
    State.HEALTHY: N_("ready"),
    State.NO_KERNEL: N_("no kernel"),
    State.INCOMPLETE: N_("not finished"),
    State.BROKEN: N_("broken"),
    State.UNREADABLE: N_("not readable"),
    State.UNAVAILABLE: N_("unavailable"),
    State.WITHDRAWN: N_("withdrawn"),
    State.UNWRITTEN: N_("not registered"),
}


@dataclass(frozen=True)
class Used:
    """When environments were last started, and how often lately: by everyone, or by oneself."""

    last: Mapping[Key, datetime]
    starts: Mapping[Key, int]
    everyone: bool

    def words(self, key: Key, translate: Gettext) -> str:
        """How often, in a sentence; empty where not at all."""
        if not (count := self.starts.get(key)):
            return ""
        text = N_("Starts in 30 days: %s") if self.everyone else N_("Your starts in 30 days: %s")
        return translate(text).replace("%s", str(count))


@dataclass(frozen=True)
class Search:
    """What somebody looks for."""

    text: str = ""
    problems: bool = False

    def finds(self, entry: RegistryEntry, title: str) -> bool:
        """Whether every word of the text is somewhere in an environment."""
        if self.problems and entry.state is State.HEALTHY and not entry.reason:
            return False
        python = f"python {entry.python}" if entry.python else ""
        everything = [entry.environment, entry.version, entry.label, title, python]
        for kernel in entry.kernels:
            everything += [kernel.name, kernel.display_name, kernel.language]
        heap = "\n".join(everything).casefold()
        return all(word in heap for word in self.text.casefold().split())


def sections(
    entries: Iterable[RegistryEntry],
    sources: Mapping[str, Any],
    used: Used,
    search: Search,
    lang: str,
    translate: Gettext,
) -> dict[str, Any]:
    """The page's contents: ``sections``, how many environments fit, and how many are shown."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}

    def words(reason: Message | None) -> str:
        return reason.in_words(lang) if reason else ""

    for entry in entries:
        title = words_in(entry.facts.get("title") or "", lang)
        if search.finds(entry, title):
            versions = found.setdefault(entry.source, {}).setdefault(entry.environment, [])
            versions.append(_version(entry, title, used, translate, words(entry.reason)))
    if not search.text:
        for source, known in sources.items():
            if known.state is not State.HEALTHY or not search.problems:
                found.setdefault(source, {})
    total = sum(len(environments) for environments in found.values())
    left, shown = SHOWN, []
    for source in sorted(found, key=_order):
        names = sorted(found[source])[:left]
        left -= len(names)
        known = sources.get(source)
        out_of_sight = known is not None and known.state is not State.HEALTHY
        if names or not found[source]:
            shown.append(
                {
                    "source": source,
                    "heading": _heading(source, translate),
                    "reason": words(known.reason) if known and out_of_sight else "",
                    "state": translate(STATES[known.state]) if known and out_of_sight else "",
                    "environments": [
                        {"name": name, "versions": _newest_first(found[source][name])}
                        for name in names
                    ],
                }
            )
    return {"sections": shown, "total": total, "shown": SHOWN - left}


def _version(
    entry: RegistryEntry, title: str, used: Used, translate: Gettext, reason: str
) -> dict[str, Any]:
    deprecated = entry.facts.get("deprecated")
    return {
        "version": entry.version,
        "title": title if title != entry.environment else "",
        "python": entry.python or "",
        "state": entry.state.value,
        "state_words": translate(STATES[entry.state]),
        "reason": reason,
        "deprecated": deprecated if isinstance(deprecated, str) else "",
        "kernels": entry.kernels,
        "last_used": used.last.get(entry.key),
        "starts": used.words(entry.key, translate),
    }


def _newest_first(versions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Versions begin with the day they were made.
    return sorted(versions, key=lambda version: str(version["version"]), reverse=True)


def _order(source: str) -> tuple[int, str]:
    kinds, kind = list(SCOPES), source.partition("-")[0]
    return (kinds.index(kind) if kind in kinds else len(kinds), source)


def _heading(source: str, translate: Gettext) -> str:
    try:
        return parse_source(source, "").heading(translate)
    except BadRequest:
        return source
