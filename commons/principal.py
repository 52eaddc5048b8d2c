"""Who asks: one kind of person, whether a hub's group, auth_state or a token says who they are.

What they may do is in ``commons.rights``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from commons.errors import NotAllowed
from commons.i18n import N_
from commons.messages import Text
from commons.scopes import (
    SCOPES,
    Keeper,
    Scope,
    owners,
    positions_in,
)
from commons.site import Site
from commons.tokens import server_of

# Admins' tokens carry it unless they were made for less; a server's token never does, so that
# what runs in an administrator's notebook is no administrator here.
ADMIN_SCOPE = "admin-ui"


NO_UID = Text(
    "no_uid",
    N_(
        "The directory's account number of “{user}” is not known. Log out and in again; if "
        "that does not help, ask an administrator to set uidNumber."
    ),
)


@dataclass(frozen=True)
class Principal:
    """Somebody, as the hub or the directory knows them.

    Attributes:
        admin: an administrator of the site, who is no lead by that.
        positions: what they are in teams, courses and the like (``scopes.Position.word``).
        uid, gid, gids: the directory's numbers, where it said them; ``gids`` without ``gid``.
        language: the one that the directory says; may be empty.
        token_scopes: of the token that asks, as JupyterHub writes them.
        server: the server of theirs whose token it is that asks; None where they do themselves.
            A server has its owner's name and nothing else that the owner is or leads: what runs
            in it is whatever they have installed.
    """

    name: str
    admin: bool = False
    positions: Mapping[Scope, str] = field(default_factory=dict)
    uid: int | None = None
    gid: int | None = None
    gids: tuple[int, ...] = ()
    language: str = ""
    token_scopes: frozenset[str] = frozenset()
    server: str | None = None

    def __post_init__(self) -> None:
        if self.server is not None and (self.admin or self.positions):
            raise ValueError("a server has its owner's name and nothing else")

    @classmethod
    def from_hub(cls, model: Mapping[str, Any]) -> Principal:
        """From the hub's model of a person and the token that asks."""
        name, scopes = str(model["name"]), frozenset(map(str, model.get("scopes") or ()))
        server = server_of(name, scopes)
        if server is not None:
            return cls(name, token_scopes=scopes, server=server)
        admin = bool(model.get("admin")) and ADMIN_SCOPE in scopes
        return cls.from_groups(name, admin, model.get("groups") or (), scopes)

    @classmethod
    def from_groups(
        cls,
        name: str,
        admin: bool,
        groups: Iterable[object],
        token_scopes: frozenset[str] = frozenset(),
    ) -> Principal:
        """From the hub's groups."""
        return cls(name, admin, positions_in(map(str, groups)), token_scopes=token_scopes)

    @classmethod
    def from_auth_state(cls, name: str, admin: bool, state: Mapping[str, Any]) -> Principal:
        """From the hub's auth_state, or what else has its ``teams`` and ``courses``."""
        positions = {
            Scope(row.name, group): str(position)
            for row in SCOPES.values()
            if row.section
            for group, position in dict(state.get(row.section) or {}).items()
            if any(position == one.word for one in row.positions)
        }
        try:
            uid, gid = int(state["uid"]), int(state["gid"])
        except (KeyError, TypeError, ValueError):
            return cls(name, admin, positions, language=str(state.get("language") or ""))
        return cls(
            name,
            admin,
            positions,
            uid,
            gid,
            tuple(int(number) for number in state.get("gids") or () if int(number) != gid),
            str(state.get("language") or ""),
        )

    @classmethod
    def assumed(cls, name: str, scopes: Iterable[Scope], admin: bool = False) -> Principal:
        """Taken for a lead of these scopes: by a command, before the hub asks who they are."""
        rows = ((scope, scope.row.positions) for scope in scopes)
        return cls(name, admin, {scope: found[0].word for scope, found in rows if found})

    def position(self, scope: Scope) -> str:
        """``lead``, ``member``, ``instructor``, ``student``, …, or empty for somebody else."""
        return self.positions.get(scope, "")

    def leads(self, scope: Scope) -> bool:
        """Whether they look after a group."""
        word = self.position(scope)
        return any(one.leads and one.word == word for one in scope.row.positions)

    def assists(self, scope: Scope) -> bool:
        """Whether they help those who look after a group with its people."""
        word = self.position(scope)
        return any(one.assists and one.word == word for one in scope.row.positions)

    @property
    def scopes(self) -> list[Scope]:
        """The scopes whose environments they can use, in the order of the table."""
        return [
            scope
            for row in SCOPES.values()
            for scope in (
                [Scope(row.name)]
                if row.keeper is Keeper.SITE
                else [Scope(row.name, self.name)]
                if row.keeper is Keeper.PERSON
                else sorted(
                    (scope for scope in self.positions if scope.kind == row.name),
                    key=lambda scope: scope.owner,
                )
            )
        ]

    @property
    def accounts(self) -> tuple[str, ...]:
        """Whom they may charge; the first one is meant without a word.

        That is the only team; who is in none, and a student of one course, charges that; or they.
        """
        charged = [scope for scope in self.scopes if scope.account]
        groups = [scope for scope in charged if scope.keeper is Keeper.GROUP]
        first = [scope for scope in groups if scope.row.charged_first]
        first = first or [scope for scope in groups if not self.leads(scope)]
        first = first if len(first) == 1 else []
        own = [scope for scope in charged if scope.keeper is Keeper.PERSON]
        return tuple(dict.fromkeys(scope.account for scope in (*first, *own, *charged)))

    @property
    def led(self) -> list[Scope]:
        """The groups that they look after."""
        return [scope for scope in self.scopes if self.leads(scope)]

    def numbers(self) -> tuple[int, int, tuple[int, ...]]:
        """uid, gid and other gids. Raises NotAllowed where the directory did not say them."""
        if self.uid is None or self.gid is None:
            raise NotAllowed(NO_UID(user=self.name))
        return self.uid, self.gid, self.gids

    def group_ids(self, site: Site) -> dict[int, str]:
        """The numbers that their containers get for teams, courses and the like: their names."""
        numbers: dict[int, str] = {}
        for scope, pair in owners(site).items():
            if self.position(scope):
                numbers[pair.members] = scope.owner
            if self.leads(scope):
                numbers[pair.leads] = f"{scope.owner}-leads"
        return dict(sorted(numbers.items()))
