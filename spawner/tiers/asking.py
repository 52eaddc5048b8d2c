"""From what somebody asks for to a job in the queue: one door for console and command.

Everything is checked here, with a clear refusal; the hub checks rights again when it starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from hub_ext.i18n import N_
from hub_ext.site import Builds
from hub_ext.store.environments import BuildState, EnvironmentBuild, TierEnvironment
from hub_ext.store.models import utcnow
from spawner.environments import catalog
from spawner.environments.about import parse_about
from spawner.environments.catalog import CatalogEntry
from spawner.environments.errors import SpecError
from spawner.errors import BadRequest, NotAllowed, NotAvailable, SpawnerError
from spawner.tiers import jobs, shelf
from spawner.tiers.rights import Person, check_change, check_see
from spawner.tiers.shelf import MAX_SPEC
from spawner.tiers.tier import Kind, Tier, check_name

# Between two looks at somebody's folder.
LOOK_AGAIN = timedelta(seconds=10)
_NAME_LINE = re.compile(r"^name[ \t]*:.*$", re.MULTILINE)
NO_ENVIRONMENT = N_("There is no environment “{name}” in “{tier}”. It may have been deleted.")
_OFFLINE = "labcommons.invalid"


class NotThere(SpawnerError):
    """There is no such thing, or it is hidden from this person."""

    status = 404


def create(
    session: Session,
    person: Person,
    limits: Builds,
    tier: Tier,
    name: object,
    spec: object,
    words: object = "",
    address: str | None = None,
) -> EnvironmentBuild:
    """Ask for an environment from the contents of an environment.yml. Raises SpawnerError."""
    wanted = check_name(name)
    _check_tier(tier)
    check_change(person, tier)
    request = jobs.Request(
        "create",
        tier,
        wanted,
        person.name,
        spec=named(_text(spec, "environment.yml"), wanted),
        words=_words(words),
        address=address,
    )
    return jobs.enqueue(session, request, limits)


def copy(
    session: Session,
    person: Person,
    limits: Builds,
    origin: Tier,
    name: str,
    target: Tier,
    new_name: object = None,
    address: str | None = None,
) -> EnvironmentBuild:
    """Ask for an environment as another one is, with the same packages.

    To a personal tier this is a clone, to a team's or course's publishing, to the shared ones
    or into an image a promotion. The packages are installed anew from the lock, each checked
    against its hash: nothing that somebody changed in the original comes along.
    """
    wanted = check_name(new_name or name)
    check_see(person, origin)
    if target.kind is not Kind.IMAGE:
        _check_tier(target)
    check_change(person, target)
    spec, words, lock, version = _contents(session, person, origin, name)
    action = {Kind.PERSONAL: "create", Kind.SHARED: "promote", Kind.IMAGE: "promote"}.get(
        target.kind, "publish"
    )
    if (origin, name) == (target, wanted):
        raise BadRequest("same_place", N_("Give the copy another name or another place."))
    request = jobs.Request(
        action,
        target,
        wanted,
        person.name,
        spec=named(_text(spec, "environment.yml"), wanted),
        words=_words(words),
        lock=lock,
        origin={"source": origin.source, "owner": origin.owner, "name": name, "version": version},
        address=address,
    )
    return jobs.enqueue(session, request, limits)


def delete(
    session: Session,
    person: Person,
    limits: Builds,
    tier: Tier,
    name: object,
    address: str | None = None,
) -> EnvironmentBuild:
    """Ask for an environment to be deleted with all its versions; refused later when in use."""
    wanted = check_name(name)
    _check_tier(tier)
    check_change(person, tier)
    request = jobs.Request("delete", tier, wanted, person.name, address=address)
    return jobs.enqueue(session, request, limits)


def look(session: Session, person: Person, limits: Builds) -> EnvironmentBuild | None:
    """Ask for a look at what the person made in a terminal; None where there was one just now."""
    tier = Tier(Kind.PERSONAL, person.name)
    last = jobs.last_look(session, tier)
    if last is not None:
        if last.state in jobs.LIVE or utcnow() - last.queued_at < LOOK_AGAIN:
            return None
        session.delete(last)
    return jobs.enqueue(session, jobs.Request("look", tier, "", person.name), limits)


def find_build(session: Session, person: Person, job_id: str) -> EnvironmentBuild:
    """A job that the person may see: their own, and those of tiers that they may change."""
    job = jobs.get(session, job_id)
    if job is None or not may_follow(person, job):
        raise NotThere("no_build", N_("There is no such build. It may have been removed since."))
    return job


def may_follow(person: Person, job: EnvironmentBuild) -> bool:
    """Whether a job's log is this person's business."""
    if person.admin or job.requested_by == person.name:
        return True
    return person.position(jobs.tier_of(job)) in ("lead", "instructor")


def cancel(session: Session, person: Person, job_id: str) -> EnvironmentBuild:
    """Ask for a job to end."""
    job = find_build(session, person, job_id)
    if job.state not in jobs.LIVE:
        raise NotAvailable("build_ended", N_("This build has ended already."))
    jobs.cancel(session, job_id)
    return job


def retry(
    session: Session, person: Person, limits: Builds, job_id: str, address: str | None = None
) -> EnvironmentBuild:
    """Ask again for what failed or was cancelled; as oneself, with today's rights."""
    job = find_build(session, person, job_id)
    if job.state not in (BuildState.FAILED, BuildState.CANCELLED):
        raise NotAvailable("build_not_failed", N_("This build has not failed."))
    tier = jobs.tier_of(job)
    check_change(person, tier)
    request = jobs.Request(
        job.action,
        tier,
        job.name,
        person.name,
        spec=job.spec,
        words=job.words,
        lock=job.lock,
        origin=job.origin,
        version=job.version if job.action == "decide" else None,
        address=address,
    )
    return jobs.enqueue(session, request, limits)


def named(spec: str, name: str) -> str:
    """An environment.yml with another name in it, its lines where they were."""
    return _NAME_LINE.sub(f"name: {name}", spec, count=1)


def _text(value: object, file: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(
            "no_spec",
            N_("{file} is empty; paste its contents, or choose the file."),
            {"file": file},
        )
    if len(value) > MAX_SPEC:
        raise BadRequest(
            "spec_too_long",
            N_("{file} is longer than {limit} characters; list fewer packages."),
            {"file": file, "limit": MAX_SPEC},
        )
    if "\0" in value:
        raise BadRequest("spec_not_text", N_("{file} is not text."), {"file": file})
    return value


def _words(value: object) -> str:
    """The text of a labcommons.yml, where there is one, looked at before anybody waits for it."""
    if not value or (isinstance(value, str) and not value.strip()):
        return ""
    text = _text(value, "labcommons.yml")
    try:
        parse_about(text, "labcommons.yml")
    except SpecError as error:
        raise BadRequest(
            "words_wrong", N_("It cannot be used: {reason}"), {"reason": error}
        ) from error
    return text


def _check_tier(tier: Tier) -> None:
    if tier.kind is Kind.IMAGE:
        raise NotAllowed(
            "image_tier",
            N_(
                "Image environments are built by an administrator with “labcommons env build”; "
                "promote one to have it built."
            ),
        )


def image_versions(session: Session, person: Person) -> dict[str, list[CatalogEntry]]:
    """The image environments that a person may start a server with, newest version first."""
    return {
        name: versions
        for name, versions in catalog.newest(session, offered_only=True).items()
        if versions and (person.admin or versions[0].allows(person.teams, person.courses))
    }


def image_history(session: Session, person: Person, name: str) -> list[CatalogEntry]:
    """All versions of an image environment, newest first, also those not offered any more."""
    return [
        entry
        for entry in catalog.newest(session).get(name, [])
        if person.admin or entry.allows(person.teams, person.courses)
    ]


def find_version(
    session: Session, person: Person, tier: Tier, name: object, version: str = ""
) -> CatalogEntry | TierEnvironment:
    """A version by its name or tag; without one, that which people use. Raises SpawnerError."""
    check_see(person, tier)
    wanted = check_name(name)
    found: Sequence[CatalogEntry | TierEnvironment]
    used: CatalogEntry | TierEnvironment | None
    if tier.kind is Kind.IMAGE:
        images = image_history(session, person, wanted)
        found, used = images, next((entry for entry in images if entry.is_offered), None)
    else:
        rows = shelf.versions(session, tier, wanted)
        found, used = rows, next((row for row in rows if row.current), None)
    if not found:
        raise NotThere("no_environment", NO_ENVIRONMENT, {"name": wanted, "tier": tier.source})
    if not version:
        return used or found[0]
    for entry in found:
        if version in (entry.version, entry.tag):
            return entry
    raise NotThere(
        "no_version",
        N_("“{name}” has no version “{version}”; there are: {versions}."),
        {
            "name": wanted,
            "version": version[:64],
            "versions": ", ".join(entry.version for entry in found),
        },
    )


def check_offered(found: CatalogEntry | TierEnvironment) -> None:
    """Raises NotAvailable for a version that was withdrawn."""
    if found.state == "withdrawn":
        raise NotAvailable(
            "environment_withdrawn",
            N_("Version {version} of “{name}” was withdrawn: {reason}. Choose another one."),
            {
                "version": found.version,
                "name": found.name,
                "reason": (found.withdrawn_reason or "-").rstrip("."),
            },
        )


def no_export(name: str, version: str) -> NotThere:
    """A version that was built before exports were kept."""
    return NotThere(
        "no_export",
        N_(
            "No export of “{name}” {version} is kept. An administrator has it made with "
            "“labcommons env build {name}”."
        ),
        {"name": name, "version": version},
    )


def _contents(
    session: Session, person: Person, origin: Tier, name: str
) -> tuple[str, str, str, str]:
    """environment.yml, labcommons.yml, lock and version of an environment. Raises NotThere."""
    if origin.kind is Kind.IMAGE:
        versions = image_versions(session, person).get(name)
        if versions:
            entry = versions[0]
            return _spec_of(entry), "", "", entry.version
        for entry in image_history(session, person, name)[:1]:
            check_offered(entry)
    else:
        row = shelf.current(session, origin, name)
        if row is not None:
            check_offered(row)
            return row.spec, row.words, row.lock, row.version
    raise NotThere("no_environment", NO_ENVIRONMENT, {"name": name, "tier": origin.source})


def _spec_of(entry: CatalogEntry) -> str:
    """An environment.yml with the versions that an image environment has."""
    versions: Mapping[str, Any] = {item["name"]: item["version"] for item in entry.packages}
    names = ["python", "ipykernel", *(item["name"] for item in entry.main_packages)]
    channels = [
        "conda-forge" if _OFFLINE in channel else channel for channel in entry.channels
    ] or ["conda-forge"]
    lines = [
        f"name: {entry.name}",
        "channels:",
        *(f"  - {channel}" for channel in dict.fromkeys(channels)),
        "dependencies:",
        *(f"  - {n}=={versions[n]}" for n in dict.fromkeys(names) if n in versions),
    ]
    return "\n".join(lines) + "\n"
