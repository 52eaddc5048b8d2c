"""Who may not come in here though the directory lets them: by whom, why, until when.

A row is the word of an administrator; the hub carries it out (``hub_ext.blocks``). One whose time
is over counts for nothing, and is kept until the next one of the same person.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from commons.errors import BadRequest, NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.one_line import one_line
from commons.store.models import DirectoryPerson, PersonBlock, utcnow

MOST = 300  # characters of a reason

REASON_WRONG = Text(
    "block_reason", N_("Say why, in 1 to {most} characters: they read it at the login.")
)
NOT_ONESELF = Text("block_oneself", N_("Nobody can block themselves."))
NOT_KNOWN = Text(
    "block_unknown", N_("“{name}” was never here. The directory decides who may come.")
)
NOT_BLOCKED = Text("block_none", N_("“{name}” is not blocked."))
ENDS_BEFORE = Text("block_over", N_("The end must be in the future."))


@dataclass(frozen=True)
class Block:
    """One that counts now; times in UTC without zone."""

    username: str
    reason: str
    by: str
    at: datetime
    until: datetime | None
    stops: bool = False
    acted: bool = False

    def lasts(self, now: datetime) -> bool:
        """Whether it counts."""
        return self.until is None or now < self.until


def _read(row: PersonBlock) -> Block:
    return Block(
        row.username, row.reason, row.by, row.at, row.until, row.stops, row.acted_at is not None
    )


def standing(session: Session, now: datetime | None = None) -> dict[str, Block]:
    """Those that count now, by login name."""
    ends = PersonBlock.until
    query = select(PersonBlock).where(or_(ends.is_(None), ends > (now or utcnow())))
    return {row.username: _read(row) for row in session.scalars(query)}


def of(session: Session, name: str, now: datetime | None = None) -> Block | None:
    """Somebody's that counts now."""
    row = session.get(PersonBlock, name)
    block = _read(row) if row is not None else None
    return block if block is not None and block.lasts(now or utcnow()) else None


def put(
    session: Session,
    name: str,
    by: str,
    reason: object,
    until: datetime | None = None,
    stops: bool = False,
) -> Block:
    """Shut somebody out, or say anew why and until when. Raises BadRequest, NotAvailable."""
    words = one_line(reason) if isinstance(reason, str) else ""
    if not words or len(words) > MOST:
        raise BadRequest(REASON_WRONG(most=MOST))
    if name == by:
        raise NotAvailable(NOT_ONESELF())
    if until is not None and until <= utcnow():
        raise BadRequest(ENDS_BEFORE())
    if session.get(DirectoryPerson, name) is None:
        raise BadRequest(NOT_KNOWN(name=name[:80]))
    row = session.get(PersonBlock, name) or PersonBlock(username=name)
    row.reason, row.by, row.at, row.until = words, by[:255], utcnow(), until
    row.stops, row.acted_at = stops, None
    session.add(row)
    session.flush()
    return _read(row)


def take_back(session: Session, name: str) -> Block:
    """Let somebody in again. Raises NotAvailable where nothing keeps them out."""
    block = of(session, name)
    if block is None:
        raise NotAvailable(NOT_BLOCKED(name=name[:80]))
    session.delete(session.get_one(PersonBlock, name))
    return block


def acted(session: Session, block: Block) -> None:
    """The hub has done what it says; not where somebody has said something else meanwhile."""
    row = session.get(PersonBlock, block.username)
    if row is not None and row.at == block.at:
        row.acted_at = utcnow()
