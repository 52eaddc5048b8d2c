"""The stream of events: who listens, for how long, and who is dropped."""

from __future__ import annotations

import asyncio
import random
from functools import partial

from tornado.iostream import StreamClosedError

from commons.errors import NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.web.operations import operation
from commons.web.refused import Refused
from kernels.service.handlers import Api
from kernels.service.schemas import After
from kernels.service.visible import may_see

# Seconds: a listener that takes longer to take an event is dropped; after so long, one has to
# come back, so that rights that were taken away end.
SEND_TIMEOUT, LISTEN_AT_MOST = 20.0, 900.0
KEEP_ALIVE = 20.0
# Streams, in all and of one person.
LISTENERS, LISTENERS_EACH = 2000, 20

TOO_MANY_STREAMS = Text("too_many_streams", N_("Too many open streams; close a few pages."))


class Events(Api):
    """``GET api/v1/events``: changes as they happen (server-sent events)."""

    @operation(
        "Changes as they happen: server-sent events added, changed, removed (an environment), "
        "source, hello, reset (read the list again)",
        media="text/event-stream",
        headers={"Last-Event-ID": "takes the stream up again"},
        query=After,
        refusals={429: "too many open streams"},
    )
    async def get(self, query: After) -> None:
        """``Last-Event-ID``, or ``last_event_id`` in the query, takes the stream up again."""
        viewer, log = self.viewer, self.registrar.events
        mine = [one for one in log.listeners if one.who == viewer.name]
        if len(log.listeners) >= LISTENERS or len(mine) >= LISTENERS_EACH:
            raise Refused(NotAvailable(TOO_MANY_STREAMS()), self._, 429, retry_after=60)
        last_id = self.request.headers.get("Last-Event-ID") or query.last_event_id
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")
        self.listener = log.listen(viewer.name, partial(may_see, viewer), last_id)
        end = asyncio.get_running_loop().call_later(LISTEN_AT_MOST, self.listener.drop)
        try:
            # Not all at once, when many come back after a restart.
            self.write(f"retry: {random.randint(2000, 6000)}\n\n")  # noqa: S311
            await self._send()
        except (StreamClosedError, TimeoutError):
            pass
        finally:
            end.cancel()
            log.leave(self.listener)

    async def _send(self) -> None:
        while True:
            await asyncio.wait_for(self.flush(), SEND_TIMEOUT)
            data = await self.listener.queue.get()
            while data is not None:
                self.write(data)
                if self.listener.queue.empty():
                    break
                data = self.listener.queue.get_nowait()
            if data is None:
                return

    def on_connection_close(self) -> None:
        """The listener has gone."""
        if hasattr(self, "listener"):
            self.listener.drop()
