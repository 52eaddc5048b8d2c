"""A spawn waits for its GPUs: outside the hub's start time-out, telling the person why.

The lease is the place in the queue. A closed browser changes nothing; a hub that goes down
keeps it, and the next one takes it up again; whoever gives up gives it back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import tzinfo
from typing import Any

from hub_ext.i18n import N_, Gettext
from hub_ext.store.models import LeaseState
from spawner.errors import NotAvailable, SpawnerError
from spawner.gpu.admission import Admission, Ask, Standing
from spawner.gpu.reasons import moment, sentence
from spawner.gpu.state import Reason

# What the person is told: an event of the hub's progress stream.
Tell = Callable[[dict[str, Any]], None]


class Refused(SpawnerError):
    """The request is not to be granted; all reasons, for people and for programs."""

    def __init__(self, reasons: tuple[Reason, ...], status: int) -> None:
        super().__init__(reasons[0].code if reasons else "gpu_refused", "")
        self.reasons = reasons
        self.status = status

    def sentence(self, gettext: Gettext = lambda message: message) -> str:
        """All reasons, one sentence after the other."""
        return " ".join(explain(self.reasons, gettext)) or gettext(
            N_("These GPUs cannot be had now. Ask for fewer, or try again later.")
        )


def explain(reasons: tuple[Reason, ...], gettext: Gettext, zone: tzinfo | None = None) -> list[str]:
    """Reasons as sentences."""
    return [sentence(reason, gettext, zone, time.time()) for reason in reasons]


async def obtain(
    admission: Admission, ask: Ask, tell: Tell, gettext: Gettext, zone: tzinfo | None = None
) -> Standing:
    """Ask, and wait until the slots are the server's own.

    Raises Refused where it cannot be or must not wait, NotAvailable when somebody has taken it
    from the queue, StoreError. When the waiting is cancelled the place is given back, except
    where the hub itself is stopping.
    """
    standing = await admission.submit(ask)
    if not standing.lease:
        raise Refused(standing.reasons, 409 if not ask.wait else 400)
    watch = admission.watch(standing.lease)
    try:
        while not standing.held:
            if standing.state is LeaseState.ENDED:
                raise _taken_away()
            tell(queue_event(standing, gettext, zone))
            standing = await watch.next()
    except asyncio.CancelledError:
        admission.give_up(standing.lease)
        raise
    finally:
        admission.unwatch(standing.lease)
    return standing


def queue_event(standing: Standing, gettext: Gettext, zone: tzinfo | None = None) -> dict[str, Any]:
    """A progress event: a sentence for reading, and ``queue`` for the page to draw."""
    verdict = standing.verdict
    words = explain(standing.reasons, gettext, zone)
    message = gettext(N_("Waiting in the queue"))
    queue: dict[str, Any] = {"position": None, "expected_start": None}
    if verdict is not None:
        queue = {"position": verdict.position, "expected_start": verdict.expected_start}
        message = gettext(N_("Number {position} in the queue")).format(position=verdict.position)
        if verdict.expected_start is not None:
            at = moment(verdict.expected_start, gettext, zone, time.time())
            message += gettext(N_(", expected to start: {time}")).format(time=at)
    queue["reasons"] = [
        {"code": reason.code, "data": dict(reason.data), "sentence": text}
        for reason, text in zip(standing.reasons, words, strict=True)
    ]
    return {"progress": 5, "message": ". ".join([message, *words]), "queue": queue}


def _taken_away() -> NotAvailable:
    return NotAvailable(
        "left_the_queue",
        N_("The request was taken from the queue. Start the server again to ask anew."),
    )
