"""A service of ours beside the hub: how it asks the hub who somebody is, and how it serves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
from jupyterhub.services.auth import HubOAuth
from tornado.web import Application

from commons.site import Site
from commons.web import origins
from commons.web.proxied import HTTPServer, proxies

CLOSING = 10  # seconds for connections to be closed


def hub_auth(site: Site, service: str, token_file: str) -> HubOAuth:
    """The hub as the variables JUPYTERHUB_* name it to ``service``.

    The token comes from JUPYTERHUB_API_TOKEN, else from the file that JUPYTERHUB_API_TOKEN_FILE
    names, else from ``token_file`` in LABCOMMONS_SECRETS. Raises click.ClickException without one.
    """
    token = os.environ.get("JUPYTERHUB_API_TOKEN", "")
    secrets = os.environ.get("LABCOMMONS_SECRETS", "/run/labcommons")
    file = os.environ.get("JUPYTERHUB_API_TOKEN_FILE") or f"{secrets}/{token_file}"
    try:
        token = token or Path(file).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(
            f"no token for the hub: {file}: {error}; write the file or set JUPYTERHUB_API_TOKEN"
        ) from error
    options = json.loads(os.environ.get("JUPYTERHUB_COOKIE_OPTIONS") or "{}")
    return HubOAuth(
        api_token=token,
        api_url=os.environ.get("JUPYTERHUB_API_URL", "http://hub:8081/hub/api"),
        base_url=os.environ.get("JUPYTERHUB_SERVICE_PREFIX", f"/services/{service}/"),
        oauth_client_id=os.environ.get("JUPYTERHUB_CLIENT_ID", f"service-{service}"),
        access_scopes={f"access:services!service={service}"},
        cookie_options={"secure": True, "samesite": "Lax", **options},
        # The path of such a cookie is "/": not where servers have the same host.
        cookie_host_prefix_enabled=origins.apart(site),
        # Who is no longer administrator, or left a team, sees no more of it within a minute.
        cache_max_age=30,
    )


async def serve(
    app: Application, host: str, port: int, max_body: int, *works: Coroutine[Any, Any, None]
) -> None:
    """Serve, with ``works`` beside it, until SIGTERM or SIGINT. ``max_body`` in bytes."""
    server = HTTPServer(app, max_body_size=max_body)
    server.listen(port, host)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    tasks = [asyncio.create_task(work) for work in (proxies.keep(), *works)]
    await ended.wait()
    server.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(server.close_all_connections(), CLOSING)
