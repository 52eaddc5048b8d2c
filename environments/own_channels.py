"""What the site's own channels are called, in environment.yml, in locks and on the disk. Pure.

A channel's name is ``site``, ``team-NAME`` or ``course-NAME``: a name that conda takes, which
means the same in an environment.yml here and beside a ``.condarc`` of anywhere else. Locks keep a
URL that is nowhere (RFC 2606), as of all that has no address of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from commons.errors import BadRequest
from commons.messages import Message
from commons.principal import Principal
from commons.rights import Action, can
from commons.scopes import NAME, SCOPES, SITE, Keeper, Scope, groups_of_site
from commons.site import Site
from environments.messages import channels as texts

SITE_CHANNEL = "site"
URL = "https://channels.labcommons.invalid/"
# Below the data folder; in each channel's the link to what is served.
FOLDER, CURRENT = "channels", "current"
_GROUPS = tuple(row.name for row in SCOPES.values() if row.keeper is Keeper.GROUP)


def is_own(channel: str) -> bool:
    """Whether a channel of an environment.yml is one of the site's own, there or not."""
    kind, _, owner = channel.partition("-")
    return channel == SITE_CHANNEL or (kind in _GROUPS and bool(NAME.fullmatch(owner)))


def called(channel: str) -> str | None:
    """The name of one of the site's own, written as that or as a lock has it; None of others."""
    return channel if is_own(channel) else in_url(channel)


def url_of(channel: str) -> str:
    """What locks keep of one."""
    return f"{URL}{channel}/"


def in_url(url: str) -> str | None:
    """The name of the channel that a lock's URL is of; None of any other."""
    name = url.removeprefix(URL).partition("/")[0]
    return name if url.startswith(URL) and is_own(name) else None


def name_of(scope: Scope) -> str:
    """The name of a scope's channel."""
    return SITE_CHANNEL if scope.keeper is Keeper.SITE else scope.source


def scope_of(channel: str) -> Scope:
    """The scope of a channel. Raises BadRequest for what is none."""
    if channel == SITE_CHANNEL:
        return SITE
    if is_own(channel):
        kind, _, owner = channel.partition("-")
        return Scope(kind, owner)
    raise BadRequest(texts.UNKNOWN(channel=channel[:80]))


def of_site(site: Site) -> list[Scope]:
    """The scopes that have a channel."""
    return [SITE, *groups_of_site(site)]


def known(channel: str, site: Site) -> Scope:
    """The scope of a channel that there is here. Raises BadRequest."""
    scope = scope_of(channel)
    if scope not in of_site(site):
        raise BadRequest(texts.UNKNOWN(channel=channel[:80]))
    return scope


def readable(viewer: Principal, site: Site) -> list[Scope]:
    """The scopes whose channels somebody may read."""
    return [one for one in of_site(site) if can(viewer, Action.READ_CHANNEL, one)]


def place(data: Path, channel: str) -> Path:
    """Where the packages and the index of a channel are, which need not be there yet."""
    return data / FOLDER / channel / CURRENT


def usable(scope: Scope, person: Principal, site: Site) -> list[str]:
    """The channels that an environment of a scope may have packages from; ``person`` builds it.

    Whoever may use the environment has its packages: a group's are for its own environments and for
    those of its members, the site's are for all.
    """
    if scope.keeper is Keeper.PERSON:
        mine = [one for one in of_site(site) if one == SITE or person.position(one)]
        return list(map(name_of, mine))
    return [SITE_CHANNEL] if scope.keeper is Keeper.SITE else [SITE_CHANNEL, name_of(scope)]


def problem(channels: Iterable[str], allowed: Collection[str]) -> Message | None:
    """Why packages may not come from some channels, of which those are ``allowed``; or None."""
    for channel in channels:
        name = called(channel)
        if name is not None and name not in allowed:
            return texts.NOT_HERE(channel=name)
    return None
