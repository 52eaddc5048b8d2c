"""What is the matter with a database that cannot be used: one word, what people are told, and what
an administrator can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    PendingRollbackError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from commons.errors import LabError
from commons.i18n import N_
from commons.messages import Text


class Trouble(StrEnum):
    """Kinds of it."""

    AWAY = "away"
    FULL = "full"
    DAMAGED = "damaged"
    CLOSED = "closed"  # it is there, and does not let us in


SENTENCES: Mapping[Trouble, Text] = {
    Trouble.AWAY: Text(
        "store_unavailable", N_("The database does not answer. Try again in a minute.")
    ),
    Trouble.FULL: Text(
        "disk_full",
        N_(
            "The disk of this site is full, so that nothing can be saved. Servers that run go on. "
            "Delete files that you do not need, and tell an administrator."
        ),
    ),
    Trouble.DAMAGED: Text(
        "store_damaged",
        N_("The database of this site is damaged. Servers that run go on. Tell an administrator."),
    ),
    Trouble.CLOSED: Text(
        "store_closed",
        N_(
            "The database of this site lets nobody in. Servers that run go on. Tell an "
            "administrator."
        ),
    ),
}
# For administrators, in logs and by `make up`.
REMEDIES: Mapping[Trouble, str] = {
    Trouble.AWAY: "see that it runs, and that this machine reaches it",
    Trouble.FULL: "free space on its disk; what fills it: labcommons disk, or du -xh --max-depth=2",
    Trouble.DAMAGED: (
        "stop the site (make down), put the last backup in its place, keep the damaged file beside "
        "it, and make up again (docs/recovery.md)"
    ),
    Trouble.CLOSED: "see that its user, password and rights are right, and who owns its file",
}
RETRY_AFTER = 10  # seconds
# By SQLSTATE, or in the words of SQLite and of PostgreSQL's client.
_FULL = ("53100", "disk is full", "no space left", "could not extend file", "disk quota exceeded")
_DAMAGED = (
    "xx001",
    "xx002",
    "malformed",
    "not a database",
    "invalid page",
    "unsupported file format",
)
_CLOSED = (
    "unable to open database file", "readonly database", "permission denied",
    "authentication failed", "does not exist", "no password supplied", "no pg_hba.conf",
)  # fmt: skip
# What is wrong with a statement, and not with the database.
_OURS = (IntegrityError, DataError, ProgrammingError, NotSupportedError)


def of(error: BaseException | None) -> Trouble | None:
    """What is the matter, by an error of the database's or of ours about it; None for any other."""
    found = getattr(error, "trouble", None)
    if isinstance(found, Trouble):
        return found
    if isinstance(error, PoolTimeoutError | PendingRollbackError):
        return Trouble.AWAY
    if not isinstance(error, DBAPIError) or isinstance(error, _OURS):
        return None
    said = f"{getattr(error.orig, 'sqlstate', '')} {error.orig}".lower()
    kinds = {Trouble.FULL: _FULL, Trouble.DAMAGED: _DAMAGED, Trouble.CLOSED: _CLOSED}
    named = (kind for kind, words in kinds.items() if any(word in said for word in words))
    return next(named, Trouble.AWAY)


class DatabaseUnavailable(LabError):
    """The database cannot be used; what people are told."""

    status = 503

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(SENTENCES[trouble]())
