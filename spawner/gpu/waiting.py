"""A spawn waits for its GPUs: outside the hub's start time-out, telling the person why.

The lease is the place in the queue. A closed browser changes nothing; a hub that goes down
keeps it, and the next one takes it up again; whoever gives up gives it back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import tzinfo
from functools import partial
from typing import Any

from commons.errors import LabError, NotAvailable
from commons.i18n import N_, Gettext
from commons.leases import LeaseState
from commons.messages import ENGLISH, Locale, Text, listed, verbatim
from spawner.gpu.ledger.batches import Admission, Ask, Standing
from spawner.gpu.policy.reasons import moment, sentence
from spawner.gpu.policy.state import Reason

# What the person is told: an event of the hub's progress stream, in the words of who reads it.
Said = Callable[[Locale], dict[str, Any]]
Tell = Callable[[Said], None]


LEFT_THE_QUEUE = Text(
    "left_the_queue",
    N_("The request was taken from the queue. Start the server again to ask anew."),
)


GPU_REFUSED = Text(
    "gpu_refused", N_("These GPUs are not available now. Ask for fewer, or try again later.")
)


class NotGranted(LabError):
    """The request is not to be granted; all reasons, for people and for programs."""

    def __init__(self, reasons: tuple[Reason, ...], status: int) -> None:
        super().__init__(reasons[0] if reasons else GPU_REFUSED(), *reasons)
        self.status = status

    def sentence(self, locale: Locale | Gettext = ENGLISH) -> str:
        """All reasons, one sentence after the other."""
        locale = locale if isinstance(locale, Locale) else Locale(locale, now=time.time())
        return listed(self.reasons or (self.message,), locale)


def explain(reasons: tuple[Reason, ...], gettext: Gettext, zone: tzinfo | None = None) -> list[str]:
    """Reasons as sentences."""
    return [sentence(reason, gettext, zone, time.time()) for reason in reasons]


async def obtain(admission: Admission, ask: Ask, tell: Tell) -> Standing:
    """Ask, and wait until the slots are the server's own.

    Raises NotGranted where it cannot be or must not wait, NotAvailable when somebody has taken it
    from the queue, StoreError. When the waiting is cancelled the place is given back, except
    where the hub itself is stopping.
    """
    standing = await admission.submit(ask)
    if not standing.lease:
        raise NotGranted(standing.reasons, 409 if not ask.wait else 400)
    watch = admission.watch(standing.lease)
    try:
        while not standing.held:
            if standing.state is LeaseState.ENDED:
                raise _taken_away()
            tell(partial(queue_event, standing))
            standing = await watch.next()
    except asyncio.CancelledError:
        admission.give_up(standing.lease)
        raise
    finally:
        admission.unwatch(standing.lease)
    return standing


def queue_event(standing: Standing, locale: Locale) -> dict[str, Any]:
    """A progress event: a sentence for reading, and ``queue`` for the page to draw."""
    verdict, gettext, zone = standing.verdict, locale.gettext, locale.timezone
    words = explain(standing.reasons, gettext, zone)
    message = gettext(N_("Waiting in the queue."))
    queue: dict[str, Any] = {"position": None, "expected_start": None}
    if verdict is not None:
        queue = {"position": verdict.position, "expected_start": verdict.expected_start}
        message = gettext(N_("Number {position} in the queue.")).format(position=verdict.position)
        if verdict.expected_start is not None:
            at = moment(verdict.expected_start, gettext, zone, time.time())
            message = gettext(
                N_("Number {position} in the queue, expected to start: {time}.")
            ).format(position=verdict.position, time=at)
    queue["reasons"] = [
        {"code": reason.code, "data": dict(reason.params), "sentence": text}
        for reason, text in zip(standing.reasons, words, strict=True)
    ]
    return {
        "progress": 5,
        "message": listed([verbatim(one) for one in (message, *words)], Locale(gettext)),
        "queue": queue,
    }


def _taken_away() -> NotAvailable:
    return NotAvailable(LEFT_THE_QUEUE())
