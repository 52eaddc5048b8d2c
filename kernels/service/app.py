"""The service that registers every environment as kernels: its addresses, and its life."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from jinja2 import Environment, FileSystemLoader
from jupyterhub.services.auth import HubOAuth
from tornado.web import Application

from hub_ext import origins, pages
from hub_ext.console import handlers as console
from hub_ext.guard import XSRF_COOKIE, guarded
from hub_ext.proxied import HTTPServer, proxies
from hub_ext.site import Site, load_site
from hub_ext.store import Store
from kernels.service import handlers, stream
from kernels.service.counting import Counter
from kernels.service.registrar import Registrar

NAME = "kernels"
PORT = 8082
# Bytes; the largest body is a report of started kernels.
MAX_BODY = 32 * 1024

_HERE = Path(__file__).parent
_HUB = Path(pages.__file__).parent

_log = logging.getLogger("labcommons.kernels")


def make_app(
    site: Site, registrar: Registrar, auth: HubOAuth, cookie_secret: str, **settings: Any
) -> Application:
    """The web application under the prefix of ``auth``."""
    templates = Environment(
        loader=FileSystemLoader(
            [_HERE / "templates", _HUB / "console" / "templates", *pages.template_paths]
        ),
        autoescape=True,
        **pages.jinja_environment_options,
    )
    templates.globals.update(pages.template_vars(site))
    shared = {
        "registrar": registrar,
        "counter": Counter(registrar.store),
        "hub_auth": auth,
        "site": site,
        "templates": templates,
    }
    prefix = auth.base_url
    api = prefix + "api/v1/"
    static = r"([a-z]+\.(?:css|js|svg))"
    rules: list[tuple[str, type, dict[str, Any]]] = [
        (prefix, handlers.Overview, shared),
        (prefix + "oauth_callback", handlers.Callback, shared),
        (prefix + "health", handlers.Health, shared),
        (prefix + "openapi.json", handlers.OpenApi, shared),
        (api + "environments", handlers.Environments, shared),
        (api + "environments/([^/]+)/([^/]+)", handlers.OneEnvironment, shared),
        (api + "kernels", handlers.Kernels, shared),
        (api + "kernels/([^/]+)", handlers.OneKernel, shared),
        (api + "refresh", handlers.Refresh, shared),
        (api + "events", stream.Events, shared),
        (api + "usage", handlers.Usage, shared),
        (api + "health", handlers.Health, shared),
        (prefix + "api/.*", handlers.ApiNotFound, shared),
        (
            prefix + "static/" + static,
            handlers.Static,
            {"path": str(_HUB / "static")},
        ),
        (prefix + "assets/" + static, handlers.Static, {"path": str(_HERE / "static")}),
    ]
    return Application(
        [(address, guarded(handler, console.kind_of), given) for address, handler, given in rules],
        default_handler_class=guarded(handlers.NotFound, console.kind_of),
        default_handler_args=shared,
        cookie_secret=cookie_secret,
        xsrf_cookie_kwargs=XSRF_COOKIE,
        **settings,
    )


async def serve(
    site: Site, registrar: Registrar, auth: HubOAuth, host: str, port: int, interval: float
) -> None:
    """Run until SIGTERM or SIGINT."""
    # Logins survive a restart of the service, as its token does.
    secret = hmac.new(auth.api_token.encode(), b"labcommons kernels cookie", hashlib.sha256)
    app = make_app(site, registrar, auth, secret.hexdigest())
    server = HTTPServer(app, max_body_size=MAX_BODY)
    server.listen(port, host)
    _log.info("listening on %s:%d%s", host, port, auth.base_url)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    tasks = [
        asyncio.create_task(registrar.keep_in_step(interval)),
        asyncio.create_task(_keep_alive(registrar)),
        asyncio.create_task(proxies.keep()),
    ]
    await stopped.wait()
    server.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(server.close_all_connections(), 10)


async def _keep_alive(registrar: Registrar) -> None:
    while True:
        await asyncio.sleep(stream.KEEP_ALIVE)
        registrar.events.keep_alive()


def hub_auth(site: Site) -> HubOAuth:
    """The hub as this service's variables name it, with the token from variable or file."""
    token = os.environ.get("JUPYTERHUB_API_TOKEN", "")
    if not token:
        file = os.environ.get("JUPYTERHUB_API_TOKEN_FILE", f"/run/labcommons/{NAME}-token")
        try:
            token = Path(file).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise click.ClickException(
                f"no token for the hub: {file}: {error}; write the file or set JUPYTERHUB_API_TOKEN"
            ) from error
    options = json.loads(os.environ.get("JUPYTERHUB_COOKIE_OPTIONS") or "{}")
    return HubOAuth(
        api_token=token,
        api_url=os.environ.get("JUPYTERHUB_API_URL", "http://hub:8081/hub/api"),
        base_url=os.environ.get("JUPYTERHUB_SERVICE_PREFIX", f"/services/{NAME}/"),
        oauth_client_id=os.environ.get("JUPYTERHUB_CLIENT_ID", f"service-{NAME}"),
        access_scopes={f"access:services!service={NAME}"},
        cookie_options={"samesite": "Lax", "secure": True, **options},
        # The path of such a cookie is "/": not where servers have the same host.
        cookie_host_prefix_enabled=origins.apart(site),
        # Who left a team sees no more of it within a minute.
        cache_max_age=30,
    )


def run(host: str, port: int, interval: float, registry: Path | None, tiers: Path) -> None:
    """Run the service until it is told to end. Raises ClickException."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    site = load_site()
    auth = hub_auth(site)
    if urlsplit(auth.api_url).scheme not in ("http", "https"):
        raise click.ClickException(f"JUPYTERHUB_API_URL {auth.api_url!r} is not a web address")
    data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    directory = site.directory
    store = Store()
    registrar = Registrar(
        store, registry or data / "kernels", tiers, directory.teams, directory.courses
    )
    try:
        asyncio.run(serve(site, registrar, auth, host, port, interval))
    finally:
        store.close()
