"""What changed, as a stream that many can listen to and take up again where they left.

Server-sent events (HTML Living Standard, 9.2). Each event is encoded once, however many
listen. A listener that does not keep up is dropped: it comes back with the id of the last
event it saw, and gets what it missed, or ``reset`` where that is not known any more.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# Events that are remembered for those who come back.
REMEMBERED = 1000
# Events that may wait for one listener.
WAITING = 100
RESET = "reset"
HELLO = "hello"
KEEP_ALIVE = b": keep-alive\n\n"


@dataclass(frozen=True)
class Event:
    """One event, for those who may see one of its sources; None is for everybody."""

    id: str
    sources: tuple[str, ...] | None
    encoded: bytes


@dataclass(eq=False)
class Listener:
    """One who listens. ``queue`` ends with None when the stream is to end."""

    who: str
    may_see: Callable[[str], bool]
    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(WAITING + 1))
    dropped: bool = False

    def give(self, event: Event) -> None:
        """Give an event, if it is this listener's business."""
        if event.sources is None or any(self.may_see(source) for source in event.sources):
            self.put(event.encoded)

    def put(self, data: bytes) -> None:
        """Give data, or drop a listener with too much waiting already."""
        if self.dropped:
            return
        if self.queue.qsize() >= WAITING:
            self.drop()
        else:
            self.queue.put_nowait(data)

    def drop(self) -> None:
        """End this listener's stream; what still waits is forgotten."""
        if not self.dropped:
            self.dropped = True
            while not self.queue.empty():
                self.queue.get_nowait()
            self.queue.put_nowait(None)


class EventLog:
    """Publishes events to listeners. For one event loop."""

    def __init__(self) -> None:
        # A restart begins anew: ids of an earlier life are known by their first part.
        self._life = secrets.token_hex(4)
        self._number = 0
        self._events: deque[Event] = deque(maxlen=REMEMBERED)
        self.listeners: set[Listener] = set()

    @property
    def last_id(self) -> str:
        """The id of the newest event."""
        return f"{self._life}-{self._number}"

    def publish(self, kind: str, data: dict[str, Any], *sources: str) -> None:
        """Tell everybody who may see one of the sources; without any, everybody."""
        self._number += 1
        event = Event(self.last_id, sources or None, encode(kind, data, self.last_id))
        self._events.append(event)
        for listener in list(self.listeners):
            listener.give(event)

    def reset(self) -> None:
        """Tell everybody to look at the whole list again; for when very much changed."""
        self._events.clear()
        self.publish(RESET, {})

    def listen(self, who: str, may_see: Callable[[str], bool], last_id: str | None) -> Listener:
        """A new listener, who gets what came after ``last_id``, and all that comes.

        Who comes for the first time gets ``hello``, whose id is one to come back with.
        """
        listener = Listener(who, may_see)
        missed = self._since(last_id) if last_id else []
        if missed is None:
            listener.put(encode(RESET, {}, self.last_id))
        elif not missed:
            listener.put(encode(HELLO, {}, self.last_id))
        else:
            for event in missed:
                listener.give(event)
        self.listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """End listening; harmless to repeat."""
        self.listeners.discard(listener)

    def keep_alive(self) -> None:
        """Give everybody a line, so that no proxy takes the silence for an end."""
        for listener in list(self.listeners):
            listener.put(KEEP_ALIVE)

    def close(self) -> None:
        """End all streams."""
        for listener in list(self.listeners):
            listener.drop()

    def _since(self, last_id: str) -> list[Event] | None:
        """What came after an id; None where that is not known, or more than may wait."""
        life, _, number = last_id.partition("-")
        if life != self._life or not number.isascii() or not number.isdigit():
            return None
        first = self._number - len(self._events) + 1
        wanted = int(number[:18]) + 1
        if wanted > self._number + 1 or wanted < first or self._number - wanted >= WAITING // 2:
            return None
        return list(self._events)[wanted - first :]


def encode(kind: str, data: dict[str, Any], event_id: str) -> bytes:
    """One event as it goes over the wire. JSON has no line breaks of its own."""
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()
