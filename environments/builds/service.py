"""From what somebody asks for to a job in the queue: one door for console and command.

Everything is checked here, with a clear refusal; the hub checks rights again when it starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from commons.errors import BadRequest, LabError, NotAllowed, NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.principal import Principal
from commons.rights import NO_BUILD, Action, Resource, can, check
from commons.scopes import Keeper, Scope, personal
from commons.site import Builds
from commons.store.environments import BuildState, EnvironmentBuild, ScopeEnvironment
from commons.store.models import utcnow
from environments import catalog, kinds
from environments.about import parse_about
from environments.builds import queue, repository
from environments.builds.names import check_name
from environments.catalog import CatalogEntry
from environments.encoding import clean
from environments.errors import SpecError
from environments.kinds import Kind, kind_of, most
from environments.own_channels import in_url

# What a copy is, by who keeps the place that it goes to.
_COPYING = {
    Keeper.SITE: Action.PROMOTE,
    Keeper.GROUP: Action.PUBLISH,
    Keeper.PERSON: Action.CREATE,
}
# Between two looks at somebody's folder.
LOOK_AGAIN = timedelta(seconds=10)
_NAME_LINE = re.compile(r"^name[ \t]*:.*$", re.MULTILINE)
NO_ENVIRONMENT = Text(
    "no_environment", N_("There is no environment “{name}” in “{scope}”. It may have been deleted.")
)
_OFFLINE = "labcommons.invalid"
MAX_SHOWN = 64  # characters of a name that somebody sent


SAME_PLACE = Text("same_place", N_("Give the copy another name or another place."))
BUILD_ENDED = Text("build_ended", N_("This build has ended already."))
BUILD_NOT_FAILED = Text("build_not_failed", N_("This build has not failed."))
NO_SPEC = Text("no_spec", N_("{file} is empty; paste its contents, or choose the file."))
SPEC_TOO_LONG = Text(
    "spec_too_long", N_("{file} is longer than {limit} characters; list fewer packages.")
)
IMAGE_SCOPE = Text(
    "image_scope",
    N_(
        "Image environments are built by an administrator with “labcommons env build”; promote "
        "one to have it built."
    ),
)
ENVIRONMENT_WITHDRAWN = Text(
    "environment_withdrawn",
    N_("Version {version} of “{name}” was withdrawn: {reason}. Choose another one."),
)
WORDS_WRONG = Text("words_wrong", N_("It cannot be used: {reason}"))


NO_VERSION = Text("no_version", N_("“{name}” has no version “{version}”; there are: {versions}."))
NO_EXPORT = Text(
    "no_export",
    N_(
        "No export of “{name}” {version} is kept. An administrator has it made with "
        "“labcommons env build {name}”."
    ),
)


class NotThere(LabError):
    """There is no such thing, or it is hidden from this person."""

    status = 404


def create(
    session: Session,
    person: Principal,
    limits: Builds,
    scope: Scope,
    name: object,
    spec: object,
    words: object = "",
    address: str | None = None,
) -> EnvironmentBuild:
    """Ask for an environment from the contents of an environment.yml. Raises LabError."""
    wanted = check_name(name)
    check_folder(scope)
    check(person, Action.CREATE, scope)
    if isinstance(spec, str) and (problem := kinds.problem(kind_of(spec))):
        raise BadRequest(problem)
    request = queue.BuildRequest(
        Action.CREATE,
        scope,
        wanted,
        person.name,
        spec=named(text_of(spec, "environment.yml"), wanted),
        words=words_of(words),
        address=address,
    )
    return queue.enqueue(session, request, limits)


def copy(
    session: Session,
    person: Principal,
    limits: Builds,
    origin: Scope,
    name: str,
    target: Scope,
    new_name: object = None,
    address: str | None = None,
) -> EnvironmentBuild:
    """Ask for an environment as another one is, with the same packages.

    To a personal scope this is a clone, to a team's or course's publishing, to the shared ones
    or into an image a promotion. The packages are installed anew from the lock, each checked
    against its hash: nothing that somebody changed in the original comes along.
    """
    wanted = check_name(new_name or name)
    action = _COPYING[target.keeper]
    check(person, Action.SEE, origin)
    check(person, action, target)
    spec, words, lock, version = _contents(session, person, origin, name)
    if (origin, name) == (target, wanted):
        raise BadRequest(SAME_PLACE())
    request = queue.BuildRequest(
        action,
        target,
        wanted,
        person.name,
        spec=named(text_of(spec, "environment.yml"), wanted),
        words=words_of(words),
        lock=lock,
        origin={"source": origin.source, "owner": origin.owner, "name": name, "version": version},
        address=address,
    )
    return queue.enqueue(session, request, limits)


def delete(
    session: Session,
    person: Principal,
    limits: Builds,
    scope: Scope,
    name: object,
    address: str | None = None,
) -> EnvironmentBuild:
    """Ask for an environment to be deleted with all its versions; refused later when in use."""
    wanted = check_name(name)
    check_folder(scope)
    check(person, Action.DELETE, scope)
    request = queue.BuildRequest(Action.DELETE, scope, wanted, person.name, address=address)
    return queue.enqueue(session, request, limits)


def look(session: Session, person: Principal, limits: Builds) -> EnvironmentBuild | None:
    """Ask for a look at what the person made in a terminal; None where there was one just now."""
    scope = personal(person.name)
    check(person, Action.LOOK, scope)
    last = queue.last_look(session, scope)
    if last is not None:
        if last.state in queue.LIVE or utcnow() - last.queued_at < LOOK_AGAIN:
            return None
        session.delete(last)
    return queue.enqueue(session, queue.BuildRequest(Action.LOOK, scope, "", person.name), limits)


def find_build(session: Session, person: Principal, job_id: str) -> EnvironmentBuild:
    """A job that the person may see: their own, and those of groups that they lead."""
    job = queue.get(session, job_id)
    if job is None:
        raise NO_BUILD.error()
    check(person, Action.SEE_BUILD, resource_of(job))
    return job


def resource_of(job: EnvironmentBuild) -> Resource:
    """What rights about a job depend on."""
    return Resource(queue.scope_of(job), holder=job.requested_by)


def cancel(session: Session, person: Principal, job_id: str) -> EnvironmentBuild:
    """Ask for a job to end."""
    job = find_build(session, person, job_id)
    check(person, Action.END_BUILD, resource_of(job))
    if job.state not in queue.LIVE:
        raise NotAvailable(BUILD_ENDED())
    queue.cancel(session, job_id)
    return job


def retry(
    session: Session, person: Principal, limits: Builds, job_id: str, address: str | None = None
) -> EnvironmentBuild:
    """Ask again for what failed or was cancelled; as oneself, with today's rights."""
    job = find_build(session, person, job_id)
    if job.state not in (BuildState.FAILED, BuildState.CANCELLED):
        raise NotAvailable(BUILD_NOT_FAILED())
    scope = queue.scope_of(job)
    check(person, job.action, scope)
    request = queue.BuildRequest(
        job.action,
        scope,
        job.name,
        person.name,
        spec=job.spec,
        words=job.words,
        lock=job.lock,
        origin=job.origin,
        version=job.version if job.action == "decide" else None,
        address=address,
    )
    return queue.enqueue(session, request, limits)


def named(spec: str, name: str) -> str:
    """An environment.yml with another name in it, its lines where they were."""
    if kind_of(spec) is not Kind.SPEC:  # has none, or its own
        return spec
    return _NAME_LINE.sub(f"name: {name}", spec, count=1)


def text_of(value: object, file: str) -> str:
    """The text of a file as somebody sent it. Raises BadRequest."""
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(NO_SPEC(file=file))
    if len(value) > (limit := most(value)):
        raise BadRequest(SPEC_TOO_LONG(file=file, limit=limit))
    try:
        return clean(value, file)
    except SpecError as error:
        raise BadRequest(WORDS_WRONG(reason=error.message)) from error


def words_of(value: object) -> str:
    """The text of a labcommons.yml, where there is one, looked at before anybody waits for it."""
    if not value or (isinstance(value, str) and not value.strip()):
        return ""
    text = text_of(value, "labcommons.yml")
    try:
        parse_about(text, "labcommons.yml")
    except SpecError as error:
        raise BadRequest(WORDS_WRONG(reason=error.message)) from error
    return text


def check_folder(scope: Scope) -> None:
    """Whether environments of a scope are built here. Raises NotAllowed."""
    if not scope.has_folder:
        raise NotAllowed(IMAGE_SCOPE())


def image_versions(session: Session, person: Principal) -> dict[str, list[CatalogEntry]]:
    """The image environments that a person may start a server with, newest version first."""
    return {
        name: versions
        for name, versions in catalog.newest(session, offered_only=True).items()
        if versions and can(person, Action.SEE, versions[0].resource)
    }


def image_history(session: Session, person: Principal, name: str) -> list[CatalogEntry]:
    """All versions of an image environment, newest first, also those not offered any more."""
    return [
        entry
        for entry in catalog.newest(session).get(name, [])
        if can(person, Action.SEE, entry.resource)
    ]


def find_version(
    session: Session, person: Principal, scope: Scope, name: object, version: str = ""
) -> CatalogEntry | ScopeEnvironment:
    """A version by its name or tag; without one, that which people use. Raises LabError."""
    check(person, Action.SEE, scope)
    wanted = check_name(name)
    found: Sequence[CatalogEntry | ScopeEnvironment]
    used: CatalogEntry | ScopeEnvironment | None
    if not scope.has_folder:
        images = image_history(session, person, wanted)
        found, used = images, next((entry for entry in images if entry.is_offered), None)
    else:
        rows = repository.versions(session, scope, wanted)
        found, used = rows, next((row for row in rows if row.current), None)
    if not found:
        raise NotThere(NO_ENVIRONMENT(name=wanted, scope=scope.source))
    if not version:
        return used or found[0]
    for entry in found:
        if version in (entry.version, entry.tag):
            return entry
    raise NotThere(
        NO_VERSION(
            name=wanted, version=version[:64], versions=", ".join(entry.version for entry in found)
        )
    )


def check_offered(found: CatalogEntry | ScopeEnvironment) -> None:
    """Raises NotAvailable for a version that was withdrawn."""
    if found.state == "withdrawn":
        raise NotAvailable(
            ENVIRONMENT_WITHDRAWN(
                version=found.version,
                name=found.name,
                reason=(found.withdrawn_reason or "-").rstrip("."),
            )
        )


def no_export(name: str, version: str) -> NotThere:
    """A version that was built before exports were kept."""
    return NotThere(NO_EXPORT(name=name, version=version))


def _contents(
    session: Session, person: Principal, origin: Scope, name: str
) -> tuple[str, str, str, str]:
    """environment.yml, labcommons.yml, lock and version of an environment. Raises NotThere."""
    if not origin.has_folder:
        versions = image_versions(session, person).get(name)
        if versions:
            entry = versions[0]
            return spec_of(entry), "", "", entry.version
        for entry in image_history(session, person, name)[:1]:
            check_offered(entry)
    else:
        row = repository.current(session, origin, name)
        if row is not None:
            check_offered(row)
            return row.spec, row.words, row.lock, row.version
    raise NotThere(NO_ENVIRONMENT(name=name, scope=origin.source))


def spec_of(entry: CatalogEntry) -> str:
    """An environment.yml with the versions that an image environment has."""
    versions: Mapping[str, Any] = {item["name"]: item["version"] for item in entry.packages}
    names = ["python", "ipykernel", *(item["name"] for item in entry.main_packages)]
    channels = [
        in_url(channel) or ("conda-forge" if _OFFLINE in channel else channel)
        for channel in entry.channels
    ] or ["conda-forge"]
    lines = [
        f"name: {entry.name}",
        "channels:",
        *(f"  - {channel}" for channel in dict.fromkeys(channels)),
        "dependencies:",
        *(f"  - {n}=={versions[n]}" for n in dict.fromkeys(names) if n in versions),
    ]
    return "\n".join(lines) + "\n"
