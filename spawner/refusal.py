"""An error as the hub shows it: on the form, on the progress page, by REST."""

from __future__ import annotations

from tornado import web

from hub_ext.i18n import Gettext
from spawner.errors import SpawnerError


class Refusal(web.HTTPError):
    """An error for the person: JupyterHub shows ``jupyterhub_message`` as it is."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence.replace("%", "%%"))
        self.jupyterhub_message = sentence

    @classmethod
    def of(cls, error: SpawnerError, gettext: Gettext) -> Refusal:
        """Any error of ours, in the person's language."""
        return cls(error.status, error.sentence(gettext))
