"""What can go wrong between a name with a password and a person of the directory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hub_ext.i18n import N_, Gettext

from .standing import Standing


class DirectoryError(Exception):
    """Base of this package's errors.

    Attributes:
        outcome: a stable, machine-readable word for the log and the audit trail.
        status: the HTTP status that fits.
        dismissal: whether the person is not to work here any more, so that after a grace their
            running servers are stopped; a lock or an expired password is not that.
        message: an English sentence for the person, with ``{placeholders}``, translated
            where it is shown.
        params: the values of the placeholders.
        detail: cause and remedy for the administrator's log; never shown to the person.
    """

    outcome = "error"
    status = 500
    dismissal = False

    def __init__(
        self, message: str, *, params: Mapping[str, object] | None = None, detail: str = ""
    ) -> None:
        self.message = message
        self.params = dict(params or {})
        self.detail = detail
        super().__init__(message)

    def sentence(self, gettext: Gettext = lambda message: message) -> str:
        """The message in a language. Values are inserted as text and never formatted again."""
        return gettext(self.message).format_map(self.params)

    def __str__(self) -> str:
        return self.detail or self.sentence()


class WrongCredentials(DirectoryError):
    """Unknown name or wrong password: one error, so that nobody can learn who has an account."""

    outcome = "wrong_credentials"
    status = 403

    def __init__(self, detail: str = "", standing: Standing | None = None) -> None:
        """``standing``: what the directory said besides; for the log, as it may tell a stranger
        that the account exists."""
        super().__init__(
            N_("Unknown name or wrong password. Please check both and try again."), detail=detail
        )
        if standing:
            self.outcome = standing.value


class TooManyAttempts(DirectoryError):
    """Too many wrong passwords for a name, known or not, or from one address."""

    outcome = "too_many_attempts"
    status = 429

    def __init__(self, seconds: float, what: str) -> None:
        super().__init__(
            N_("Too many failed logins. Please try again in {minutes} minutes."),
            params={"minutes": max(1, math.ceil(seconds / 60))},
            detail=f"too many failed logins {what}; again in {seconds:.0f} s",
        )


class AccountBarred(DirectoryError):
    """The directory says that this account may not be used, or not now."""

    status = 403

    def __init__(self, standing: Standing, dn: str) -> None:
        self.standing = standing
        self.outcome = standing.value
        self.dismissal = standing in (Standing.DISABLED, Standing.EXPIRED)
        super().__init__(_SENTENCES[standing], detail=f"{dn}: {standing.value}")


_SENTENCES = {
    Standing.DISABLED: N_("Your account is disabled. Please ask the administrators."),
    Standing.EXPIRED: N_("Your account has expired. Please ask the administrators."),
    Standing.LOCKED: N_(
        "Your account is locked after too many wrong passwords. "
        "Please wait, or ask the administrators."
    ),
    Standing.MUST_CHANGE: N_(
        "Your password must be changed before you can log in here. Please change it first."
    ),
    Standing.PASSWORD_EXPIRED: N_("Your password has expired. Please change it first."),
    Standing.NOT_NOW: N_("Your account may not log in at this time or from this place."),
}


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
        super().__init__(N_("Your account is no longer in the directory."), detail=detail)


class NotAllowed(DirectoryError):
    """The password was right, but the site does not admit this person."""

    outcome = "not_allowed"
    status = 403
    dismissal = True

    def __init__(self, groups: Sequence[str]) -> None:
        super().__init__(
            N_(
                "Your account is fine, but it is in none of the groups that may use this site. "
                "Please ask the administrators to be added to one."
            ),
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
            N_(
                "Your account is in a group that may not use this site. "
                "Please ask the administrators."
            ),
            detail=detail,
        )


class NameTaken(DirectoryError):
    """The name belonged to somebody else before, whose home and servers it still has."""

    outcome = "name_taken"
    status = 403

    def __init__(self, name: str, old: str, new: str) -> None:
        super().__init__(
            N_(
                "Your name was used on this site by another person before. "
                "Please ask the administrators to free it."
            ),
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
            N_(
                "The directory cannot be reached, so nobody can log in at the moment. "
                "Running servers go on. Please try again in a few minutes."
            ),
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
