"""Servers of teams' and courses' own accounts, which several people use at a time: in the store.

A row says what such a server is started with, who may enter and who may start it, and as what it is
asked for: the hub's keeper (``hub_ext.shared_keeper``) makes it so. Who may what is
``commons.rights``; here is what a server's own row adds to it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.errors import BadRequest, LabError, NotAvailable
from commons.i18n import N_
from commons.messages import Locale, Message, Text
from commons.principal import Principal
from commons.rights import Action, Verdict, can
from commons.scopes import Scope, groups_of_site, parse_source
from commons.shared_accounts import name_of, principal
from commons.site import Site
from commons.store.models import SharedServer, utcnow
from commons.web import origins
from spawner import options
from spawner.gpu.views import iso

MOST = 5  # of one team or course
# As JupyterHub has names of servers; they are in addresses.
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LONGEST_NAME = 30

NO_SUBDOMAINS = Text(
    "shared_no_subdomains",
    N_(
        "Shared servers need a host for each server (site.subdomains in the site file): on one "
        "host, a page of such a server could do in its visitors’ own servers whatever they can."
    ),
)
SHARED_UNKNOWN = Text("shared_unknown", N_("“{scope}” has no shared server “{name}”."))
SHARED_NAME = Text(
    "shared_name",
    N_("“{name}” is no name of a server: up to 30 small letters, digits and single hyphens."),
)
SHARED_MOST = Text("shared_most", N_("“{scope}” has {most} shared servers already; remove one."))
SHARED_NOT_STOPPED = Text("shared_not_stopped", N_("Stop “{name}” first, then remove it."))
SHARED_SCOPE = Text(
    "shared_scope", N_("“{scope}” is no team or course here; write one of: {known}.")
)


class State(StrEnum):
    """What a server is, or is asked to be."""

    STOPPED = "stopped"
    ASKED = "asked"  # to start
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"  # asked to stop, or stopping
    FAILED = "failed"  # it did not start; the reason says why


UP = (State.ASKED, State.STARTING, State.RUNNING)
DOWN = (State.STOPPED, State.FAILED)


def scope_in_site(source: str, site: Site) -> Scope:
    """The team or course that ``course-ml101`` names. Raises BadRequest (404)."""
    known = groups_of_site(site)
    try:
        scope = parse_source(source, "")
    except BadRequest:
        scope = None
    if scope not in known or scope is None:
        raise gone(SHARED_SCOPE(scope=source[:80], known=[one.source for one in known]))
    return scope


def scope_of(row: SharedServer) -> Scope:
    """Whose it is."""
    return parse_source(row.scope, "")


def may_enter(viewer: Principal, row: SharedServer) -> Verdict:
    """Whether somebody may go in."""
    action = Action.RUN_SHARED if row.leads_only else Action.ENTER_SHARED
    return can(viewer, action, scope_of(row))


def may_run(viewer: Principal, row: SharedServer) -> Verdict:
    """Whether somebody may start and stop it."""
    if row.members_run:
        return may_enter(viewer, row)
    return can(viewer, Action.RUN_SHARED, scope_of(row))


def groups_in(row: SharedServer) -> set[str]:
    """The hub's groups whose people may go in."""
    scope = scope_of(row)
    return {
        position.groups[-1].replace("{name}", scope.owner)
        for position in scope.row.positions
        if position.leads or position.assists or not row.leads_only
    }


def check_site(site: Site) -> None:
    """Raises NotAvailable where a server would have its visitors' own origin."""
    if not origins.own_hosts(site):
        raise NotAvailable(NO_SUBDOMAINS())


# -- what people do -------------------------------------------------------------------------------


def all_of(session: Session, scopes: Collection[Scope] | None = None) -> list[SharedServer]:
    """Those of some teams and courses; without: all."""
    query = select(SharedServer).order_by(SharedServer.scope, SharedServer.name)
    if scopes is not None:
        query = query.where(SharedServer.scope.in_([one.source for one in scopes]))
    return list(session.scalars(query))


def get(session: Session, scope: Scope, name: str) -> SharedServer:
    """One. Raises BadRequest (404)."""
    row = session.get(SharedServer, (scope.source, name[:LONGEST_NAME]))
    if row is None:
        raise gone(SHARED_UNKNOWN(scope=scope.source, name=name[:80]))
    return row


def save(
    session: Session,
    scope: Scope,
    name: str,
    asked: Mapping[str, Any],
    site: Site,
    by: str,
    *,
    leads_only: bool = False,
    members_run: bool = True,
) -> SharedServer:
    """Make one, or change what the next start is with. Raises NotAvailable, BadRequest, NotAllowed.

    It is charged to the team or course, whatever is asked.
    """
    check_site(site)
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise BadRequest(SHARED_NAME(name=name[:80]))
    wanted = {**asked, "account": scope.account}
    person = principal(scope)
    catalog = options.offered(session, person, packages=False)
    options.resolve(options.parse(wanted), catalog, site, person)
    row = session.get(SharedServer, (scope.source, name))
    if row is None:
        if len(all_of(session, [scope])) >= MOST:
            raise NotAvailable(SHARED_MOST(scope=scope.source, most=MOST))
        row = SharedServer(
            scope=scope.source,
            name=name,
            created_by=by[:255],
            state=State.STOPPED,
            at=utcnow(),
            by="",
            people=[],
        )
        session.add(row)
    row.user_options, row.leads_only, row.members_run = wanted, leads_only, members_run
    session.flush()
    return row


def ask(session: Session, row: SharedServer, up: bool, by: str, site: Site) -> None:
    """Have it started or stopped; nothing where it is so already. Raises NotAvailable."""
    if up:
        check_site(site)
    if (row.state in UP) is up or (row.state == State.ENDING and not up):
        return
    if not up or row.state in DOWN:
        row.state = State.ASKED if up else State.ENDING
        row.at, row.by, row.reason = utcnow(), by[:255], None


def remove(session: Session, row: SharedServer) -> None:
    """Its name; the account's files stay. Raises NotAvailable while it runs."""
    if row.state not in DOWN:
        raise NotAvailable(SHARED_NOT_STOPPED(name=row.name))
    session.delete(row)


def show(row: SharedServer, viewer: Principal, locale: Locale | None = None) -> dict[str, Any]:
    """One as plain data, ready for JSON; who is in it is for who may go in."""
    locale, enters = locale or Locale(), bool(may_enter(viewer, row))
    return {
        "scope": row.scope,
        "name": row.name,
        "account": name_of(scope_of(row)),
        "options": row.user_options,
        "leads_only": row.leads_only,
        "members_run": row.members_run,
        "state": row.state,
        "at": iso(row.at),
        "by": row.by,
        "reason": Message.from_json(row.reason).as_json(locale) if row.reason else None,
        "people": row.people if enters and row.state == State.RUNNING else [],
        "may_enter": enters,
        "may_run": bool(may_run(viewer, row)),
    }


def visible(session: Session, viewer: Principal, site: Site) -> list[SharedServer]:
    """Those that somebody may enter, or start."""
    rows = all_of(session, groups_of_site(site))
    return [row for row in rows if is_visible(viewer, row)]


def shown(session: Session, scope: Scope, viewer: Principal) -> list[dict[str, Any]]:
    """Those of one team or course that somebody is told of, as ``show`` tells them."""
    rows = all_of(session, [scope])
    return [show(row, viewer) for row in rows if is_visible(viewer, row)]


def is_visible(viewer: Principal, row: SharedServer) -> bool:
    """Whether somebody is told that it is there."""
    return bool(may_enter(viewer, row) or may_run(viewer, row))


# -- what the hub's keeper does --------------------------------------------------------------------


def move(
    session: Session,
    key: tuple[str, str],
    before: Collection[State],
    to: State,
    reason: Message | None = None,
) -> bool:
    """Write what it has become, where it is still what it was seen as; whether it was."""
    row = session.get(SharedServer, key)
    if row is None or row.state not in before:
        return False
    if row.state != to:
        row.state, row.at, row.reason = to, utcnow(), reason.as_json() if reason else None
    if to is not State.RUNNING:
        row.people = []
    return True


def note_people(session: Session, key: tuple[str, str], people: Collection[str]) -> None:
    """Who is in it."""
    row = session.get(SharedServer, key)
    if row is not None and row.people != sorted(people):
        row.people = sorted(people)


def gone(message: Message) -> LabError:
    """What is not there, or not for who asks; to be raised."""
    error = BadRequest(message)
    error.status = 404
    return error
