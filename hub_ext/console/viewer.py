"""Who looks at the console, and what of it is theirs: from the hub's groups and scopes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hub_ext.credentials import server_of

# Admins' tokens carry it unless they were made for less; a server's token never does, so that
# what runs in an administrator's notebook is no administrator here.
ADMIN_SCOPE = "admin-ui"


@dataclass(frozen=True)
class Viewer:
    """A person who is logged in.

    Attributes:
        accounts: what they may charge besides themselves: ``group:NAME``, ``course:NAME``.
        leads: the accounts among these that they look after, as lead or instructor.
        groups: the hub's groups that they are in.
        server: the server of theirs whose token it is that asks; None where they do themselves.
            A server has its owner's name and nothing else that the owner is or leads: what runs
            in it is whatever they have installed.
    """

    name: str
    admin: bool = False
    accounts: tuple[str, ...] = ()
    leads: frozenset[str] = frozenset()
    groups: tuple[str, ...] = ()
    server: str | None = None

    @classmethod
    def from_model(cls, model: Mapping[str, Any]) -> Viewer:
        """From the hub's model of a person and their token."""
        user, scopes = str(model["name"]), model.get("scopes") or ()
        server = server_of(user, scopes)
        if server is not None:
            return cls(user, server=server)
        accounts, leads = [], set()
        for group in sorted(map(str, model.get("groups") or ())):
            match group.split(":"):
                case ["team", name]:
                    accounts.append(f"group:{name}")
                case ["team", name, "leads"]:
                    leads.add(f"group:{name}")
                case ["course", name, position]:
                    accounts.append(f"course:{name}")
                    if position == "instructors":
                        leads.add(f"course:{name}")
        return cls(
            name=user,
            admin=bool(model.get("admin")) and ADMIN_SCOPE in scopes,
            accounts=tuple(dict.fromkeys(accounts)),
            leads=frozenset(leads),
            groups=tuple(map(str, model.get("groups") or ())),
        )

    def looks_after(self, user: str, account: str) -> bool:
        """Whether a person's lease, charged to an account, is theirs to see and to end."""
        return self.admin or user == self.name or account in self.leads

    def may_read(self, subject: str) -> bool:
        """Whether what is set for a subject of the quotas document is theirs to know."""
        own = {"default", "settings", f"user:{self.name}", *self.accounts}
        return self.admin or subject in own or subject in self.leads
