"""An error as an HTTP answer: on the hub's pages, on the services' pages, by REST."""

from __future__ import annotations

from typing import Any

from tornado.web import HTTPError

from commons.errors import LabError
from commons.i18n import Gettext
from commons.messages import Locale


class Said(str):
    """A sentence that was said to one reader, with what it is made of for the next."""

    error: LabError

    @classmethod
    def of(cls, error: LabError, locale: Locale | Gettext) -> Said:
        """What is said of an error."""
        said = cls(error.sentence(locale))
        said.error = error
        return said


class Refused(HTTPError):
    """Any error of ours, in the reader's language.

    ``details`` go into the error beside code and message: ``reasons``, ``problems`` and what
    else is given. ``status`` is the error's own unless another fits better; ``retry_after``:
    seconds until it is worth another try. JupyterHub shows ``jupyterhub_message`` as it is.
    """

    def __init__(
        self,
        error: LabError,
        locale: Locale | Gettext,
        status: int | None = None,
        *,
        retry_after: int = 0,
        **details: Any,
    ) -> None:
        self.sentence = self.jupyterhub_message = Said.of(error, locale)
        super().__init__(status or error.status, self.sentence.replace("%", "%%"))
        self.code, self.details = error.code, error.details(locale) | details
        self.retry_after = retry_after
        # JupyterHub takes them from the error.
        self.headers = {"Retry-After": str(retry_after)} if retry_after else {}

    @property
    def document(self) -> dict[str, Any]:
        """The contract's ``{"code", "message", "reasons"}``."""
        return {"code": self.code, "message": self.sentence, **self.details}
