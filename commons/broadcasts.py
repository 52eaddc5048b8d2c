"""Messages to everybody: a text in one or two languages, with a kind, a begin and an end, shown on
every page and in every JupyterLab while it lasts.

The rows are in the store; ``Board`` is what a service shows without asking it for each page.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from commons import messages, notices
from commons.errors import BadRequest, WrongValue
from commons.i18n import N_, NP_, Gettext, in_context
from commons.messages import Locale, Text, verbatim
from commons.one_line import one_line
from commons.store.database import Store, StoreError
from commons.store.models import Broadcast, utcnow
from commons.units import parse_duration

log = logging.getLogger(__name__)

KINDS = ("info", "warning")
MAINTENANCE = "maintenance"
LANGUAGES = ("en", "zh_CN")
MOST = 500  # characters of a text
AT_ONCE = 5  # messages; more are read by nobody
LONGEST = timedelta(days=90)
KEPT = timedelta(days=90)  # after which one that is over is no longer listed
AHEAD = timedelta(days=1)  # before its begin everybody is told of a maintenance
FRESH = 2.0  # seconds for which what was read is shown
# The code of this language, to choose among the texts.
_LANGUAGE = NP_("the code of this language", "en")

TEXT_WRONG = Text(
    "broadcast_text",
    N_("A message needs a text of at most {most} characters, in English, Chinese or both."),
)
KIND_WRONG = Text("broadcast_kind", N_("A message is “info” or “warning”."))
TIME_WRONG = Text(
    "broadcast_time",
    N_(
        "“{value}” is no time. Write for example 2026-11-24T18:00, which is in the time zone, or "
        "2h."
    ),
)
END_WRONG = Text(
    "broadcast_end", N_("The end must be after the begin and after now, within {days} days.")
)
TOO_MANY = Text("broadcast_too_many", N_("There are {most} messages already. Withdraw one first."))
UNKNOWN = Text("broadcast_unknown", N_("There is no message “{id}”, or it is over."))


@dataclass(frozen=True)
class Shown:
    """A message while it lasts; times in UTC without zone."""

    id: str
    kind: str
    texts: Mapping[str, str]
    starts_at: datetime
    ends_at: datetime | None
    stop_at: datetime | None = None

    def lasts(self, now: datetime) -> bool:
        """Whether it is to be seen."""
        begins = self.starts_at - (AHEAD if self.kind == MAINTENANCE else timedelta())
        return begins <= now and (self.ends_at is None or now < self.ends_at)


def moment(value: object, timezone: str, base: datetime) -> datetime:
    """A time in UTC without zone: wall time in ``timezone``, or a duration after ``base``.

    Raises BadRequest.
    """
    text = str(value or "").strip()
    try:
        if "T" in text or "-" in text:
            found = datetime.fromisoformat(text)
            zoned = found if found.tzinfo else found.replace(tzinfo=ZoneInfo(timezone))
            return zoned.astimezone(UTC).replace(tzinfo=None)
        return base + timedelta(seconds=parse_duration(text))
    except (ValueError, WrongValue, OverflowError, OSError, KeyError) as error:
        raise BadRequest(TIME_WRONG(value=text[:40])) from error


def texts_of(en: object, zh: object) -> dict[str, str]:
    """The texts by language, in one line each. Raises BadRequest."""
    found = {}
    for language, given in zip(LANGUAGES, (en, zh), strict=True):
        if given is not None and not isinstance(given, str):
            raise BadRequest(TEXT_WRONG(most=MOST))
        if words := one_line(given or ""):
            found[language] = words
    if not found or any(len(words) > MOST for words in found.values()):
        raise BadRequest(TEXT_WRONG(most=MOST))
    return found


def send(
    session: Session,
    *,
    kind: str,
    en: object = None,
    zh: object = None,
    starts: object = None,
    until: object,
    timezone: str = "UTC",
    by: str,
    now: datetime | None = None,
) -> Broadcast:
    """Write a message down. ``starts`` and ``until`` as ``moment`` reads them; a duration of
    ``until`` is counted from the begin. Raises BadRequest.
    """
    now = now or utcnow()
    if kind not in KINDS:
        raise BadRequest(KIND_WRONG())
    texts = texts_of(en, zh)
    starts_at = moment(starts, timezone, now) if starts else now
    ends_at = moment(until, timezone, max(starts_at, now))
    if not max(now, starts_at) < ends_at <= now + LONGEST:
        raise BadRequest(END_WRONG(days=LONGEST.days))
    if sum(row.kind in KINDS for row in standing(session, now)) >= AT_ONCE:
        raise BadRequest(TOO_MANY(most=AT_ONCE))
    row = Broadcast(
        id=uuid.uuid4().hex[:12],
        kind=kind,
        texts=texts,
        starts_at=starts_at,
        ends_at=ends_at,
        created_by=by[:255],
        created_at=now,
        withdrawn_by="",
    )
    session.add(row)
    session.flush()
    return row


def standing(session: Session, now: datetime | None = None) -> list[Broadcast]:
    """Those that last or are to come, the oldest first."""
    query = select(Broadcast).where(
        Broadcast.withdrawn_at.is_(None),
        or_(Broadcast.ends_at.is_(None), Broadcast.ends_at > (now or utcnow())),
    )
    return list(session.scalars(query.order_by(Broadcast.starts_at, Broadcast.id)))


def listed(session: Session, now: datetime | None = None) -> list[Broadcast]:
    """All of the last days, the newest first."""
    query = select(Broadcast).where(
        Broadcast.kind.in_(KINDS), Broadcast.created_at > (now or utcnow()) - KEPT
    )
    return list(session.scalars(query.order_by(Broadcast.created_at.desc(), Broadcast.id)))


def withdraw(session: Session, message: str, by: str, now: datetime | None = None) -> Broadcast:
    """End one before its time. Raises BadRequest (404) where there is none that lasts."""
    now = now or utcnow()
    found = [row for row in standing(session, now) if row.id == message and row.kind in KINDS]
    if not found:
        error = BadRequest(UNKNOWN(id=str(message)[:40]))
        error.status = 404
        raise error
    found[0].withdrawn_at, found[0].withdrawn_by = now, by[:255]
    return found[0]


def state(row: Broadcast, now: datetime | None = None) -> str:
    """``planned``, ``shown``, ``over`` or ``withdrawn``."""
    now = now or utcnow()
    if row.withdrawn_at is not None:
        return "withdrawn"
    if row.ends_at is not None and row.ends_at <= now:
        return "over"
    return "planned" if row.starts_at > now else "shown"


def as_json(row: Broadcast) -> dict[str, Any]:
    """For commands and REST."""
    return {
        "id": row.id,
        "kind": row.kind,
        "en": row.texts.get("en"),
        "zh": row.texts.get("zh_CN"),
        "starts_at": utc(row.starts_at),
        "ends_at": utc(row.ends_at),
        "state": state(row),
        "created_by": row.created_by,
        "created_at": utc(row.created_at),
        "withdrawn_by": row.withdrawn_by,
    }


def utc(at: datetime | None) -> str | None:
    """A time of the store in ISO 8601."""
    return at.isoformat(timespec="seconds") + "Z" if at else None


# -- what is shown ---------------------------------------------------------------------------------


def in_language(texts: Mapping[str, str], _: Gettext) -> str:
    """The text for a reader: in their language, else the one that there is."""
    return texts.get(in_context(_, _LANGUAGE)) or next(iter(texts.values()), "")


def told(one: Shown, _: Gettext, timezone: tzinfo | None) -> dict[str, Any]:
    """A message as a reader is told of it."""
    title = {"warning": _("Warning"), MAINTENANCE: _("Maintenance")}.get(one.kind, _("Message"))
    text = in_language(one.texts, _)
    when, now = "", utcnow()
    ahead = one.kind == MAINTENANCE and one.starts_at > now
    if one.kind == MAINTENANCE:
        parts = [_("Nobody can start a server now.")]
        if ahead:
            at = notices.moment(one.starts_at, timezone)
            parts = [_("Nobody can start a server from {time} on.").replace("{time}", at)]
        if one.stop_at is not None and one.stop_at > now:
            parts.append(
                _("Servers are stopped at {time}: save your work.").replace(
                    "{time}", notices.moment(one.stop_at, timezone)
                )
            )
        if one.ends_at is not None:
            parts.append(
                _("Expected end: {time}.").replace("{time}", notices.moment(one.ends_at, timezone))
            )
        when = messages.listed([verbatim(part) for part in parts], Locale(_))
    return {
        "id": f"{one.id}-ahead" if ahead else one.id,
        # Who has closed what was told before is told again when it begins.
        "kind": "warning" if ahead else one.kind,
        "title": title,
        "text": text,
        "more": when,
        "ends_at": utc(one.starts_at if ahead else one.ends_at),
        "dismissible": ahead or one.kind != MAINTENANCE,
        "close": _("Dismiss"),
    }


class Board:
    """What lasts now, for the pages of one service: read again when it is asked for, at most every
    two seconds. Where the store is silent, what was known stays, until its end.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: list[Shown] = []
        self._read = -FRESH
        self._reading: asyncio.Task[None] | None = None

    def now(self) -> list[Shown]:
        """What is known to last; what is new since comes with the next question."""
        if self._reading is None and time.monotonic() - self._read >= FRESH:
            self._reading = asyncio.create_task(self._refresh())
        at = utcnow()
        return [one for one in self._known if one.lasts(at)]

    async def fresh(self) -> list[Shown]:
        """What lasts now."""
        self.now()
        if (reading := self._reading) is not None:
            await asyncio.wait([reading])
        return self.now()

    async def _refresh(self) -> None:
        try:
            self._known = await self._store.read(
                lambda session: [
                    Shown(r.id, r.kind, r.texts, r.starts_at, r.ends_at, r.stop_at)
                    for r in standing(session)
                ]
            )
        except StoreError as error:
            log.warning("messages to everybody are not read: %s", error)
        finally:
            self._read, self._reading = time.monotonic(), None
