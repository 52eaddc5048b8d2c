"""``labcommons console``: pages and REST API about GPUs, leases and environments."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from pathlib import Path
from typing import Any

import click
from jinja2 import Environment, FileSystemLoader
from jupyterhub.services.auth import HubOAuth
from tornado.web import Application

from hub_ext import origins, pages
from hub_ext.audit import AuditTrail, log_to_stderr
from hub_ext.console import (
    environments,
    gpu_api,
    gpu_pages,
    handlers,
    metrics,
    notice_api,
    quota_api,
    quota_pages,
    reservation_api,
    reservation_pages,
)
from hub_ext.console.handlers import MAX_BODY
from hub_ext.guard import XSRF_COOKIE, guarded
from hub_ext.proxied import HTTPServer, proxies
from hub_ext.site import Site, load_site
from hub_ext.store import Store

PORT = 8083
PREFIX = "/services/labcommons/"
SERVICE = "labcommons"
_PACKAGE = Path(__file__).parent
_STATIC = _PACKAGE.parent / "static"


def make_hub_auth(site: Site) -> HubOAuth:
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
        # The path of such a cookie is "/": not where servers have the same host.
        cookie_host_prefix_enabled=origins.apart(site),
        # A person who is no longer administrator is refused within a minute.
        cache_max_age=30,
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
    shared = {"hub_auth": hub_auth, "store": store, "templates": templates, "site": site}
    prefix = hub_auth.base_url
    api, one = f"{prefix}api/v1/", "([^/]{1,255})"
    routes: list[tuple[str, type[handlers.Base]]] = [
        (prefix, gpu_pages.Overview),
        (f"{prefix}quotas", quota_pages.Quotas),
        (f"{prefix}quotas/edit", quota_pages.Edit),
        (f"{prefix}quotas\\.yaml", quota_pages.Export),
        (f"{prefix}reservations", reservation_pages.Reservations),
        (f"{prefix}oauth_callback", handlers.Callback),
        (f"{api}gpus", gpu_api.GpusApi),
        (f"{api}gpus/devices", gpu_api.DevicesApi),
        (f"{api}gpus/(drain|undrain)", gpu_api.DrainApi),
        (f"{api}leases", gpu_api.LeasesApi),
        (f"{api}leases/{one}", gpu_api.LeaseApi),
        (f"{api}leases/{one}/(cancel|extend|keep)", gpu_api.LeaseActionApi),
        (f"{api}queue", gpu_api.QueueApi),
        (f"{api}usage", gpu_api.UsageApi),
        (f"{api}me", gpu_api.MeApi),
        (f"{api}explain/{one}", gpu_api.ExplainApi),
        (f"{api}quotas", quota_api.QuotasApi),
        (f"{api}quotas/apply", quota_api.ApplyApi),
        (f"{api}quotas/history", quota_api.QuotaHistoryApi),
        (f"{api}quotas/{one}", quota_api.QuotaApi),
        (f"{api}reservations", reservation_api.ReservationsApi),
        (f"{api}reservations/{one}", reservation_api.ReservationApi),
        (f"{api}reservations/{one}/skip", reservation_api.SkipApi),
        (f"{api}notices", notice_api.NoticesApi),
        (f"{api}notices/seen", notice_api.SeenApi),
        (f"{prefix}metrics", metrics.Metrics),
        (f"{prefix}openapi.json", handlers.OpenApi),
        (f"{prefix}health", handlers.Health),
    ]
    rules: list[tuple[str, type, dict[str, Any]]] = [
        *((address, handler, shared) for address, handler in routes),
        *environments.routes(prefix, shared, data),
        (f"{prefix}static/([a-z]+\\.(?:css|js|svg))", handlers.Static, {"path": str(_STATIC)}),
        (f"{prefix}api/.*", handlers.ApiNotFound, shared),
    ]
    return Application(
        [(address, guarded(handler, handlers.kind_of), given) for address, handler, given in rules],
        default_handler_class=guarded(handlers.NotFound, handlers.kind_of),
        default_handler_args=shared,
        # To the log: a trail for the console's changes beside that in the store.
        audit=AuditTrail(),
        # For the cookie of a login under way only; a restart asks to log in once more.
        cookie_secret=secrets.token_bytes(32),
        xsrf_cookie_kwargs=XSRF_COOKIE,
    )


async def serve(app: Application, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    server = HTTPServer(app, max_body_size=MAX_BODY)
    server.listen(port, "0.0.0.0")  # noqa: S104 - in a container, reached by the proxy alone
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    looking = asyncio.create_task(proxies.keep())
    await ended.wait()
    looking.cancel()
    server.stop()
    await asyncio.wait_for(server.close_all_connections(), 10)


@click.command()
@click.option("--port", default=PORT, show_default=True, help="Port to listen on.")
def console(port: int) -> None:
    """Serve the console (settings: the site file and the variables JUPYTERHUB_*)."""
    log_to_stderr()
    site = load_site()
    hub_auth = make_hub_auth(site)
    store = Store()
    try:
        asyncio.run(serve(make_app(site, store, hub_auth), port))
    finally:
        store.close()
