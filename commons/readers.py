"""How each person reads, kept with their name: language by choice and directory, and time zone.

Hub, console and kernels service meet a person at each request, so whichever page has the switch,
all of them, the person's servers, their tokens and their mails follow. What is made of it is
``commons.i18n.language_for`` and ``timezone_for``.
"""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

from commons.i18n import LANGUAGES, Reader, choose_timezone
from commons.site import Site
from commons.store import Store, StoreError
from commons.store.models import KeptReader

log = logging.getLogger("labcommons.readers")
_LONGEST = 64  # characters of what a directory says


class Readers:
    """Of one process. ``language`` and ``timezone`` are the site's."""

    def __init__(self, store: Store, site: Site) -> None:
        self._store = store
        self.language, self.timezone = site.site.language, site.servers.timezone

    async def known(self, name: str) -> Reader:
        """What is kept of a person; nothing where the database does not answer."""
        return await self.meet(name)

    async def meet(
        self, name: str, *, chosen: str = "", timezone: str = "", directory: str | None = None
    ) -> Reader:
        """Keep what is new about a person (empty: nothing new), and say what is known of them."""
        new = {
            "chosen": chosen if chosen in LANGUAGES else "",
            "timezone": str(choose_timezone(timezone)) if timezone else "",
        }
        found = {key: value for key, value in new.items() if value}
        if directory is not None:
            found["directory"] = directory[:_LONGEST]
        try:
            reader = await self._store.read(lambda session: _read(session, name))
            if any(getattr(reader, key) != value for key, value in found.items()):
                reader = await self._store.run(lambda session: _keep(session, name, found))
        except StoreError as error:
            log.warning("how %s reads is not known: %s", ascii(name), error)
            reader = Reader(**found)
        return reader


def _read(session: Session, name: str) -> Reader:
    row = session.get(KeptReader, name)
    return Reader(row.chosen, row.directory, row.timezone) if row else Reader()


def _keep(session: Session, name: str, found: dict[str, str]) -> Reader:
    row = session.get(KeptReader, name)
    if row is None:
        row = KeptReader(username=name, chosen="", directory="", timezone="")
        session.add(row)
    for key, value in found.items():
        setattr(row, key, value)
    session.flush()
    return Reader(row.chosen, row.directory, row.timezone)
