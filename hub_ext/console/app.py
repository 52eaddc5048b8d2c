"""``labcommons console``: pages and REST API about GPUs, leases and environments."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from pathlib import Path

import click
from jinja2 import Environment, FileSystemLoader
from jupyterhub.services.auth import HubOAuth
from tornado.httpserver import HTTPServer
from tornado.web import Application

from hub_ext import pages
from hub_ext.console import environments, handlers
from hub_ext.site import Site, load_site
from hub_ext.store import Store

PORT = 8083
PREFIX = "/services/labcommons/"
SERVICE = "labcommons"
MAX_BODY = 2 * 2**20  # bytes; the largest is an environment.yml in JSON
_PACKAGE = Path(__file__).parent
_STATIC = _PACKAGE.parent / "static"


def make_hub_auth() -> HubOAuth:
    """How the hub is asked who somebody is, from the variables JUPYTERHUB_*.

    The token comes from JUPYTERHUB_API_TOKEN, else from the file ``console-token`` in
    LABCOMMONS_SECRETS. Raises click.ClickException without one.
    """
    token = os.environ.get("JUPYTERHUB_API_TOKEN")
    file = Path(os.environ.get("LABCOMMONS_SECRETS", "/run/labcommons")) / "console-token"
    try:
        token = token or file.read_text("utf-8").strip()
    except OSError as error:
        raise click.ClickException(
            f"{file}: {error.strerror}; put the service's token there or in JUPYTERHUB_API_TOKEN"
        ) from error
    return HubOAuth(
        api_token=token,
        api_url=os.environ.get("JUPYTERHUB_API_URL", "http://hub:8081/hub/api"),
        base_url=os.environ.get("JUPYTERHUB_SERVICE_PREFIX", PREFIX),
        oauth_client_id=os.environ.get("JUPYTERHUB_CLIENT_ID", f"service-{SERVICE}"),
        access_scopes={f"access:services!service={SERVICE}"},
        cookie_options={"secure": True, "samesite": "Lax"},
        # A person who is no longer administrator is refused within a minute.
        cache_max_age=60,
    )


def make_app(site: Site, store: Store, hub_auth: HubOAuth, data: Path | None = None) -> Application:
    """The application, for a site, its store, a way to ask the hub, and the data folder."""
    data = data or Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    templates = Environment(
        loader=FileSystemLoader([_PACKAGE / "templates", *pages.template_paths]),
        autoescape=True,
        **pages.jinja_environment_options,
    )
    templates.globals.update(pages.template_vars(site))
    shared = {"hub_auth": hub_auth, "store": store, "templates": templates}
    prefix = hub_auth.base_url
    return Application(
        [
            (prefix, handlers.Overview, shared),
            (f"{prefix}oauth_callback", handlers.Callback, shared),
            (f"{prefix}api/v1/gpus", handlers.GpusApi, shared),
            (f"{prefix}api/v1/leases", handlers.LeasesApi, shared),
            *environments.routes(prefix, shared, site, data),
            (f"{prefix}openapi.json", handlers.OpenApi, shared),
            (f"{prefix}health", handlers.Health, shared),
            (f"{prefix}static/([a-z]+\\.(?:css|js|svg))", handlers.Static, {"path": str(_STATIC)}),
            (f"{prefix}api/.*", handlers.ApiNotFound, shared),
        ],
        default_handler_class=handlers.NotFound,
        default_handler_args=shared,
        # For the cookie of a login under way only; a restart asks to log in once more.
        cookie_secret=secrets.token_bytes(32),
    )


async def serve(app: Application, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    # The proxies in front are ours and overwrite these headers.
    server = HTTPServer(app, xheaders=True, max_body_size=MAX_BODY, idle_connection_timeout=75)
    server.listen(port, "0.0.0.0")  # noqa: S104 - in a container, reached by the proxy alone
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    server.stop()
    await asyncio.wait_for(server.close_all_connections(), 10)


@click.command()
@click.option("--port", default=PORT, show_default=True, help="Port to listen on.")
def console(port: int) -> None:
    """Serve the console (settings: the site file and the variables JUPYTERHUB_*)."""
    site = load_site()
    hub_auth = make_hub_auth()
    store = Store()
    try:
        asyncio.run(serve(make_app(site, store, hub_auth), port))
    finally:
        store.close()
