"""While hub or console do not answer, as when they are started anew: that is said, once.

Jupyter's parts write some errors for each question that was asked in vain, by whom it was asked,
what is answered for it, what the request was. Here who asks says so (``asked``), and what the same
request, or the same task, warns of after that is left out.
"""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar

LONG = 60  # seconds after which it is a warning
LOGGERS = (
    *("LabApp", "ServerApp", "JupyterHubSingleUser"),
    *("tornado.access", "tornado.application", "tornado.general"),
)
# Of this request or task: its last question had no answer.
in_vain: ContextVar[bool] = ContextVar("in_vain", default=False)
_log = logging.getLogger("tornado.application")


class Answering:
    """Whether one of the site's services answers."""

    def __init__(self, name: str) -> None:
        self.name, self._since, self._told = name, 0.0, False

    def asked(self, silent: str = "") -> None:
        """Somebody asked; ``silent`` is why there was no answer, empty where there was one."""
        in_vain.set(bool(silent))
        now = time.monotonic()
        away = now - self._since
        if not silent and self._since:
            _log.info("The %s answers again, after %.0f s", self.name, away)
            self._since, self._told = 0.0, False
        elif silent and not self._since:
            _log.info("The %s does not answer, and is asked again: %s", self.name, silent)
            self._since = now
        elif silent and away > LONG and not self._told:
            _log.warning("The %s has not answered for %.0f s: %s", self.name, away, silent)
            self._told = True


hub = Answering("hub")
console = Answering("console")


def _tells_more(record: logging.LogRecord) -> bool:
    told = record.levelno >= logging.WARNING and in_vain.get()
    return not told or record.module == __name__


def listen() -> None:
    """Leave out what tells no more than is said here."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_tells_more)
