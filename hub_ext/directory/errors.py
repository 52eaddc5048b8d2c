"""What can go wrong between a name with a password and a person of the directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hub_ext.i18n import N_, Gettext


class DirectoryError(Exception):
    """Base of this package's errors.

    Attributes:
        outcome: a stable, machine-readable word for the log.
        status: the HTTP status that fits.
        message: an English sentence for the person, with ``{placeholders}``, translated
            where it is shown.
        params: the values of the placeholders.
        detail: cause and remedy for the administrator's log; never shown to the person.
    """

    outcome = "error"
    status = 500

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

    def __init__(self, detail: str = "") -> None:
        super().__init__(
            N_("Unknown name or wrong password. Please check both and try again."), detail=detail
        )


class AccountUnusable(DirectoryError):
    """The password was right, but the entry in the directory is not fit for a server."""

    outcome = "account_unusable"
    status = 403


class AccountGone(DirectoryError):
    """Somebody who was logged in is no longer in the directory."""

    outcome = "account_gone"
    status = 403

    def __init__(self, detail: str) -> None:
        super().__init__(N_("Your account is no longer in the directory."), detail=detail)


class NotAllowed(DirectoryError):
    """The password was right, but the site does not admit this person."""

    outcome = "not_allowed"
    status = 403

    def __init__(self, groups: Sequence[str]) -> None:
        super().__init__(
            N_(
                "Your account is fine, but it is in none of the groups that may use this site. "
                "Please ask the administrators to be added to one."
            ),
            detail=f"in none of allowed_groups ({', '.join(groups)})",
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
