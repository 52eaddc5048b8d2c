"""What pages and REST of the console have beyond those of our other services: words about GPUs."""

from __future__ import annotations

import time
from typing import Any

from commons.web import handlers
from commons.web.pages import timezone_of
from hub_ext.console import page_words
from spawner.gpu import views


class Base(handlers.Base):
    """What page and API have in common."""

    service = "console"

    @property
    def say(self) -> views.Say:
        """Reasons as sentences, in the language and the time zone of the request."""
        return views.speaker(self._, timezone_of(self), time.time())


class Page(Base, handlers.Page):
    """A page for people."""

    def render_page(self, name: str, **values: Any) -> None:
        """With the words of ``page_words``."""
        super().render_page(name, **page_words.for_page(self._, timezone_of(self)), **values)


class Api(Base, handlers.Api):
    """An answer in JSON."""
