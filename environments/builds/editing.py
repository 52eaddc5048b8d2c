"""Environments changed: in place, as a copy of one's own, and corrected after a failed build.

Each is a job like any other (``service``), with a text that was made from what is there. The
version that somebody edited from is sent along: who edits what has changed meanwhile is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.errors import BadRequest, NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.principal import Principal
from commons.rights import Action, check
from commons.scopes import Scope, personal
from commons.site import Builds
from commons.store.environments import BuildState, EnvironmentBuild, ScopeEnvironment
from environments.about import parse_about
from environments.builds import queue, repository, service
from environments.builds.names import MAX_NAME, check_name
from environments.catalog import CatalogEntry
from environments.edit import Change, changed, diff
from environments.errors import SpecError
from environments.files import LOCK_FILE, SPEC_FILE, WORDS_FILE
from environments.messages import edit as texts

# Of labcommons.yml, what holds for somebody's own copy with other packages; not the title, as it
# would be called like what it came from.
_KEPT = ("gpu", "cuda", "platforms")
# The key of a job's origin that says from which version somebody edited.
BASE = "base"

# Jobs that were asked for with a text.
WITH_TEXT = (Action.CREATE, Action.PUBLISH, Action.PROMOTE)

CHANGED_MEANWHILE = Text(
    "edit_changed_meanwhile",
    N_(
        "“{name}” has been changed meanwhile: it is {version} now, and you edited {base}. Look at "
        "the new version and make your change again."
    ),
)
BEING_BUILT = Text(
    "edit_being_built",
    N_(
        "A new version of “{name}” is being built, asked for by {user}. Make your change when "
        "that has ended, or cancel it."
    ),
)
NOT_VERSIONED = Text(
    "edit_not_versioned",
    N_(
        "“{name}” was made in a terminal and has no environment.yml here. Change it with the "
        "program that made it, or build it here from an environment.yml."
    ),
)
NO_NAME_FREE = Text("edit_no_name_free", N_("Give the copy a name: those like “{name}” are taken."))


@dataclass(frozen=True)
class Files:
    """What a version was made from; empty texts for what it has not."""

    spec: str
    words: str = ""
    lock: str = ""


# The files of an image's version, where the site keeps them.
Kept = Callable[[CatalogEntry], Files]


def kept_in(versions: Path) -> Kept:
    """Files of image versions in the folder ``data/versions``; what the catalog says without."""

    def files(entry: CatalogEntry) -> Files:
        folder = versions / entry.name / entry.version
        found = {}
        for name in (SPEC_FILE, WORDS_FILE, LOCK_FILE):
            try:
                found[name] = (folder / name).read_text("utf-8")
            except (OSError, UnicodeDecodeError):
                found[name] = ""
        if not found[SPEC_FILE]:
            return Files(service.spec_of(entry))
        return Files(found[SPEC_FILE], found[WORDS_FILE], found[LOCK_FILE])

    return files


@dataclass(frozen=True)
class Draft:
    """A text to be built, and what it was made from.

    Attributes:
        before: the text before the change, of the version ``base``.
        lock: chosen for ``before``; its packages are kept as far as the text lets them.
    """

    scope: Scope
    name: str
    base: str
    before: str
    spec: str
    words: str
    lock: str
    origin: dict[str, Any]
    action: str = Action.CREATE

    def as_json(self) -> dict[str, str]:
        """The draft as page and command show it."""
        shown = diff(self.before, self.spec, self.base)
        return {"base": self.base, "spec": self.spec, "words": self.words, "diff": shown}


def derive(
    session: Session,
    person: Principal,
    limits: Builds,
    origin: Scope,
    name: str,
    change: Change,
    *,
    kept: Kept,
    new_name: str | None = None,
    version: str = "",
    reader: Principal | None = None,
    address: str | None = None,
) -> EnvironmentBuild:
    """Ask for one's own environment as another one is, with packages added and removed.

    One's own environment gets a new version. Of another one a copy is made; where there is one
    already, that gets a new version. ``reader`` is who sees the other one, if not the person: what
    runs in a server may copy what its owner has there. Raises LabError.
    """
    reader = reader or person
    check(reader, Action.SEE, origin)
    check(person, Action.CREATE, personal(person.name))
    target = personal(person.name)
    wanted = check_name(new_name) if new_name else ""
    mine = name if origin == target else _copy_of(session, target, origin, name, wanted)
    if mine and wanted in ("", mine):
        draft = draft_edit(session, person, target, mine, change)
        return ask(session, person, limits, draft, address)
    found = service.find_version(session, reader, origin, name, version)
    service.check_offered(found)
    files = _files(found, kept)
    free = wanted or _free_name(session, target, name)
    if repository.versions(session, target, free):
        raise BadRequest(NO_NAME_FREE(name=free))
    _check_alone(session, target, free)
    draft = Draft(
        target,
        free,
        "",
        files.spec,
        service.named(_changed(files.spec, change, found), free),
        _own_words(files.words),
        files.lock,
        _of(origin, found),
    )
    return ask(session, person, limits, draft, address)


def draft_edit(
    session: Session,
    person: Principal,
    scope: Scope,
    name: str,
    change: Change,
    *,
    spec: object = None,
    words: object = None,
    base: str = "",
) -> Draft:
    """What an environment would be with another text, with packages added and removed.

    ``base`` is the version that somebody edited from. Raises LabError.
    """
    check(person, Action.CREATE, scope)
    service.check_folder(scope)
    found = service.find_version(session, person, scope, name)
    assert isinstance(found, ScopeEnvironment)
    if base and base != found.version:
        raise NotAvailable(
            CHANGED_MEANWHILE(name=name, version=found.version, base=base[: service.MAX_SHOWN])
        )
    _check_alone(session, scope, name)
    if found.version == repository.LIVE:
        raise NotAvailable(NOT_VERSIONED(name=name))
    before = repository.editable(found)
    text = before if spec is None else service.text_of(spec, SPEC_FILE)
    after = service.named(_changed(text, change, found), name)
    said = _untagged(found.words) if words is None else service.words_of(words)
    if (after, said) == (before, _untagged(found.words)):
        raise BadRequest(texts.NOTHING_TO_CHANGE())
    origin = {**(found.origin or {}), BASE: found.version}
    return Draft(scope, name, found.version, before, after, said, found.lock, origin)


def draft_correction(
    session: Session,
    person: Principal,
    job_id: str,
    change: Change,
    *,
    spec: object = None,
    words: object = None,
) -> Draft:
    """What failed, with its text corrected. Raises LabError."""
    job = service.find_build(session, person, job_id)
    failed = job.state in (BuildState.FAILED, BuildState.CANCELLED)
    if not failed or job.action not in WITH_TEXT or not job.spec:
        raise NotAvailable(service.BUILD_NOT_FAILED())
    scope = queue.scope_of(job)
    check(person, job.action, scope)
    text = job.spec if spec is None else service.text_of(spec, SPEC_FILE)
    return Draft(
        scope,
        job.name,
        "",
        job.spec,
        service.named(_changed(text, change), job.name),
        job.words if words is None else service.words_of(words),
        job.lock,
        dict(job.origin or {}),
        job.action,
    )


def check_base(session: Session, job: EnvironmentBuild) -> None:
    """Whether what a job was edited from is still what people use. Raises NotAvailable."""
    base = (job.origin or {}).get(BASE)
    if not base:
        return
    found = repository.current(session, queue.scope_of(job), job.name)
    if found is not None and found.version != base:
        raise NotAvailable(CHANGED_MEANWHILE(name=job.name, version=found.version, base=base))


def ask(
    session: Session, person: Principal, limits: Builds, draft: Draft, address: str | None = None
) -> EnvironmentBuild:
    """Ask for what a draft says to be built. Raises LabError."""
    request = queue.BuildRequest(
        draft.action,
        draft.scope,
        draft.name,
        person.name,
        spec=draft.spec,
        words=draft.words,
        lock=draft.lock,
        origin=draft.origin,
        address=address,
    )
    return queue.enqueue(session, request, limits)


def _files(found: CatalogEntry | ScopeEnvironment, kept: Kept) -> Files:
    if isinstance(found, CatalogEntry):
        return kept(found)
    if found.version == repository.LIVE:
        raise NotAvailable(NOT_VERSIONED(name=found.name))
    return Files(repository.editable(found), found.words, found.lock)


def _changed(
    spec: str, change: Change, found: CatalogEntry | ScopeEnvironment | None = None
) -> str:
    if not change:
        return spec
    packages = found.packages if found is not None else ()
    conda = {item["name"] for item in packages if item.get("channel") != "pypi"}
    try:
        return changed(spec, change, conda)
    except SpecError as error:
        raise BadRequest(error.message) from error


def _of(origin: Scope, found: CatalogEntry | ScopeEnvironment) -> dict[str, Any]:
    return {
        "source": origin.source,
        "owner": origin.owner,
        "name": found.name,
        "version": found.version,
    }


def _copy_of(session: Session, target: Scope, origin: Scope, name: str, wanted: str) -> str:
    """The name of one's own copy of an environment; "" without one."""
    for row in repository.of_scopes(session, [target]):
        made = row.origin or {}
        same = (made.get("source"), made.get("name")) == (origin.source, name)
        if same and row.current and wanted in ("", row.name):
            return row.name
    return ""


def _free_name(session: Session, target: Scope, name: str) -> str:
    taken = {row.name for row in repository.of_scopes(session, [target])}
    for number in range(1, 100):
        end = f"-{number}" if number > 1 else ""
        if (wanted := f"{name[: MAX_NAME - len(end)]}{end}") not in taken:
            return wanted
    raise BadRequest(NO_NAME_FREE(name=name))


def _check_alone(session: Session, scope: Scope, name: str) -> None:
    """Whether nothing else is becoming of an environment. Raises NotAvailable."""
    busy = session.scalars(
        select(EnvironmentBuild).where(
            EnvironmentBuild.scope == scope.kind,
            EnvironmentBuild.owner == scope.owner,
            EnvironmentBuild.name == name,
            EnvironmentBuild.state.in_(queue.LIVE),
            EnvironmentBuild.action.not_in(("decide", "look")),
        )
    ).first()
    if busy is not None:
        raise NotAvailable(BEING_BUILT(name=name, user=busy.requested_by or "administrator"))


def _own_words(words: str) -> str:
    """What of a labcommons.yml holds for somebody's own copy."""
    try:
        said = parse_about(words or None, WORDS_FILE).about.model_dump(
            mode="json", include=set(_KEPT), exclude_unset=True
        )
    except SpecError:
        return ""
    return "".join(
        f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in said.items()
    )


def _untagged(words: str) -> str:
    """A labcommons.yml without its tag: that is one set of packages for ever."""
    return "".join(line for line in words.splitlines(keepends=True) if not line.startswith("tag:"))
