"""What the hub answers while it cannot start: to everybody, why."""

from __future__ import annotations

import html
import json
import logging
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from commons.errors import LabError
from commons.i18n import N_, gettext_for
from commons.store.trouble import RETRY_AFTER
from commons.web.pages import language_of

log = logging.getLogger("labcommons.waiting")
NOT_NOW = N_("Not available just now")
_PAGE = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><meta http-equiv="refresh" content="{again}">
<title>{title}</title>
<style>
body {{ font: 1.1rem/1.5 sans-serif; max-width: 36rem; margin: 15vh auto; padding: 1rem }}
</style>
</head>
<body><main><h1>{title}</h1><p>{sentence}</p></main></body>
</html>
"""


class Answer(RequestHandler):
    """The same to whatever is asked."""

    def initialize(self, waiting: Waiting) -> None:
        self.waiting = waiting

    def prepare(self) -> None:
        """There is one answer."""
        error, language = self.waiting.error, language_of(self)
        self.set_status(503)
        self.set_header("Retry-After", str(RETRY_AFTER))
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        sentence = error.sentence(gettext_for(language))
        path = self.request.path
        if "/api/" in path or path.endswith("/health"):
            self.set_header("Content-Type", "application/json; charset=utf-8")
            said = {"status": 503, "message": sentence, "code": error.code}
            self.finish(json.dumps(said, ensure_ascii=False))
            return
        self.finish(
            _PAGE.format(
                language=language.replace("_", "-"),
                again=RETRY_AFTER,
                title=html.escape(gettext_for(language)(NOT_NOW)),
                sentence=html.escape(sentence),
            )
        )


class Waiting:
    """Answers at the hub's address from the first ``say`` to ``over``."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._server: HTTPServer | None = None

    def say(self, error: LabError) -> None:
        """Why, from now on."""
        self.error = error
        if self._server is not None:
            return
        rules = [(r".*", Answer, {"waiting": self})]
        server = HTTPServer(Application(rules, log_function=lambda _handler: None))
        try:
            server.listen(self._url.port or 80, self._url.hostname or "")
        except OSError as failed:  # then nothing answers, as before
            log.warning("%s cannot be listened to: %s", self._url.geturl(), failed)
            return
        self._server = server

    async def over(self) -> None:
        """The hub itself answers from now on."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            await server.close_all_connections()
