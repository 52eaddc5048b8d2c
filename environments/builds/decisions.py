"""What is decided about a built version: pinned, tagged, deprecated, withdrawn; in every scope.

A decision is in the store at once. Outside images a job then writes it into the version's own
folder, where kernels and ``labcommons env current`` read it, with the numbers of who built it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

from sqlalchemy.orm import Session

from commons.errors import BadRequest, NotAllowed, NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.one_line import is_one_line
from commons.principal import Principal
from commons.rights import Action, check
from commons.scopes import Scope
from commons.site import Builds
from commons.store.environments import EnvironmentBuild, ScopeEnvironment
from commons.store.models import utcnow
from environments import catalog
from environments.about import is_tag
from environments.builds import queue, repository, service
from environments.catalog import CatalogEntry

What = Literal["pin", "tag", "deprecate", "withdraw"]
WHATS: tuple[str, ...] = get_args(What)
MAX_REASON = 500  # characters


UNKNOWN_DECISION = Text(
    "unknown_decision", N_("“{what}” cannot be decided about a version; there are {known}.")
)
NOT_A_TAG = Text("not_a_tag", N_("“{tag}” is no semantic version. Write for example 1.2.0."))
NO_REASON = Text(
    "no_reason", N_("Say why, for those who use it: one line of at most {limit} characters.")
)
IMAGE_TAG = Text("image_tag", N_("The tag of an image environment is in its labcommons.yml (tag)."))
TAG_TAKEN = Text(
    "tag_taken",
    N_("The tag {tag} is version {version} of “{name}”, with other packages; raise it."),
)


def decide(
    session: Session,
    person: Principal,
    limits: Builds,
    scope: Scope,
    name: str,
    version: str,
    what: What,
    value: str | None,
    address: str | None = None,
) -> tuple[CatalogEntry | ScopeEnvironment, EnvironmentBuild | None]:
    """Decide about a version; ``value`` is the reason or tag, "" to pin, None takes it back.

    Returns the version as it is now, and the job that tells its folder. Raises LabError.
    """
    if what not in WHATS:
        raise BadRequest(UNKNOWN_DECISION(what=str(what)[:40], known=", ".join(WHATS)))
    check(person, Action.DECIDE, scope)
    found = service.find_version(session, person, scope, name, version)
    if value is not None and what != "pin":
        value = _checked(what, value)
    if isinstance(found, CatalogEntry):
        return _image(session, found, what, value), None
    _set(session, found, scope, what, value)
    session.flush()
    if what == "pin":
        return found, None
    request = queue.BuildRequest(
        "decide", scope, found.name, person.name, version=found.version, address=address
    )
    return found, queue.enqueue(session, request, limits)


def _checked(what: What, value: object) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if what == "tag" and is_tag(text):
        return text
    if what == "tag":
        raise BadRequest(NOT_A_TAG(tag=text[:40]))
    if not text or len(text) > MAX_REASON or not is_one_line(text):
        raise BadRequest(NO_REASON(limit=MAX_REASON))
    return text


def _image(session: Session, entry: CatalogEntry, what: What, value: str | None) -> CatalogEntry:
    if what == "tag":
        raise NotAllowed(IMAGE_TAG())
    if what == "pin":
        return catalog.pin(session, entry.name, entry.version, value is not None)
    change = catalog.deprecate if what == "deprecate" else catalog.withdraw
    return change(session, entry.name, entry.version, value)


def _set(
    session: Session, row: ScopeEnvironment, scope: Scope, what: What, value: str | None
) -> None:
    when: datetime | None = utcnow() if value is not None else None
    match what:
        case "pin":
            row.pinned = value is not None
        case "tag":
            if value is not None:
                check_tag(session, scope, row.name, value, row.lock_digest)
            row.tag = value
        case "deprecate":
            row.deprecated_at, row.deprecated_reason = when, value
        case "withdraw":
            row.withdrawn_at, row.withdrawn_reason = when, value


def check_tag(session: Session, scope: Scope, name: str, tag: str, lock_digest: str) -> None:
    """A tag is one set of packages for ever. Raises NotAvailable."""
    for row in repository.versions(session, scope, name):
        if row.tag == tag and row.lock_digest != lock_digest:
            raise NotAvailable(TAG_TAKEN(tag=tag, version=row.version, name=name))


def notes(row: ScopeEnvironment) -> dict[str, str | None]:
    """What a version's folder says of the decisions about it."""
    return {
        "tag": row.tag,
        "deprecated": row.deprecated_at.date().isoformat() if row.deprecated_at else None,
        "withdrawn": (row.withdrawn_reason or "-") if row.withdrawn_at else None,
    }
