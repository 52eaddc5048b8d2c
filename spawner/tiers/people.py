"""People as the hub keeps them (auth_state): their numbers and their positions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hub_ext.i18n import N_
from spawner.container import Identity
from spawner.errors import NotAllowed
from spawner.tiers.rights import Person


@dataclass(frozen=True)
class Requester:
    """Who asked for a build; ``identity`` is None for an administrator at the shell."""

    person: Person
    identity: Identity | None


def identity_of(name: str, auth_state: Mapping[str, Any]) -> Identity:
    """The directory's numbers of a person. Raises NotAllowed where they are not known."""
    try:
        uid, gid = int(auth_state["uid"]), int(auth_state["gid"])
    except (KeyError, TypeError, ValueError) as error:
        raise NotAllowed(
            "no_uid",
            N_(
                "The directory's account number of “{user}” is not known. Log out and in "
                "again; if that does not help, ask an administrator to set uidNumber."
            ),
            {"user": name},
        ) from error
    gids = tuple(int(g) for g in auth_state.get("gids", ()) if int(g) != gid)
    return Identity(name, uid, gid, gids)


def person_in(name: str, admin: bool, auth_state: Mapping[str, Any]) -> Person:
    """A person with the positions that auth_state says (docs/architecture.md, Contracts)."""
    return Person(
        name,
        admin,
        dict(auth_state.get("teams") or {}),
        dict(auth_state.get("courses") or {}),
    )
