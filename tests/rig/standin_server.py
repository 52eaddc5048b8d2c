"""A stand-in for a person's server: a hostile one that keeps every credential it is shown.

It checks who comes in as JupyterHub's single-user server does. What it is started with and every
request go to the file RECORD/NAME.jsonl.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler, HubOAuthenticated
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler, authenticated

NAME = f"{os.environ['JUPYTERHUB_USER']}-{os.environ['JUPYTERHUB_SERVER_NAME']}"
PREFIX = os.environ["JUPYTERHUB_SERVICE_PREFIX"]


def keep(**what: object) -> None:
    with Path(os.environ["RECORD"], f"{NAME}.jsonl").open("a") as file:
        file.write(json.dumps(what) + "\n")


class Anything(RequestHandler):
    """Answers the hub's questions, and keeps what they came with."""

    def prepare(self) -> None:
        keep(path=self.request.uri, headers=dict(self.request.headers.get_all()))

    def get(self) -> None:
        self.finish("[]")

    def post(self) -> None:
        self.finish("[]")


class Door(HubOAuthenticated, RequestHandler):  # type: ignore[misc]
    """What only its owner and administrators may see."""

    @authenticated
    def get(self) -> None:
        token = self.hub_auth.get_token(self)
        keep(path=self.request.uri, headers=dict(self.request.headers.get_all()), token=token)
        self.finish({"server of": NAME, "you": self.current_user["name"]})


class Callback(HubOAuthCallbackHandler):  # type: ignore[misc]
    """The end of a visitor's login: what it brings is the server's to keep."""

    def initialize(self) -> None:
        self.hub_auth = HubOAuth.instance()


if __name__ == "__main__":
    keep(environment=dict(os.environ))
    Application(
        [
            (f"{PREFIX}door", Door),
            (f"{PREFIX}oauth_callback", Callback),
            (".*", Anything),
        ],
        cookie_secret=os.urandom(32),
    ).listen(int(urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).port or 0), "127.0.0.1")
    IOLoop.current().start()
