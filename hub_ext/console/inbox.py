"""Notebooks that people send each other: what may be sent, and what the store keeps of it.

The copy is in our database until the receiver's own server takes it: nothing is written to a home
from outside, and nobody else can read it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import BadRequest, LabError, NotAllowed
from commons.i18n import N_
from commons.messages import Text
from commons.store.models import GpuNotice, RefusedSender, SentNotebook, utcnow
from kernels.hostile import parse_json

MOST_TEXT = 8 * 2**20  # bytes of a notebook
DEPTH, VALUES = 48, 2_000_000
KEPT = timedelta(days=30)
# Of one sender in an hour, and waiting for one receiver.
AT_ONCE, WAITING = 60, 50
MOST_REFUSED = 500  # people whom one person refuses
NAME = re.compile(r"[^/\\\x00-\x1f\x7f.][^/\\\x00-\x1f\x7f]{0,149}\.ipynb")
# What would change how the name is read, or how the sentence around it is.
_UNSEEN = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

NOT_A_NOTEBOOK = Text("not_a_notebook", N_("“{name}” is no notebook of at most 8 MiB."))
NAME_WRONG = Text(
    "notebook_name_wrong",
    N_(
        "A notebook’s name must end in .ipynb, may not begin with a dot, and has at most 150 "
        "characters before that, no line break, backslash or invisible sign among them. Rename "
        "it first."
    ),
)
NO_ONE = Text(
    "nobody_to_send_to",
    N_(
        "You have no team or course in common with “{name}”. Notebooks can be sent to people of "
        "your teams and courses who have signed in here before, and to the whole of a team "
        "(team-NAME)."
    ),
)
NOBODY_YET = Text(
    "nobody_has_signed_in",
    N_(
        "Besides you, nobody of “{name}” has signed in here yet, so nobody got the notebook. Send "
        "it again when they have, or put it into the shared folder."
    ),
)
TO_ONESELF = Text(
    "sent_to_oneself", N_("“{name}” is you. Copy the notebook in the file browser instead.")
)
NOT_YOUR_COURSE = Text(
    "course_sent_by_teachers",
    N_("To the whole of “{name}” only its instructors send. Send it to one person of the course."),
)
SENT_ENOUGH = Text(
    "sent_enough", N_("You have sent {count} notebooks in this hour. Send more in an hour.")
)
NOT_TAKEN = Text(
    "sending_refused", N_("“{name}” takes no more notebooks now. Ask them, or use a folder.")
)
NOT_THERE = Text(
    "no_such_notebook",
    N_(
        "This notebook no longer waits: it was opened (then it is in “inbox” in your home), thrown "
        "away, or is older than 30 days."
    ),
)
REFUSED_ENOUGH = Text(
    "refused_enough", N_("You refuse {count} people already. Take notebooks of somebody again.")
)


class NotThere(LabError):
    """It is nobody's, or another's."""

    status = 404


@dataclass(frozen=True)
class Parcel:
    """A notebook on its way; ``packed`` is the text, cleaned, by zlib."""

    name: str
    environment: str
    size: int
    packed: bytes


def pack(notebook: dict[str, Any]) -> str:
    """As it is sent: zlib, then base64."""
    return base64.b64encode(zlib.compress(json.dumps(notebook).encode())).decode("ascii")


def read(name: str, environment: str, sent: str) -> Parcel:
    """What was sent, looked at, without the marks that would have it trusted. Raises BadRequest."""
    if not NAME.fullmatch(name) or _UNSEEN.search(name):
        raise BadRequest(NAME_WRONG())
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(base64.b64decode(sent, validate=True), MOST_TEXT + 1)
        found = parse_json(raw, MOST_TEXT, DEPTH, VALUES)
        if not unpacker.eof or not _is_notebook(found):
            raise ValueError("no notebook")
    except (ValueError, binascii.Error, zlib.error) as error:
        raise BadRequest(NOT_A_NOTEBOOK(name=name)) from error
    for part in (found, *found["cells"]):
        metadata = part.get("metadata")
        if isinstance(metadata, dict):
            metadata.pop("trusted", None)
            metadata.pop("signature", None)
    text = json.dumps(found, ensure_ascii=False, indent=1).encode()
    shown = re.sub(r"[^A-Za-z0-9._:/ -]", "", environment)[:200]
    return Parcel(name, shown or "–", len(text), zlib.compress(text))


def _is_notebook(found: object) -> bool:
    return (
        isinstance(found, dict)
        and found.get("nbformat") == 4
        and isinstance(found.get("cells"), list)
        and all(isinstance(cell, dict) for cell in found["cells"])
    )


def login_name(typed: str) -> str:
    """A person as somebody writes them, by the name that they have here."""
    return typed.strip().lower()


def send(session: Session, sender: str, to: Iterable[str], parcel: Parcel, alone: bool) -> int:
    """Lay it down for each of them, and tell them; for how many. Raises NotAllowed.

    ``alone``: it is for one person, and the sender is told where they take none.
    """
    session.execute(delete(SentNotebook).where(SentNotebook.at < utcnow() - KEPT))
    recent = select(func.count()).where(
        SentNotebook.sender == sender, SentNotebook.at > utcnow() - timedelta(hours=1)
    )
    receivers = sorted(set(to) - {sender})
    if (session.scalar(recent) or 0) + len(receivers) > AT_ONCE:
        raise NotAllowed(SENT_ENOUGH(count=AT_ONCE))
    refusing = set(
        session.scalars(select(RefusedSender.username).where(RefusedSender.sender == sender))
    )
    done = 0
    for receiver in receivers:
        waiting = select(func.count()).where(SentNotebook.username == receiver)
        if receiver in refusing or (session.scalar(waiting) or 0) >= WAITING:
            if alone:
                raise NotAllowed(NOT_TAKEN(name=receiver))
            continue
        row = SentNotebook(
            sender=sender, username=receiver, name=parcel.name, environment=parcel.environment,
            size=parcel.size, packed=parcel.packed,
        )  # fmt: skip
        session.add(row)
        session.flush()
        notices.add(
            session,
            username=receiver,
            lease_id=None,
            code="notebook_sent",
            data={
                "sender": sender, "name": parcel.name, "environment": parcel.environment,
                "notebook": row.id,
            },
            key=f"sent:{row.id}:{utcnow():%Y%m%d%H%M%S}",
        )  # fmt: skip
        done += 1
    return done


def waiting_for(session: Session, username: str) -> list[SentNotebook]:
    """What was sent to a person, newest first."""
    query = select(SentNotebook).where(
        SentNotebook.username == username, SentNotebook.at > utcnow() - KEPT
    )
    return list(session.scalars(query.order_by(SentNotebook.id.desc())))


def take(session: Session, username: str, number: int) -> SentNotebook:
    """One of them. Raises NotThere."""
    row = session.get(SentNotebook, number)
    if row is None or row.username != username:
        raise NotThere(NOT_THERE())
    return row


def drop(session: Session, username: str, number: int) -> None:
    """It waits no more: it was opened, or thrown away; its notice is done with. Raises NotThere."""
    session.delete(take(session, username, number))
    _be_silent(session, username, [number])


def _be_silent(session: Session, username: str, numbers: Iterable[int]) -> None:
    for number in numbers:
        session.execute(
            update(GpuNotice)
            .where(
                GpuNotice.username == username,
                GpuNotice.key.startswith(f"sent:{number}:", autoescape=True),
                GpuNotice.seen_at.is_(None),
            )
            .values(seen_at=utcnow())
        )


def refused(session: Session, username: str) -> list[str]:
    """From whom a person takes none."""
    query = select(RefusedSender.sender).where(RefusedSender.username == username)
    return sorted(session.scalars(query))


def refuse(session: Session, username: str, sender: str, whether: bool) -> int:
    """Take nothing more of somebody, or do again; how much that changed. What they sent goes.

    Raises NotAllowed where too many are refused already.
    """
    row = session.get(RefusedSender, (username, sender))
    if (row is not None) == whether:
        return 0
    if row is not None:
        session.delete(row)
        return 1
    if len(refused(session, username)) >= MOST_REFUSED:
        raise NotAllowed(REFUSED_ENOUGH(count=MOST_REFUSED))
    session.add(RefusedSender(username=username, sender=sender))
    theirs = select(SentNotebook).where(
        SentNotebook.username == username, SentNotebook.sender == sender
    )
    gone = list(session.scalars(theirs))
    _be_silent(session, username, [one.id for one in gone])
    for one in gone:
        session.delete(one)
    return 1
