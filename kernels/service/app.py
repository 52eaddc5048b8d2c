"""The service that registers every environment as kernels: its addresses, and its life."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from jupyterhub.services.auth import HubOAuth
from tornado.web import Application

from commons.audit import AuditTrail, Chain
from commons.audit.trail import folder
from commons.readers import Readers
from commons.scopes import groups_of_site
from commons.site import Site, load_site
from commons.store import Store
from commons.web import handlers as console
from commons.web import openapi
from commons.web.guard import XSRF_COOKIE, guarded
from commons.web.operations import Part, Route
from commons.web.pages import STATIC, service_templates
from commons.web.service import hub_auth, serve
from commons.work import Periodic
from kernels.service import handlers, stream
from kernels.service.counting import Counter
from kernels.service.registrar import Registrar

NAME = "kernels"
PORT = 8082
# Bytes; the largest body is a report of started kernels.
MAX_BODY = 32 * 1024

_HERE = Path(__file__).parent

_SOURCE = {"source": Part("image, shared, team-NAME or course-NAME")}
ROUTES = (
    Route("/api/v1/environments", handlers.Environments),
    Route("/api/v1/environments/{source}/{name}", handlers.OneEnvironment, _SOURCE),
    Route("/api/v1/kernels", handlers.Kernels),
    Route("/api/v1/kernels/{name}", handlers.OneKernel),
    Route("/api/v1/refresh", handlers.Refresh),
    Route("/api/v1/events", stream.Events),
    Route("/api/v1/usage", handlers.Usage),
    Route("/health", handlers.Health),
)

_log = logging.getLogger("labcommons.kernels")


def make_app(
    site: Site, registrar: Registrar, auth: HubOAuth, cookie_secret: str, **settings: Any
) -> Application:
    """The web application under the prefix of ``auth``."""
    templates = service_templates(site, _HERE / "templates")
    shared = {
        "registrar": registrar,
        "counter": Counter(registrar.store),
        "hub_auth": auth,
        "site": site,
        "templates": templates,
    }
    prefix = auth.base_url
    static = r"([a-z]+\.(?:css|js|svg))"
    rules: list[tuple[str, type, dict[str, Any]]] = [
        (prefix, handlers.Overview, shared),
        (prefix + "oauth_callback", handlers.Callback, shared),
        *((one.regex(prefix), one.handler, shared) for one in ROUTES),
        (prefix + "openapi.json", handlers.Described, shared),
        (prefix + "api/v1/health", handlers.Health, shared),
        (prefix + "api/.*", handlers.ApiNotFound, shared),
        (
            prefix + "static/" + static,
            handlers.Static,
            {"path": str(STATIC)},
        ),
        (prefix + "assets/" + static, handlers.Static, {"path": str(_HERE / "static")}),
    ]
    return Application(
        [(address, guarded(handler, console.kind_of), given) for address, handler, given in rules],
        default_handler_class=guarded(handlers.NotFound, console.kind_of),
        default_handler_args=shared,
        described=openapi.document("LabCommons kernels", prefix, ROUTES),
        cookie_secret=cookie_secret,
        readers=Readers(registrar.store, site),
        xsrf_cookie_kwargs=XSRF_COOKIE,
        **settings,
    )


def run(host: str, port: int, interval: float, registry: Path | None, folders: Path) -> None:
    """Run the service until it is told to end. Raises ClickException."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    site = load_site()
    auth = hub_auth(site, NAME, f"{NAME}-token")
    if urlsplit(auth.api_url).scheme not in ("http", "https"):
        raise click.ClickException(f"JUPYTERHUB_API_URL {auth.api_url!r} is not a web address")
    data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    store = Store()
    registrar = Registrar(store, registry or data / "kernels", folders, groups_of_site(site))
    try:
        _log.info("listening on %s:%d%s", host, port, auth.base_url)
        # Logins survive a restart of the service, as its token does.
        secret = hmac.new(auth.api_token.encode(), b"labcommons kernels cookie", hashlib.sha256)
        streams = Periodic("event streams", registrar.keep_alive, stream.KEEP_ALIVE, _log)
        trail = AuditTrail(Chain(folder(NAME), NAME))
        app = make_app(site, registrar, auth, secret.hexdigest(), audit=trail)
        works = (registrar.keep_in_step(interval), streams.run())
        asyncio.run(serve(app, host, port, MAX_BODY, *works))
    finally:
        store.close()
