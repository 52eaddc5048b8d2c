"""What is done with servers from the console: a message, more time, a stop that is told.

A stop is a row that the hub carries out within seconds (``spawner.stops``): a console that is
killed has either asked for it or has not.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from commons import notices
from commons.errors import BadRequest, WrongValue
from commons.i18n import N_
from commons.messages import Locale, Message, Text
from commons.one_line import one_line
from commons.principal import Principal
from commons.rights import NO_SERVER, Action, can
from commons.store.models import utcnow
from commons.units import parse_duration
from hub_ext.console.server_views import Server
from spawner import stops
from spawner.gpu.ledger import transitions
from spawner.stops import MOST

DOES = ("message", "extend", "stop")
MOST_SERVERS = 2000
LONGEST = 24 * 3600  # seconds, of more time and of grace

NOTHING_CHOSEN = Text("servers_nobody", N_("Choose a server first; at most {most} at once."))
NO_MESSAGE = Text("servers_message", N_("A message has 1 to {most} characters."))
TIME_WRONG = Text("servers_time", N_("Say a time of at most {hours} hours, such as 30m."))
NO_END = Text("servers_no_end", N_("It has no time limit that could be moved."))
NOT_EXTENDED = Text("servers_not_extended", N_("It may not run longer: {reasons}"))


@dataclass(frozen=True)
class Wanted:
    """What is to be done, and with which; ``seconds``: more time, or until the stop."""

    do: str
    who: tuple[str, ...]
    message: str = ""
    seconds: int = 0

    @classmethod
    def read(cls, do: str, who: Sequence[str], message: str = "", time: str | int = "") -> Wanted:
        """From a form or from JSON. Raises BadRequest."""
        chosen = tuple(dict.fromkeys(one[:600] for one in who))
        if not 0 < len(chosen) <= MOST_SERVERS:
            raise BadRequest(NOTHING_CHOSEN(most=MOST_SERVERS))
        words = one_line(message)
        if len(message) > MOST or (do == "message" and not words):
            raise BadRequest(NO_MESSAGE(most=MOST))
        usual = "30m" if do == "extend" else ""
        try:
            seconds = parse_duration(time or usual) if time or usual else 0
        except WrongValue:
            seconds = LONGEST + 1
        if seconds > LONGEST or (do == "extend" and seconds < 60):
            raise BadRequest(TIME_WRONG(hours=LONGEST // 3600))
        return cls(do, chosen, words, seconds)


@dataclass
class Done:
    """With which it was done, and with which not, and why."""

    done: list[str] = field(default_factory=list)
    left: list[tuple[str, Message]] = field(default_factory=list)

    def as_json(self, locale: Locale) -> dict[str, Any]:
        """For REST."""
        left = [{"who": key, "reason": why.as_json(locale)} for key, why in self.left]
        return {"done": self.done, "left": left}


def chosen(
    wanted: Wanted, viewer: Principal, there: Mapping[str, Server]
) -> tuple[list[Server], Done]:
    """Those with which it may be done; the others are ``left``, as if they were not there."""
    found, done = [], Done()
    for key in wanted.who:
        one = there.get(key)
        if one is None or not can(viewer, Action.RUN_SERVER, one.run.resource):
            done.left.append((key, NO_SERVER.text()))
        elif wanted.do == "extend" and not one.limited:
            done.left.append((key, NO_END()))
        else:
            found.append(one)
    return found, done


def act(session: Session, wanted: Wanted, by: str, found: Sequence[Server], done: Done) -> None:
    """Do it, with those that ``chosen`` gave; what is not possible is ``left``."""
    works: Mapping[str, Callable[..., None]] = {
        "stop": _stop, "message": _message, "extend": _extend,
    }  # fmt: skip
    works[wanted.do](session, wanted, by, found, done)


def _stop(session: Session, wanted: Wanted, by: str, found: Sequence[Server], done: Done) -> None:
    at = utcnow() + timedelta(seconds=wanted.seconds) if wanted.seconds else None
    for one in found:
        stops.announce(session, one.run.user, one.run.server, by, wanted.message, at)
        done.done.append(one.run.key)


def _message(
    session: Session, wanted: Wanted, by: str, found: Sequence[Server], done: Done
) -> None:
    cause = uuid.uuid4().hex
    for name in dict.fromkeys(one.run.user for one in found):
        notices.add(
            session,
            username=name,
            lease_id=None,
            code="server_message",
            data={"by": by, "message": wanted.message},
            key=f"said:{cause}:{name[:100]}",
        )
    done.done += [one.run.key for one in found]


def _extend(session: Session, wanted: Wanted, by: str, found: Sequence[Server], done: Done) -> None:
    for one in found:
        lease = transitions.of_server(session, one.run.user, one.run.server)
        if lease is None or lease.ends_at is None:
            done.left.append((one.run.key, NO_END()))
            continue
        added, reasons = transitions.extend(session, lease.id, wanted.seconds)
        if added:
            done.done.append(one.run.key)
        else:
            done.left.append((one.run.key, NOT_EXTENDED(reasons=reasons)))
