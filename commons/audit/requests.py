"""What of a request is in the trail: refusals, changes, and looks at what is another's.

A change that has an action of its own elsewhere (a login, a start, a quota) is recorded there; this
is for what JupyterHub does by itself, whoever asks for it: page, program or command.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from commons.audit.events import Outcome

# The same refusal of the same person is one line in so many seconds.
ONCE_IN, REMEMBERED = 60.0, 10_000
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# Asked for all day by programs, or recorded where it is decided.
_BESIDES = re.compile(r"/hub/(login|logout|api/oauth2/token|api/ssh|api/users/[^/]+/activity)$")
_CHANGES = (
    (re.compile(r"/hub/api/users/[^/]+/tokens(/|$)"), "token-change"),
    (re.compile(r"/hub/api/groups(/|$)"), "group-change"),
    (re.compile(r"/hub/api/(shares|share-codes)(/|$)"), "share-change"),
    (re.compile(r"/hub/api/users/[^/]+/servers?(/|$)|/hub/spawn(/|$)"), "server-request"),
    (re.compile(r"/hub/api/users(/[^/]+)?$"), "user-change"),
    (re.compile(r"/hub/"), "hub-change"),
)
_OF_A_PERSON = re.compile(r"/hub/(?:api/users|spawn|spawn-pending|stopped)/([^/]+)(?:/|$)")
_AUTHORIZE = re.compile(r"/hub/api/oauth2/authorize$")


@dataclass(frozen=True)
class Seen:
    """What is recorded of a request."""

    action: str
    outcome: Outcome
    reason: str = ""
    about: str = ""  # whose, where it is another's


def of_hub(
    method: str, uri: str, status: int, name: str, token: bool, owner_of: Callable[[str], str]
) -> Seen | None:
    """What is recorded of a request to the hub; None for nothing.

    Args:
        uri: with the query, of which nothing but a client's name is looked at.
        name: who asked, "" for nobody; a service as ``service:NAME``.
        token: it came with a token (Authorization).
        owner_of: whose server an OAuth client is; "" for none.
    """
    path, _, query = uri.partition("?")
    if _BESIDES.search(path):
        return None
    if status == 403 and (name or token):
        return Seen("access-denied", "failure", "" if name else "bad_token")
    if not name or status >= 400:
        return None
    return _change(path, name) if method not in _SAFE else _look(path, query, name, owner_of)


def _change(path: str, name: str) -> Seen | None:
    action = next((action for words, action in _CHANGES if words.search(path)), "")
    return Seen(action, "success", about=_whose(path, name)) if action else None


def _look(path: str, query: str, name: str, owner_of: Callable[[str], str]) -> Seen | None:
    if name.startswith("service:"):
        return None
    if _AUTHORIZE.search(path):
        owner = owner_of(parse_qs(query).get("client_id", [""])[0])
        return Seen("look", "success", "entered", owner) if owner not in ("", name) else None
    other = _whose(path, name)
    return Seen("look", "success", "read", other) if other else None


def _whose(path: str, name: str) -> str:
    """Whose it is, where that is somebody else."""
    found = _OF_A_PERSON.search(path)
    owner = unquote(found[1]) if found else ""
    return owner if owner != name else ""


class Recently:
    """What was recorded a moment ago: a program that asks on and on fills no disk."""

    def __init__(self) -> None:
        self._at: dict[tuple[str, ...], float] = {}

    def new(self, *what: str) -> bool:
        """Whether it was not there within a minute; it is from now on."""
        now = time.monotonic()
        if now - self._at.get(what, -ONCE_IN) < ONCE_IN:
            return False
        if len(self._at) >= REMEMBERED:
            self._at = {key: at for key, at in self._at.items() if now - at < ONCE_IN}
            if len(self._at) >= REMEMBERED:
                self._at.clear()
        self._at[what] = now
        return True
