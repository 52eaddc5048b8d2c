"""REST for what people have to be told: their notices, and what they hold, for the notebook."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub_ext.console.handlers import Api, Refused
from hub_ext.i18n import N_
from hub_ext.pages import timezone_of
from hub_ext.store.models import Lease, LeaseState
from spawner.gpu import board, notices

# The notebook's own words come with its notices, so that they are in the same language.
WORDS = {
    "extend": N_("Extend by an hour"),
    "keep": N_("Keep the server"),
    "until": N_("GPU until {time}"),
    "held": N_("GPU"),
    "details": N_("{gpus}. The server ends at {time}."),
    "endless": N_("{gpus}. The server has no time limit."),
    "shared": N_("shared, not isolated"),
    "simulated": N_("simulated"),
}


class NoticesApi(Api):
    """``GET api/v1/notices``."""

    for_servers = ("GET",)

    async def get(self) -> None:
        """The viewer's notices, newest first, and the leases of their servers that run."""
        name, say, _ = self.viewer.name, self.say, self._
        timezone = timezone_of(self)

        def work(session: Session) -> dict[str, Any]:
            held = session.scalars(
                select(Lease).where(
                    Lease.username == name,
                    Lease.state.in_((LeaseState.HELD, LeaseState.ACTIVE)),
                )
            )
            devices = board.known_devices(session)
            return {
                "notices": [_notice(notice) for notice in notices.show(session, name, _, timezone)],
                "leases": [board.lease(row, devices, say) for row in held],
                "words": {key: _(word) for key, word in WORDS.items()},
            }

        self.reply(await self.read(work))


class SeenApi(Api):
    """``POST api/v1/notices/seen`` with ``{"ids": [1, 2]}``."""

    for_servers = ("POST",)

    async def post(self) -> None:
        """The viewer has seen these of their notices."""
        ids = self.body(ids=list)["ids"] or []
        if not all(isinstance(one, int) and 0 < one < 2**31 for one in ids):
            raise Refused(400, "ids_wrong", self._(N_("“ids” must be numbers of notices.")))
        name = self.viewer.name
        changed = await self.change(lambda session: notices.mark_seen(session, name, ids))
        self.reply({"changed": changed})


def _notice(notice: notices.Notice) -> dict[str, Any]:
    return {
        "id": notice.id,
        "at": _time(notice.at),
        "code": notice.code,
        "level": notice.level,
        "sentence": notice.sentence,
        "actions": list(notice.actions),
        "lease": notice.lease_id,
        "server": notice.server,
        "seen": notice.seen,
    }


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds") + "Z"
