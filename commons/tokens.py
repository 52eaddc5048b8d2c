"""What a token is by its scopes: a person's own, or one that a server of theirs holds."""

from __future__ import annotations

from collections.abc import Collection

_SERVER = "access:servers!server="


def server_of(user: str, scopes: Collection[str]) -> str | None:
    """The server (a user's, by its name; ``""`` is the default one) that holds a token.

    None for a token that a person made or logged in with. JupyterHub gives each server's token
    the right to tell its activity, and none to make tokens; whatever has the one without the
    other is taken for a server's. ``"?"``, which is no server's name, where it is not said whose.
    """
    if any(scope.split("!")[0] in ("tokens", "admin:users") for scope in scopes):
        return None
    own = [scope.removeprefix(_SERVER) for scope in scopes if scope.startswith(_SERVER)]
    if not own and not any(scope.split("!")[0] == "users:activity" for scope in scopes):
        return None
    names = [name.removeprefix(f"{user}/") for name in own if name.startswith(f"{user}/")]
    return names[0] if len(names) == 1 else "?"
