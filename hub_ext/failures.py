"""Why a server's start has failed, in the words of who looks."""

from __future__ import annotations

from typing import Any

from commons.i18n import N_
from commons.web.pages import locale_of
from commons.web.refused import Said
from hub_ext.jupyterhub_words import translated

CANCELLED = N_("Spawn cancelled")
TOOK_TOO_LONG = N_(
    "The server took too long to start. Start it again; if it fails again, tell an administrator."
)
IN_THE_LOG = N_(
    "The reason is in the hub's log. Try again; if it fails again, tell an administrator."
)


def failure(handler: Any, username: str, server: str) -> str:
    """Of the last start of a person's server; ``handler``: one of the hub's."""
    user = handler.find_user(username)
    spawner = user.spawners.get(server) if user else None
    start = spawner._spawn_future if spawner else None
    locale = locale_of(handler)
    if start is not None and start.cancelled():
        return locale.gettext(CANCELLED)
    error = start.exception() if start is not None and start.done() else None
    said = getattr(error, "jupyterhub_message", "")
    if isinstance(said, Said):
        return said.error.sentence(locale)
    if getattr(error, "reason", "") == "timeout":
        return locale.gettext(TOOK_TOO_LONG)
    return translated(said or IN_THE_LOG, locale.gettext)
