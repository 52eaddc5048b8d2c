"""Accounts of teams and courses: whose the servers are that their people use together.

Such an account is nobody's. Its name is none that a directory can have (those begin with a letter
or a digit), its numbers follow from the team's or course's, as those of folders do, and it is in
that team or course and in nothing else.
"""

from __future__ import annotations

from typing import Any

from commons.errors import BadRequest
from commons.principal import Principal
from commons.scopes import Keeper, Scope, account_number, parse_source

MARK = "_"


def name_of(scope: Scope) -> str:
    """The account's name in the hub, such as ``_course-ml101``."""
    return f"{MARK}{scope.source}"


def scope_of(name: str) -> Scope | None:
    """Whose account a name is; None for a person's, and for one that cannot be."""
    if not name.startswith(MARK):
        return None
    try:
        scope = parse_source(name.removeprefix(MARK), "")
    except BadRequest:
        return None
    return scope if scope.keeper is Keeper.GROUP else None


def auth_state(scope: Scope) -> dict[str, Any]:
    """What the directory says of people, of the account (docs/architecture.md, Contracts)."""
    number = account_number(scope)
    # The lowest position: it reads what the members read.
    position = {scope.row.section: {scope.owner: scope.row.positions[-1].word}}
    return {"uid": number, "gid": number, "gids": [], "display_name": scope.source, **position}


def principal(scope: Scope) -> Principal:
    """As whom its servers are started."""
    return Principal.from_auth_state(name_of(scope), False, auth_state(scope))
