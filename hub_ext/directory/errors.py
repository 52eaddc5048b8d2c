"""What can go wrong between a name with a password and a person of the directory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from commons.errors import LabError
from commons.messages import Message

from . import messages
from .standing import Standing


class DirectoryError(LabError):
    """Base of this package's errors.

    Attributes:
        outcome: a stable, machine-readable word for the log and the audit trail.
        dismissal: whether the person is not to work here any more, so that after a grace their
            running servers are stopped; a lock or an expired password is not that.
        detail: cause and remedy for the administrator's log; never shown to the person.
    """

    outcome = "error"
    dismissal = False

    def __init__(self, message: Message, *, detail: str = "") -> None:
        self.detail = detail
        super().__init__(message)

    def __str__(self) -> str:
        return self.detail or self.sentence()


class WrongCredentials(DirectoryError):
    """Unknown name or wrong password: one error, so that nobody can learn who has an account."""

    outcome = "wrong_credentials"
    status = 403

    def __init__(self, detail: str = "", standing: Standing | None = None) -> None:
        """``standing``: what the directory said besides; for the log, as it may tell a stranger
        that the account exists."""
        super().__init__(messages.WRONG_CREDENTIALS(), detail=detail)
        if standing:
            self.outcome = standing.value


class TooManyAttempts(DirectoryError):
    """Too many wrong passwords for a name, known or not, or from one address."""

    outcome = "too_many_attempts"
    status = 429

    def __init__(self, seconds: float, what: str) -> None:
        super().__init__(
            messages.TOO_MANY_ATTEMPTS(minutes=max(1, math.ceil(seconds / 60))),
            detail=f"too many failed logins {what}; again in {seconds:.0f} s",
        )


class AccountBarred(DirectoryError):
    """The directory says that this account may not be used, or not now."""

    status = 403

    def __init__(self, standing: Standing, dn: str) -> None:
        self.standing = standing
        self.outcome = standing.value
        self.dismissal = standing in (Standing.DISABLED, Standing.EXPIRED)
        super().__init__(messages.BARRED[standing](), detail=f"{dn}: {standing.value}")


class AccountUnusable(DirectoryError):
    """The password was right, but the entry in the directory is not fit for a server."""

    outcome = "account_unusable"
    status = 403


class AccountGone(DirectoryError):
    """Somebody who was logged in is no longer in the directory."""

    outcome = "account_gone"
    status = 403
    dismissal = True

    def __init__(self, detail: str) -> None:
        super().__init__(messages.ACCOUNT_GONE(), detail=detail)


class NotAdmitted(DirectoryError):
    """The password was right, but the site does not admit this person."""

    outcome = "not_allowed"
    status = 403
    dismissal = True

    def __init__(self, groups: Sequence[str]) -> None:
        super().__init__(
            messages.IN_NO_GROUP(),
            detail=f"in none of allowed_groups ({', '.join(groups)})",
        )


class Denied(DirectoryError):
    """The password was right, but a group of this person may not use the site."""

    outcome = "denied"
    status = 403
    dismissal = True

    def __init__(self, groups: Sequence[str], unclear: Sequence[str] = ()) -> None:
        detail = f"in one of denied_groups ({', '.join(groups)})"
        if unclear:
            detail += f", or it cannot be told, as a group is unclear: {'; '.join(unclear[:3])}"
        super().__init__(
            messages.DENIED(),
            detail=detail,
        )


class ShutOut(DirectoryError):
    """An administrator has shut this person out here; ``reason`` is what they say to them."""

    outcome = "blocked"
    status = 403

    def __init__(self, reason: str, by: str, until: float | None) -> None:
        """``until``: seconds since 1970; None for no end."""
        super().__init__(
            messages.SHUT_OUT(reason=reason, until=until), detail=f"blocked by {by}: {reason}"
        )


class NameTaken(DirectoryError):
    """The name belonged to somebody else before, whose home and servers it still has."""

    outcome = "name_taken"
    status = 403

    def __init__(self, name: str, old: str, new: str) -> None:
        super().__init__(
            messages.NAME_TAKEN(),
            detail=f"{name!r} belongs to the directory's id {old}, and this entry has {new}; move "
            f"the home away, then run: labcommons ldap release {name}",
        )


class DirectoryUnavailable(DirectoryError):
    """No server of the directory gave an answer that can be used; ``causes`` say why, one each."""

    outcome = "directory_unavailable"
    status = 503

    def __init__(self, causes: Sequence[str]) -> None:
        self.causes = tuple(causes)
        super().__init__(
            messages.UNAVAILABLE(),
            detail="; ".join(self.causes) or "no server was asked",
        )


class SettingsError(ValueError):
    """The settings cannot be used; the message names the setting and the remedy."""


class ServerFailed(Exception):
    """One server did not answer, or not as a directory should; the next one may be asked."""

    def __init__(self, server: str, cause: str) -> None:
        self.server = server
        self.cause = cause
        super().__init__(f"{server}: {cause}")
