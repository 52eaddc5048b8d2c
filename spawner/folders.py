"""What a person finds in a server beside the home: told before it starts."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypedDict

from commons.i18n import Gettext
from commons.principal import Principal
from commons.scopes import owners
from commons.site import Site, words_in


class Folder(TypedDict):
    """One folder: where it is in a server, and whether the person may write there."""

    path: str
    title: str
    writable: bool


def folders_of(
    person: Principal, site: Site, mounts: Collection[str], lang: str, gettext: Gettext
) -> list[Folder]:
    """Files of the person's teams and courses, then the site's own folders, by their names.

    ``mounts``: those of ``servers.mounts`` that the server gets.
    """
    known, sources = owners(site), [scope.source for scope in person.scopes]
    found: list[Folder] = [
        {
            "path": f"~/shared/{scope.source}",
            "title": scope.title(gettext),
            "writable": scope.row.members_write or person.leads(scope),
        }
        for scope in person.scopes
        if scope in known
    ]
    for name in mounts:
        mount = site.servers.mounts[name]
        found.append(
            {
                "path": mount.places(person.name)[1],
                "title": words_in(mount.title, lang) if mount.title else name,
                "writable": mount.is_writable(sources),
            }
        )
    return found
