"""The service ``kernels``: keeps the registry in step with the catalog, and tells what is in it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import html
import json
import logging
import os
import signal
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import responses
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler, HubOAuthenticated
from sqlalchemy.orm import Session
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler, authenticated

from hub_ext.i18n import LANGUAGE_COOKIE, choose_language
from hub_ext.store import Store, StoreError
from kernels.catalog import kernels_in_step, read_catalog, store_kernels, without_doubles
from kernels.page import STYLE, render
from kernels.registry import Changes, RegisteredKernel, kernels_of, write_registry

NAME = "kernels"
PORT = 8082
# Seconds until a question to the hub, who somebody is, counts as unanswered.
HUB_TIMEOUT = 10
# Requests have no bodies.
MAX_BODY = 16 * 1024

_log = logging.getLogger("labcommons.kernels")


class Registrar:
    """Runs the passes, one at a time, and remembers how the last one went."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store = store
        self.root = root
        self.kernels: list[RegisteredKernel] = []
        self.problems: list[str] = []
        self.last_pass: datetime | None = None
        self.error: str | None = "no pass has ended yet"
        self._lock = asyncio.Lock()

    async def refresh(self) -> Changes | None:
        """One pass. What is wrong is kept in ``error`` and ``problems``; None if it failed."""
        async with self._lock:
            try:
                changes = await self._pass()
            except (StoreError, OSError) as error:
                self._conclude(str(error))
                return None
            self._conclude("; ".join(changes.failed.values()) or None)
            return changes

    async def _pass(self) -> Changes:
        problems: list[str] = []
        kernels: list[RegisteredKernel] = []
        for entry in await self.store.read(read_catalog):
            found, wrong = kernels_of(entry)
            kernels += found
            problems += wrong
        kernels, doubles = without_doubles(kernels)
        changes = await asyncio.to_thread(write_registry, self.root, kernels)
        # The table lists what people's servers find on disk, and nothing else.
        kernels = [kernel for kernel in kernels if kernel.folders not in changes.failed]

        def in_step(session: Session) -> bool:
            return kernels_in_step(session, kernels)

        def write(session: Session) -> None:
            store_kernels(session, kernels)

        # Most passes change nothing, and then take no write lock.
        if not await self.store.read(in_step):
            await self.store.run(write)
        self.kernels = kernels
        self._say(problems + doubles)
        return changes

    def _say(self, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self.problems:
                _log.warning("%s", problem)
        self.problems = problems

    def _conclude(self, error: str | None) -> None:
        if error and error != self.error:
            _log.error("the registry is not up to date: %s", error)
        elif self.error and not error:
            _log.info("the registry is up to date: %d kernels", len(self.kernels))
        self.error = error
        self.last_pass = datetime.now(UTC)

    async def keep_in_step(self, interval: float) -> None:
        """Passes for ever, ``interval`` seconds apart."""
        while True:
            try:
                await self.refresh()
            except Exception:
                # A defect must not end the passes silently; health tells of it.
                _log.exception("a pass failed")
                self._conclude("a pass failed; the log of the service says why")
            await asyncio.sleep(interval)

    def health(self) -> dict[str, Any]:
        """What ``health`` answers."""
        return {
            "status": "error" if self.error else "ok",
            "registered": len(self.kernels),
            "problems": len(self.problems),
            "last_pass": self.last_pass.isoformat(timespec="seconds") if self.last_pass else None,
            **({"error": self.error} if self.error else {}),
        }


# Over HTTP -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What every handler needs."""

    registrar: Registrar
    auth: HubOAuth
    hub_home: str = "/hub/home"


class _Handler(HubOAuthenticated, RequestHandler):
    """Somebody the hub knows, found out without blocking; headers for every answer."""

    def initialize(self, shared: Settings) -> None:
        self.shared = shared
        self.hub_auth = shared.auth

    def set_default_headers(self) -> None:
        digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
        self.set_header(
            "Content-Security-Policy",
            f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'",
        )
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")
        self.clear_header("Server")

    async def prepare(self) -> None:
        # Asks the hub here, so that get_current_user, which may not wait, finds the answer.
        await _in_time(self.hub_auth.get_user(self, sync=False))

    @property
    def registrar(self) -> Registrar:
        return self.shared.registrar


async def _in_time(answer: Awaitable[Any]) -> Any:
    try:
        return await asyncio.wait_for(answer, HUB_TIMEOUT)
    except TimeoutError as error:
        raise HTTPError(503, "The hub did not answer; try again in a moment.") from error


def _message(status_code: int, kwargs: dict[str, Any]) -> str:
    """What an error answer says: the sentence of an HTTPError, never that of another one."""
    error = kwargs.get("exc_info", (None, None, None))[1]
    if isinstance(error, HTTPError) and error.log_message:
        return str(error.log_message % error.args if error.args else error.log_message)
    return responses.get(status_code, "Unknown error")


class _ApiHandler(_Handler):
    """Answers, also wrong ones, are JSON; there is nobody to send to a login page."""

    def require_user(self) -> dict[str, Any]:
        user = self.current_user
        if not isinstance(user, dict):
            raise HTTPError(403, "Send a token of the hub: Authorization: token TOKEN.")
        return user

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.finish({"status": status_code, "message": _message(status_code, kwargs)})


class KernelsHandler(_ApiHandler):
    """GET api/v1/kernels: all kernels of the registry."""

    async def get(self) -> None:
        self.require_user()
        self.write({"kernels": [describe(kernel) for kernel in self.registrar.kernels]})


class RefreshHandler(_ApiHandler):
    """POST api/v1/refresh: one pass now. For administrators of the hub."""

    async def post(self) -> None:
        if not self.require_user().get("admin"):
            raise HTTPError(403, "Only an administrator may ask for a refresh.")
        changes = await self.registrar.refresh()
        if changes is None:
            raise HTTPError(503, "%s", self.registrar.error)
        self.write(
            {
                "written": changes.written,
                "removed": changes.removed,
                "registered": len(self.registrar.kernels),
                "failed": sorted(changes.failed.values()),
                "problems": self.registrar.problems,
            }
        )


class MissingHandler(_ApiHandler):
    """Everything else."""

    async def prepare(self) -> None:
        raise HTTPError(404, "There is nothing here.")


class HealthHandler(RequestHandler):
    """GET health: for the container's health check; needs no login and tells no names."""

    def initialize(self, shared: Settings) -> None:
        self.shared = shared

    def get(self) -> None:
        health = self.shared.registrar.health()
        self.set_status(200 if health["status"] == "ok" else 503)
        self.set_header("Cache-Control", "no-store")
        self.write(health)


class PageHandler(_Handler):
    """The page at the prefix."""

    @authenticated
    async def get(self) -> None:
        lang = choose_language(
            self.get_cookie(LANGUAGE_COOKIE), self.request.headers.get("Accept-Language")
        )
        problems = self.registrar.problems if self.current_user.get("admin") else []
        self.set_header("Vary", "Accept-Language, Cookie")
        self.write(render(self.registrar.kernels, problems, lang, self.shared.hub_home))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        message = html.escape(_message(status_code, kwargs))
        self.finish(f"<!doctype html><title>{status_code}</title><p>{message}</p>\n")


class CallbackHandler(HubOAuthCallbackHandler):
    """Where the hub sends a browser back to after login."""

    def initialize(self, shared: Settings) -> None:
        self.hub_auth = shared.auth


def describe(kernel: RegisteredKernel) -> dict[str, Any]:
    """A kernel as the REST API shows it."""
    return {
        "name": kernel.name,
        "display_name": kernel.display_name,
        "language": kernel.language,
        "source": kernel.place.source,
        "environment": kernel.place.environment,
        "version": kernel.place.version,
        "python": kernel.place.python,
        "prefix": kernel.place.prefix,
    }


def make_app(shared: Settings, cookie_secret: str, **settings: Any) -> Application:
    """The web application under the prefix of ``shared.auth``."""
    prefix = shared.auth.base_url
    given = {"shared": shared}
    return Application(
        [
            (prefix, PageHandler, given),
            (prefix + "health", HealthHandler, given),
            (prefix + "oauth_callback", CallbackHandler, given),
            (prefix + "api/v1/kernels", KernelsHandler, given),
            (prefix + "api/v1/refresh", RefreshHandler, given),
        ],
        default_handler_class=MissingHandler,
        default_handler_args=given,
        cookie_secret=cookie_secret,
        **settings,
    )


async def serve(
    store: Store, root: Path, auth: HubOAuth, host: str, port: int, interval: float
) -> None:
    """Run until SIGTERM or SIGINT."""
    registrar = Registrar(store, root)
    # Logins survive a restart of the service, as its token does.
    secret = hmac.new(auth.api_token.encode(), b"labcommons kernels cookie", hashlib.sha256)
    app = make_app(Settings(registrar, auth, auth.hub_prefix + "home"), secret.hexdigest())
    server = HTTPServer(app, xheaders=True, max_body_size=MAX_BODY)
    server.listen(port, host)
    _log.info("listening on %s:%d%s", host, port, auth.base_url)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    passes = asyncio.create_task(registrar.keep_in_step(interval))
    await stopped.wait()
    passes.cancel()
    server.stop()
    await server.close_all_connections()


def hub_auth() -> HubOAuth:
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
    )


@click.command()
@click.option("--host", default="0.0.0.0", show_default=True, help="Address.")  # noqa: S104
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--interval",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    help="Seconds between two passes.",
)
@click.option(
    "--registry",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the registry.  [default: $LABCOMMONS_DATA/kernels]",
)
def kernels(host: str, port: int, interval: float, registry: Path | None) -> None:
    """Run the service that registers every environment as kernels."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    auth = hub_auth()
    if urlsplit(auth.api_url).scheme not in ("http", "https"):
        raise click.ClickException(f"JUPYTERHUB_API_URL {auth.api_url!r} is not a web address")
    data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    try:
        store = Store()
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    try:
        asyncio.run(serve(store, registry or data / "kernels", auth, host, port, interval))
    finally:
        store.close()
