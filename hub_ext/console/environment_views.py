"""Environments of all scopes as the console shows them: plain data from the store."""

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

from commons import holes
from commons.i18n import N_, Gettext, gettext_for
from commons.messages import Message, Text
from commons.principal import Principal
from commons.rights import Action, can
from commons.scopes import IMAGE, SHARED, SITE, Keeper, Scope, personal
from commons.signatures.check import Checker
from commons.site import words_in
from commons.store.environments import BuildState, EnvironmentBuild, ScopeEnvironment
from commons.store.models import utcnow
from environments.about import About, parse_about
from environments.builds import queue, repository, service
from environments.builds.editing import WITH_TEXT
from environments.builds.messages import (
    can_help,
    in_words,
    is_explained,
    missing_package,
)
from environments.catalog import CatalogEntry
from environments.document import Document
from environments.errors import SpecError
from environments.kinds import Kind, kind_of
from environments.pythons import python_end, python_state
from environments.signed import as_image
from spawner.options import show_bytes

_LOGS = ("lock.log", "pip.log", "install.log", "decide.log", "delete.log", "image.log")
# How long a job that has ended is on the page, and how many of them.
FRESH = timedelta(hours=1)
MAX_ENDED = 2
# What failed with a text is there longer, as that waits to be corrected, on any device.
CORRECTABLE = timedelta(days=7)
MAX_LOG_PART = 256 * 1024  # bytes
NOTHING_OLDER = Text("nothing_older", N_("“{name}” has nothing older than {version}."))


def listing(
    session: Session, who: Principal, lang: str, checker: Checker | None = None
) -> list[dict[str, Any]]:
    """All environments that somebody may use, by scope and name; ``checker``: and who signed."""
    known = holes.counts(session)
    found = [
        _image(versions, lang, checker)
        for versions in service.image_versions(session, who).values()
    ]
    scopes = _visible(session, who)
    order = {scope: number for number, scope in enumerate(scopes)}
    rows = repository.of_scopes(session, scopes)
    rows.sort(key=lambda row: (order[repository.scope_of(row)], row.name))
    for (scope, _), versions in groupby(rows, key=lambda row: (repository.scope_of(row), row.name)):
        entries = list(versions)
        shown = next((entry for entry in entries if entry.current), entries[0])
        found.append(_built(scope, shown, [entry.version for entry in entries], lang))
    today = utcnow().date()
    for item in found:
        item["may"] = _may(who, item["source"], item["owner"])
        state, end = python_state(item["python"] or "", today), python_end(item["python"] or "")
        item["python_state"], item["python_end"] = state, end.isoformat() if end else None
        owner = item["owner"] if item["source"] == personal("x").source else ""
        which = holes.Version(item["source"], owner, item["name"], item["version"])
        item["holes"] = known.get(which, 0)
    return found


def digest(found: Iterable[Mapping[str, Any]]) -> str:
    """What a listing looks like, in short."""
    seen = [
        (
            *(item[key] for key in ("source", "owner", "name", "versions")),
            item["now"]["state"],
            # What was changed by hand is found while the page is open.
            [(one["code"], one.get("change")) for one in item["findings"]],
            (item["now"]["signature"], item["holes"]),
        )
        for item in found
    ]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def _visible(session: Session, who: Principal) -> list[Scope]:
    """The scopes of a person; for an administrator those of all teams and courses."""
    if not can(who, Action.ADMINISTER, SITE):
        return who.scopes
    everywhere = [t for t in repository.scopes(session) if t.keeper is Keeper.GROUP]
    return list(dict.fromkeys([IMAGE, SHARED, *everywhere, *who.scopes]))


def targets(who: Principal) -> list[Scope]:
    """The scopes that somebody may build in."""
    own = [scope for scope in who.scopes if scope.has_folder and can(who, Action.CREATE, scope)]
    return sorted(own, key=lambda scope: scope.keeper is not Keeper.PERSON)


def copy_targets(who: Principal) -> list[Scope]:
    """The scopes that somebody may copy an environment to."""
    return [*targets(who), *([IMAGE] if can(who, Action.PROMOTE, IMAGE) else [])]


def details(
    row: ScopeEnvironment, versions: Iterable[ScopeEnvironment], lang: str
) -> dict[str, Any]:
    """One environment with its packages and versions."""
    return _built(repository.scope_of(row), row, [entry.version for entry in versions], lang) | {
        "spec": repository.editable(row),
        "words": row.words,
        "packages": list(row.packages),
        "history": [version(entry) for entry in versions],
    }


def version(
    entry: CatalogEntry | ScopeEnvironment, checker: Checker | None = None, lang: str = "en"
) -> dict[str, Any]:
    """One version: where it comes from, and what was decided about it."""
    row = entry if isinstance(entry, ScopeEnvironment) else None
    proven = checker.check(as_image(entry)) if checker and isinstance(entry, CatalogEntry) else None
    why = proven.why.in_words(gettext_for(lang)) if proven and proven.why else ""
    return {
        "signature": proven.state if proven else None,
        "signature_why": why,
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


def image_details(
    session: Session, who: Principal, item: dict[str, Any], checker: Checker, lang: str
) -> dict[str, Any]:
    """One image environment with its packages and versions."""
    entries = service.image_history(session, who, item["name"])
    shown = next(entry for entry in entries if entry.version == item["version"])
    return item | {
        "packages": [
            {key: package.get(key, "") for key in ("name", "version", "channel")}
            for package in shown.packages
        ],
        "history": [
            version(entry, checker, lang) | {"current": entry is shown} for entry in entries
        ],
    }


def export(
    session: Session, who: Principal, scope: Scope, name: str, version: str, format: str
) -> tuple[str, str | None]:
    """A version's name, and its text in a format; None where that is in a file."""
    found = service.find_version(session, who, scope, name, version)
    if isinstance(found, CatalogEntry):
        return found.version, None
    text = (found.exports or {}).get(format)
    if text is None:
        raise service.no_export(name, found.version)
    return found.version, text


def two_versions(
    session: Session, who: Principal, scope: Scope, name: str, before: str, after: str
) -> list[tuple[str, list[dict[str, str]]]]:
    """Names and packages of two versions: those named, or the newest and the one before it."""
    right = service.find_version(session, who, scope, name, after)
    if before:
        left = service.find_version(session, who, scope, name, before)
    else:
        entries: list[CatalogEntry] | list[ScopeEnvironment] = (
            service.image_history(session, who, name)
            if not scope.has_folder
            else repository.versions(session, scope, name)
        )
        names = [entry.version for entry in entries]
        older = entries[names.index(right.version) + 1 :]
        if not older:
            raise service.NotThere(NOTHING_OLDER(name=name, version=right.version))
        left = older[0]
    return [(entry.version, list(entry.packages)) for entry in (left, right)]


def builds(
    session: Session, who: Principal, gettext: Gettext, limit: int = 20
) -> list[dict[str, Any]]:
    """The newest jobs that are somebody's business, newest first."""
    found = (
        job
        for job in queue.recent(session, 500)
        if can(who, Action.SEE_BUILD, service.resource_of(job))
    )
    return [build(job, gettext) for job, _ in zip(found, range(limit), strict=False)]


def fresh_builds(session: Session, who: Principal, gettext: Gettext) -> list[dict[str, Any]]:
    """The jobs that somebody who opens the page wants to see: what goes on, and what just ended."""
    since, long_since = _time(utcnow() - FRESH), _time(utcnow() - CORRECTABLE)
    found = builds(session, who, gettext, 100)
    live = [one for one in found if not one["ended"]]
    ended: list[dict[str, Any]] = []
    later: set[tuple[str, str, str]] = set()
    for one in found:
        which = (one["source"], one["owner"], one["name"])
        # What was asked for since about the same was corrected.
        waits = which not in later and one["state"] == "failed" and one["requested_by"] == who.name
        later.add(which)
        if not one["ended"] or (one["state"] == "failed" and not waits):
            continue
        fresh = one["ended"] > since and len(ended) < MAX_ENDED
        if fresh or (waits and one["correct"] and one["ended"] > long_since):
            ended.append(one)
    return [*live, *ended]


def build(job: EnvironmentBuild, gettext: Gettext) -> dict[str, Any]:
    """One job. ``message`` is in English; ``sentence`` says the same in the reader's language.

    Of a failure that only a builder can explain, ``sentence`` says the kind and the remedy.
    """
    sentence = in_words(job.said, gettext)
    return {
        "sentence": sentence,
        "explained": sentence is None or is_explained(job.said),
        **_after_failure(job),
        "id": job.id,
        "action": job.action,
        "source": queue.scope_of(job).source,
        "owner": job.owner,
        "name": job.name,
        "requested_by": job.requested_by,
        "state": str(job.state),
        "percent": job.percent,
        "message": job.message,
        "reason": Message.from_json(job.said).as_json(gettext) if job.said else None,
        "version": job.version,
        "cancel_asked": job.cancel_asked,
        "origin": job.origin,
        "queued": _time(job.queued_at),
        "ended": _time(job.ended_at) if job.ended_at else None,
    }


def with_text(job: EnvironmentBuild, gettext: Gettext) -> dict[str, Any]:
    """One job with the texts that it was asked for with."""
    return build(job, gettext) | {"spec": job.spec, "words": job.words}


def _after_failure(job: EnvironmentBuild) -> dict[str, Any]:
    """What can be done about a job that has not come to its end."""
    failed = job.state in (BuildState.FAILED, BuildState.CANCELLED)
    return {
        "retry": failed and can_help(job.said),
        "correct": failed and job.action in WITH_TEXT,
        "add": missing_package(job.said) if failed else None,
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


def _may(who: Principal, source: str, owner: str) -> dict[str, bool]:
    scope = Scope(source.partition("-")[0], owner)
    return {
        "delete": scope.has_folder and bool(can(who, Action.DELETE, scope)),
        "copy": True,
        "edit": scope.has_folder and bool(can(who, Action.CREATE, scope)),
        "derive": bool(can(who, Action.CREATE, personal(who.name))),
        "decide": bool(can(who, Action.DECIDE, scope)),
    }


def _image(versions: list[CatalogEntry], lang: str, checker: Checker | None) -> dict[str, Any]:
    entry = versions[0]
    return {
        "source": IMAGE.source,
        "owner": "",
        "name": entry.name,
        "title": words_in(entry.words.get("title") or entry.name, lang),
        "description": words_in(entry.words.get("description") or "", lang),
        "version": entry.version,
        "now": version(entry, checker, lang),
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


def _built(scope: Scope, row: ScopeEnvironment, versions: list[str], lang: str) -> dict[str, Any]:
    main, about = _main_names(row.spec), _about(row.words)
    return {
        "source": scope.source,
        "owner": scope.owner,
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
    data, words = kept.get("data"), []
    for part, said_in_english in (("what", "message"), ("advice", "remedy")):
        found = data.get(part) if isinstance(data, Mapping) else None
        words.append(in_words(found, gettext_for(lang)) or english[said_in_english])
    return english | {
        "sentence": gettext_for(lang)(N_("{what}; {remedy}")).format(
            what=words[0], remedy=words[1]
        ),
        "change": kept.get("change"),
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
    if kind_of(spec) is not Kind.SPEC:  # each single package, or pixi's
        return frozenset()
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
