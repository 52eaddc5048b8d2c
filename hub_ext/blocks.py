"""People who are shut out here (``commons.store.blocks``): the hub knows them, and cuts them off.

Cut off is every request of theirs, with a cookie or a token, from the moment at which the hub has
read of it, which is within seconds; their logins end, so that a cookie is worth nothing afterwards
either. Tokens that they made themselves are kept, and work again when the block is over. A server
that goes on may say that it is used, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from commons.store import Store, blocks
from commons.store.blocks import Block
from commons.store.models import utcnow
from hub_ext.sessions import end_sessions
from jobs import records
from spawner import stops

INTERVAL = 2.0  # seconds between two looks


class Blocks:
    """Those that count, as they were last read; ``look`` is called again and again."""

    def __init__(self, app: Any, store: Store, log: logging.Logger) -> None:
        self._app, self._store, self._log = app, store, log
        self._now: Mapping[str, Block] = {}
        self._stamp: object = None

    def of(self, name: str) -> Block | None:
        """What keeps somebody out now."""
        found = self._now.get(name)
        return found if found is not None and found.lasts(utcnow()) else None

    async def ask(self, name: str) -> Block | None:
        """As ``of``, read anew. Raises StoreError."""
        return await self._store.read(lambda session: blocks.of(session, name))

    async def look(self) -> None:
        """Read them, and carry out what is new. Raises StoreError; what was known stays then."""
        stamp = self._store.stamp()
        if stamp is not None and stamp == self._stamp:
            return
        self._now = await self._store.read(blocks.standing)
        self._stamp = stamp
        for block in [one for one in self._now.values() if not one.acted]:
            await self._carry_out(block)

    async def _carry_out(self, block: Block) -> None:
        # Killed in between, the next hub does it once more: all of it can be.
        user = self._app.users.get(block.username)
        if user is not None:
            end_sessions(user)
            user._auth_refreshed = None  # the authenticator is asked at the next request
        running = [name for name, one in (user.spawners if user else {}).items() if one.active]

        def write(session: Session) -> None:
            if block.stops:
                for server in running:
                    stops.announce(session, block.username, server, block.by, block.reason)
                unfinished = records.mine(session, block.username, over=False)
                records.cancel(session, unfinished, block.by)
            blocks.acted(session, block)

        await self._store.run(write)
        self._log.warning("event=blocked name=%s by=%s", block.username, block.by)
