"""What can go wrong between a request and a running server, in words for the person."""

from __future__ import annotations

from collections.abc import Mapping

from hub_ext.i18n import Gettext


class SpawnerError(Exception):
    """Base of this package's errors.

    Attributes:
        code: a stable, machine-readable name, such as ``gpu_none_free``.
        message: an English sentence with ``{placeholders}``, translated where it is shown.
        params: the values of the placeholders.
        status: the HTTP status that fits.
    """

    status = 500

    def __init__(self, code: str, message: str, params: Mapping[str, object] | None = None) -> None:
        self.code = code
        self.message = message
        self.params = dict(params or {})
        super().__init__(code)

    def sentence(self, gettext: Gettext = lambda message: message) -> str:
        """The message in a language. Values are inserted as text and never formatted again."""
        return gettext(self.message).format_map(
            {name: str(value) for name, value in self.params.items()}
        )

    def __str__(self) -> str:
        return self.sentence()


class BadRequest(SpawnerError):
    """The request is not one this site can fill: an unknown name, a wrong type."""

    status = 400


class NotAllowed(SpawnerError):
    """The request is well-formed, but not for this person."""

    status = 403


class NotAvailable(SpawnerError):
    """The request is fine and cannot be filled now."""

    status = 409


class EngineUnavailable(SpawnerError):
    """Docker does not answer."""

    status = 503
