"""The keys that people have added: who has which, and when each was used last."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import ssh_keys
from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.one_line import one_line
from commons.store.models import SshKey, utcnow

MOST = 20  # keys of one person
FRESH = timedelta(minutes=1)  # within which a use is not written again

TOO_MANY = Text(
    "ssh_keys_many", N_("You have {most} keys already. Remove one that you no longer use.")
)
KNOWN = Text("ssh_key_known", N_("This key is on your list already, as “{name}”."))
UNKNOWN = Text("ssh_key_unknown", N_("There is no such key on the list."))


def of(session: Session, username: str) -> list[SshKey]:
    """The keys of one person, the oldest first."""
    query = select(SshKey).where(SshKey.username == username)
    return list(session.scalars(query.order_by(SshKey.added_at, SshKey.fingerprint)))


def add(session: Session, username: str, line: str, name: str = "", by: str = "") -> SshKey:
    """Take a key; its name is the comment where there is no other. Raises BadRequest."""
    key = ssh_keys.parse(line)
    there = of(session, username)
    for row in there:
        if row.fingerprint == key.fingerprint:
            raise BadRequest(KNOWN(name=row.name))
    if len(there) >= MOST:
        raise BadRequest(TOO_MANY(most=MOST))
    called = one_line(name)[: ssh_keys.MOST_COMMENT].strip()
    row = SshKey(
        username=username,
        fingerprint=key.fingerprint,
        line=key.line,
        name=called or key.comment or key.kind,
        added_at=utcnow(),
        added_by=(by or username)[:255],
    )
    session.add(row)
    session.flush()
    return row


def id_of(row: SshKey) -> str:
    """A key's name in addresses, where a fingerprint's slashes have no place."""
    return hashlib.sha256(row.line.encode("ascii")).hexdigest()[:32]


def remove(session: Session, username: str, key: str) -> SshKey:
    """Take a key away, by its id or fingerprint. Raises BadRequest (404) where there is none."""
    mine = of(session, username)
    row = next((one for one in mine if key in (one.fingerprint, id_of(one))), None)
    if row is None:
        error = BadRequest(UNKNOWN())
        error.status = 404
        raise error
    session.delete(row)
    return row


def used(session: Session, username: str, fingerprint: str, now: datetime | None = None) -> None:
    """Note that somebody came in with it; of the directory's there is no row."""
    row, now = session.get(SshKey, (username, fingerprint)), now or utcnow()
    if row is not None and (row.used_at is None or now - row.used_at > FRESH):
        row.used_at = now


def as_json(row: SshKey) -> dict[str, Any]:
    """For commands and REST."""
    return {
        "id": id_of(row),
        "fingerprint": row.fingerprint,
        "kind": row.line.partition(" ")[0],
        "name": row.name,
        "line": row.line,
        "added_at": _utc(row.added_at),
        "added_by": row.added_by,
        "used_at": _utc(row.used_at),
    }


def _utc(at: datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") + "Z" if at else None
