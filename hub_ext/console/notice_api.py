"""REST for what people have to be told: their notices, and what they hold, for the notebook."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import BadRequest, NotAllowed
from commons.i18n import N_
from commons.leases import LeaseState
from commons.messages import Text
from commons.store.models import GpuWatch, Lease
from commons.web.operations import Route, operation
from commons.web.pages import timezone_of
from commons.web.refused import Refused
from hub_ext.console import gpu_schemas as schemas
from hub_ext.console import own_notices
from hub_ext.console.handlers import Api
from spawner.culling import culler
from spawner.gpu import views

# The notebook's own words come with its notices, so that they are in the same language.
WORDS = {
    "extend": N_("Extend by an hour"),
    "keep": N_("Keep the server"),
    "answer": N_("Answer or end it"),
    "until": N_("GPU until {time}"),
    "held": N_("GPU"),
    "details": N_("{gpus}. The server ends at {time}."),
    "endless": N_("{gpus}. The server has no time limit."),
    "shared": N_("shared, not isolated"),
    "simulated": N_("simulated"),
    "more": N_("What to do"),
    "close": N_("Close"),
    "open": N_("Open a copy"),
    "refuse": N_("No more from {name}"),
    "send": N_("Send a Copy to a Colleague or Team…"),
    "run_as_job": N_("Run as a Job…"),
    "send_to": N_("To whom? A login name, or team-NAME, course-NAME"),
    "send_now": N_("Send"),
    "send_bare": N_("Send without outputs"),
    "sent": N_("Sent to {name}."),
    "sent_to_group": N_(
        "Sent to {count} of {name}. Who has not signed in here yet got none: send it again later."
    ),
    "no_environment": N_(
        "It was made in {environment}, which this server does not have. To run it as it was made, "
        "start a server with that environment."
    ),
    "no_kernel": N_(
        "Its kernel “{kernel}” is not among yours. Choose another, or ask {name} to share the "
        "environment with you."
    ),
    "start_one": N_("Start such a server"),
    "inbox": N_("Inbox"),
    # Faults of the server's own part, by its codes (labcommons_sending).
    "not_a_notebook_file": N_("Only notebooks can be sent, and this file is none."),
    "too_large": N_("The notebook is too large to be sent. Send it without its outputs."),
    "too_large_to_read": N_(
        "The notebook is too large to be sent, without its outputs, too. Put it into a shared "
        "folder."
    ),
    "inbox_unusable": N_(
        "The folder “inbox” in your home cannot be written to: it is no folder, or the disk is "
        "full. Rename what has that name, or make room."
    ),
    "too_many_copies": N_("There are too many copies of this notebook in “inbox”. Delete some."),
    "unavailable": N_("The console does not answer. Try again in a minute."),
}


class NoticesApi(Api):
    """``GET api/v1/notices``."""

    @operation("What one has to be told, newest first", schemas.Notices, servers=True, exams=True)
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
            ).all()
            watched = session.scalars(
                select(GpuWatch).where(GpuWatch.lease_id.in_([row.id for row in held]))
            )
            known = views.known(session)
            return {
                "notices": [_notice(notice) for notice in notices.show(session, name, _, timezone)],
                "leases": [views.lease(row, known, say) for row in held],
                "gpu_percent": {row.lease_id: row.gpu_percent for row in watched},
                "words": {key: _(word) for key, word in WORDS.items()},
            }

        self.reply(await self.read(work))

    @operation(
        "What a server has to tell its owner",
        schemas.Noted,
        body=schemas.OwnNotice,
        servers=True,
        exams=True,
    )
    async def post(self, body: schemas.OwnNotice) -> None:
        """Told by the server whose token it is; the word of its owner."""
        viewer = self.viewer
        if viewer.server is None:
            raise Refused(NotAllowed(SERVERS_ALONE()), self._)
        server = viewer.server
        known = [(size.title or name, size.memory_bytes) for name, size in self.site.sizes.items()]

        def work(session: Session) -> int | None:
            return own_notices.add(session, viewer.name, server, body.model_dump(), known)

        self.reply({"id": await self.change(work)})


SERVERS_ALONE = Text("servers_alone", N_("Only a server may tell this, with its own token."))
IDS_WRONG = Text("ids_wrong", N_("“ids” must be numbers of notices."))


class SeenApi(Api):
    """``POST api/v1/notices/seen`` with ``{"ids": [1, 2]}``."""

    @operation(
        "Notices have been seen", schemas.Changed, body=schemas.Seen, servers=True, exams=True
    )
    async def post(self, body: schemas.Seen) -> None:
        """The viewer has seen these of their notices."""
        ids = body.ids
        if not all(isinstance(one, int) and 0 < one < 2**31 for one in ids):
            raise Refused(BadRequest(IDS_WRONG()), self._)
        name = self.viewer.name
        changed = await self.change(lambda session: notices.mark_seen(session, name, ids))
        self.reply({"changed": changed})


class KeepApi(Api):
    """``POST api/v1/servers/keep`` with ``{"server": ""}``."""

    @operation(
        "Do not stop a server of one's own for want of use, for a while",
        schemas.Kept,
        body=schemas.Keep,
        servers=True,
    )
    async def post(self, body: schemas.Keep) -> None:
        """The viewer's; "" is the default one."""
        name, server, now = self.viewer.name, body.server, time.time()
        until = await self.change(lambda session: culler.keep(session, name, server, now))
        self.reply({"keep_until": _time(datetime.fromtimestamp(until, UTC).replace(tzinfo=None))})


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
        "more": notice.more,
        "ended": notice.ended,
        "notebook": notice.notebook,
        "sender": notice.sender,
    }


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds") + "Z"


ROUTES = (
    Route("/api/v1/notices", NoticesApi),
    Route("/api/v1/notices/seen", SeenApi),
    Route("/api/v1/servers/keep", KeepApi),
)
