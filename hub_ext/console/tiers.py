"""Environments of all tiers as the console shows them: plain data from the store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from hub_ext.console.viewer import Viewer
from hub_ext.i18n import N_, Gettext, gettext_for
from hub_ext.site import words_in
from hub_ext.store.environments import EnvironmentBuild, TierEnvironment
from hub_ext.store.models import utcnow
from spawner.environments.about import About, parse_about
from spawner.environments.catalog import CatalogEntry
from spawner.environments.document import Document
from spawner.environments.errors import SpecError
from spawner.environments.pythons import python_end, python_state
from spawner.options import show_bytes
from spawner.tiers import asking, jobs, shelf
from spawner.tiers.rights import Person, may_change, person_of
from spawner.tiers.said import FAILURES, in_words, said
from spawner.tiers.tier import IMAGE, SHARED, Kind, Tier

_LOGS = ("lock.log", "pip.log", "install.log", "decide.log", "delete.log", "image.log")
# How long a job that has ended is on the page, and how many of them.
FRESH = timedelta(hours=1)
MAX_ENDED = 2
MAX_LOG_PART = 256 * 1024  # bytes


def person(viewer: Viewer) -> Person:
    """Who asks, with the positions that the hub's groups say."""
    return person_of(viewer.name, viewer.admin, viewer.groups)


def listing(session: Session, who: Person, lang: str) -> list[dict[str, Any]]:
    """All environments that somebody may use, by tier and name."""
    found = [_image(versions, lang) for versions in asking.image_versions(session, who).values()]
    tiers = _visible(session, who)
    order = {tier: number for number, tier in enumerate(tiers)}
    rows = shelf.of_tiers(session, tiers)
    rows.sort(key=lambda row: (order[shelf.tier_of(row)], row.name))
    for (tier, _), versions in groupby(rows, key=lambda row: (shelf.tier_of(row), row.name)):
        entries = list(versions)
        shown = next((entry for entry in entries if entry.current), entries[0])
        found.append(_built(tier, shown, [entry.version for entry in entries], lang))
    today = utcnow().date()
    for item in found:
        item["may"] = _may(who, item["source"], item["owner"])
        state, end = python_state(item["python"] or "", today), python_end(item["python"] or "")
        item["python_state"], item["python_end"] = state, end.isoformat() if end else None
    return found


def digest(found: Iterable[Mapping[str, Any]]) -> str:
    """What a listing looks like, in short."""
    seen = [
        (item["source"], item["owner"], item["name"], item["versions"], item["now"]["state"])
        for item in found
    ]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def _visible(session: Session, who: Person) -> list[Tier]:
    """The tiers of a person; for an administrator those of all teams and courses."""
    if not who.admin:
        return who.tiers
    everywhere = [t for t in shelf.tiers(session) if t.kind in (Kind.TEAM, Kind.COURSE)]
    return list(dict.fromkeys([IMAGE, SHARED, *everywhere, *who.tiers]))


def targets(who: Person) -> list[Tier]:
    """The tiers that somebody may build in."""
    own = [tier for tier in who.tiers if tier.kind is not Kind.IMAGE and may_change(who, tier)]
    return sorted(own, key=lambda tier: tier.kind is not Kind.PERSONAL)


def copy_targets(who: Person) -> list[Tier]:
    """The tiers that somebody may copy an environment to."""
    return [*targets(who), *([IMAGE] if who.admin else [])]


def details(row: TierEnvironment, versions: Iterable[TierEnvironment], lang: str) -> dict[str, Any]:
    """One environment with its packages and versions."""
    return _built(shelf.tier_of(row), row, [entry.version for entry in versions], lang) | {
        "spec": row.spec,
        "packages": list(row.packages),
        "history": [version(entry) for entry in versions],
    }


def version(entry: CatalogEntry | TierEnvironment) -> dict[str, Any]:
    """One version: where it comes from, and what was decided about it."""
    row = entry if isinstance(entry, TierEnvironment) else None
    return {
        "version": entry.version,
        "tag": entry.tag,
        "state": entry.state,
        "current": bool(row and row.current),
        "pinned": entry.pinned,
        "deprecated": _time(entry.deprecated_at) if entry.deprecated_at else None,
        "deprecated_reason": entry.deprecated_reason,
        "withdrawn": _time(entry.withdrawn_at) if entry.withdrawn_at else None,
        "withdrawn_reason": entry.withdrawn_reason,
        "created": _time(entry.created_at),
        "built_by": row.built_by if row else "",
        "lock_digest": entry.lock_digest,
        "size": show_bytes(entry.size) if entry.size else None,
        "size_bytes": entry.size,
    }


def image_details(session: Session, who: Person, item: dict[str, Any]) -> dict[str, Any]:
    """One image environment with its packages and versions."""
    entries = asking.image_history(session, who, item["name"])
    shown = next(entry for entry in entries if entry.version == item["version"])
    return item | {
        "packages": [
            {key: package.get(key, "") for key in ("name", "version", "channel")}
            for package in shown.packages
        ],
        "history": [version(entry) | {"current": entry is shown} for entry in entries],
    }


def export(
    session: Session, who: Person, tier: Tier, name: str, version: str, format: str
) -> tuple[str, str | None]:
    """A version's name, and its text in a format; None where that is in a file."""
    found = asking.find_version(session, who, tier, name, version)
    if isinstance(found, CatalogEntry):
        return found.version, None
    text = (found.exports or {}).get(format)
    if text is None:
        raise asking.no_export(name, found.version)
    return found.version, text


def two_versions(
    session: Session, who: Person, tier: Tier, name: str, before: str, after: str
) -> list[tuple[str, list[dict[str, str]]]]:
    """Names and packages of two versions: those named, or the newest and the one before it."""
    right = asking.find_version(session, who, tier, name, after)
    if before:
        left = asking.find_version(session, who, tier, name, before)
    else:
        entries: list[CatalogEntry] | list[TierEnvironment] = (
            asking.image_history(session, who, name)
            if tier.kind is Kind.IMAGE
            else shelf.versions(session, tier, name)
        )
        names = [entry.version for entry in entries]
        older = entries[names.index(right.version) + 1 :]
        if not older:
            raise asking.NotThere(
                "nothing_older",
                N_("“{name}” has nothing older than {version}."),
                {"name": name, "version": right.version},
            )
        left = older[0]
    return [(entry.version, list(entry.packages)) for entry in (left, right)]


def builds(
    session: Session, who: Person, gettext: Gettext, limit: int = 20
) -> list[dict[str, Any]]:
    """The newest jobs that are somebody's business, newest first."""
    found = (job for job in jobs.recent(session, 500) if asking.may_follow(who, job))
    return [build(job, gettext) for job, _ in zip(found, range(limit), strict=False)]


def fresh_builds(session: Session, who: Person, gettext: Gettext) -> list[dict[str, Any]]:
    """The jobs that somebody who opens the page wants to see: what goes on, and what just ended."""
    since = _time(utcnow() - FRESH)
    found = builds(session, who, gettext, 100)
    live = [one for one in found if not one["ended"]]
    ended = [one for one in found if one["ended"] and one["ended"] > since]
    return [*live, *ended[:MAX_ENDED]]


def build(job: EnvironmentBuild, gettext: Gettext) -> dict[str, Any]:
    """One job. ``message`` is in English; ``sentence`` says the same in the reader's language.

    Of a failure that only a builder can explain, ``sentence`` says the kind and the remedy.
    """
    sentence = in_words(job.said, gettext)
    return {
        "sentence": sentence,
        "explained": sentence is None or (job.said or {}).get("text") not in FAILURES.values(),
        "id": job.id,
        "action": job.action,
        "source": jobs.tier_of(job).source,
        "owner": job.owner,
        "name": job.name,
        "requested_by": job.requested_by,
        "state": str(job.state),
        "percent": job.percent,
        "message": job.message,
        "version": job.version,
        "cancel_asked": job.cancel_asked,
        "origin": job.origin,
        "queued": _time(job.queued_at),
        "ended": _time(job.ended_at) if job.ended_at else None,
    }


def log_part(folder: Path, offset: int) -> tuple[str, int]:
    """The log of a job from an offset, in bytes, on; and the next offset.

    Only whole lines, so that no character is cut in two.
    """
    parts = []
    for name in _LOGS:
        try:
            parts.append((folder / name).read_bytes())
        except OSError:
            continue
    whole = b"".join(parts)[offset : offset + MAX_LOG_PART]
    end = whole.rfind(b"\n") + 1
    return whole[:end].decode("utf-8", "replace"), offset + end


def tier_label(gettext: Gettext, source: str, owner: str = "") -> str:
    """What people call a tier."""
    kind, _, name = source.partition("-")
    words = {
        "image": gettext("Images"),
        "shared": gettext("Shared"),
        "personal": gettext("Personal"),
    }
    if kind == "team":
        return gettext("Team {name}").format(name=name)
    if kind == "course":
        return gettext("Course {name}").format(name=name)
    return words.get(source, source)


def _may(who: Person, source: str, owner: str) -> dict[str, bool]:
    tier = Tier(Kind(source.partition("-")[0]), owner)
    change = may_change(who, tier)
    return {"delete": tier.kind is not Kind.IMAGE and change, "copy": True, "decide": change}


def _image(versions: list[CatalogEntry], lang: str) -> dict[str, Any]:
    entry = versions[0]
    return {
        "source": IMAGE.source,
        "owner": "",
        "name": entry.name,
        "title": words_in(entry.words.get("title") or entry.name, lang),
        "description": words_in(entry.words.get("description") or "", lang),
        "version": entry.version,
        "now": version(entry),
        "versions": [one.version for one in versions],
        "python": entry.python,
        "main_packages": list(entry.main_packages),
        "package_count": len(entry.packages),
        "package_names": sorted({item["name"] for item in entry.packages}),
        "size": show_bytes(entry.size) if entry.size else None,
        "size_bytes": entry.size or None,
        "built_by": "",
        "created": _time(entry.created_at),
        "findings": [_finding(one, lang) for one in entry.findings],
    }


def _built(tier: Tier, row: TierEnvironment, versions: list[str], lang: str) -> dict[str, Any]:
    main, about = _main_names(row.spec), _about(row.words)
    return {
        "source": tier.source,
        "owner": tier.owner,
        "name": row.name,
        "title": words_in(about.title or row.name, lang),
        "description": words_in(about.description or "", lang),
        "version": row.version,
        "now": version(row),
        "versions": versions,
        "python": row.python,
        "main_packages": [
            {"name": item["name"], "version": item["version"]}
            for item in row.packages
            if item["name"] in main
        ],
        "package_count": len(row.packages),
        "package_names": sorted({item["name"] for item in row.packages}),
        "size": show_bytes(row.size) if row.size else None,
        "size_bytes": row.size,
        "built_by": row.built_by,
        "created": _time(row.created_at),
        "findings": [_finding(one, lang) for one in row.findings],
    }


def _finding(kept: Mapping[str, Any], lang: str) -> dict[str, Any]:
    """One finding. ``message`` and ``remedy`` are English; ``sentence`` is both, for the reader."""
    english = {key: str(kept.get(key) or "") for key in ("level", "code", "message", "remedy")}
    words = []
    for text, said_in_english in (("text", "message"), ("advice", "remedy")):
        in_language = in_words(said(kept.get(text), kept.get("values")), gettext_for(lang))
        words.append(in_language or english[said_in_english])
    return english | {
        "sentence": gettext_for(lang)(N_("{what}; {remedy}")).format(what=words[0], remedy=words[1])
    }


@lru_cache(500)
def _about(words: str) -> About:
    """What a labcommons.yml says. Those that were built with it have passed its checks."""
    try:
        return parse_about(words or None, "labcommons.yml").about
    except SpecError:
        return About()


@lru_cache(500)
def _main_names(spec: str) -> frozenset[str]:
    """The packages that an environment.yml names, roughly: for show."""
    try:
        document = Document(spec, "environment.yml")
        found = document.plain(document.root).get("dependencies", [])
    except (SpecError, AttributeError):
        return frozenset()
    texts: list[object] = []
    for item in found if isinstance(found, list) else ():
        texts += item.get("pip", []) if isinstance(item, dict) else [item]
    words = (str(text).rpartition("::")[2].strip() for text in texts)
    names = {re.split(r"[^A-Za-z0-9._-]", word)[0] for word in words}
    return frozenset(names - {"python", "ipykernel", "pip"})


def _time(moment: Any) -> str:
    return f"{moment.isoformat(timespec='seconds')}Z"
