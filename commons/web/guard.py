"""What other pages may have of ours: nothing. The second line, below the browser's own rules.

A page in somebody's server can be of our origin (``site.subdomains: false``) or of our site, and
whoever opens it is logged in. So our answers are for people who go to them and for our own
scripts, which prove it with the page's ``_xsrf`` token. Where requests come from (Origin, Referer,
``Sec-Fetch-Site``) proves nothing on one origin.

``guarded`` puts this on a handler of tornado; hub, console and kernels service have it on all.
"""

from __future__ import annotations

import hmac
import inspect
from collections.abc import Callable, Mapping
from enum import Enum, auto
from functools import cache
from typing import TYPE_CHECKING, Any

from tornado.web import Finish, RequestHandler

from commons.i18n import N_, gettext_for
from commons.web.pages import language_of, meet

CSP = "frame-ancestors 'none'; object-src 'none'; base-uri 'none'"
HEADERS = {
    # A page that opened ours, or that ours opened, has no window of it to script.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Addresses can have a token or a code in them.
    "Referrer-Policy": "strict-origin",
    "X-Content-Type-Options": "nosniff",
}
# Our scripts have the token from the page; the cookie is no script's, whatever its path says.
XSRF_COOKIE = {"secure": True, "samesite": "Lax", "httponly": True}
# The field of a form with which somebody says yes to what a link would have changed.
CONFIRMED = "confirmed"

REFUSED = N_("No page of this site has asked for this. Open the page anew and try again.")


class RequestKind(Enum):
    """What is asked for."""

    OPEN = auto()  # static files, and what tells nothing and changes nothing
    API = auto()
    PAGE = auto()
    CHANGE = auto()  # a page that changes something when it is merely opened


class Verdict(Enum):
    """What becomes of a request."""

    PASS = auto()
    REFUSE = auto()
    CONFIRM = auto()  # ask the person first


def verdict(kind: RequestKind, method: str, headers: Mapping[str, str], valid: bool) -> Verdict:
    """Decide about a request that comes with cookies or with nothing, not with a token of the hub.

    ``valid``: whether it has the ``_xsrf`` token of one of our pages. Old browsers, and browsers
    without TLS, send no ``Sec-Fetch-…``: they may open pages, and need ``_xsrf`` for the rest.
    """
    mode, dest = headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest", "document")
    if mode == "navigate" and dest != "document":
        return Verdict.REFUSE  # a frame
    if kind is RequestKind.OPEN or valid:
        return Verdict.PASS
    opens = mode == "navigate" or (mode is None and kind is not RequestKind.API)
    if not opens or method not in ("GET", "HEAD"):
        return Verdict.REFUSE
    return Verdict.CONFIRM if kind is RequestKind.CHANGE else Verdict.PASS


# For mypy alone: at run time the guard comes before any handler.
_Handler: Any = RequestHandler if TYPE_CHECKING else object


class Guard(_Handler):  # type: ignore[misc]
    """Comes before a handler: its requests are judged, and its answers have ``HEADERS``."""

    def kind_of(self) -> RequestKind:
        """What is asked for; ``guarded`` puts its own here."""
        return RequestKind.PAGE

    def set_default_headers(self) -> None:
        """Also of errors, for which tornado clears the headers first."""
        super().set_default_headers()
        for name, value in HEADERS.items():
            self.set_header(name, value)
        if "Content-Security-Policy" not in self._headers:
            self.set_header("Content-Security-Policy", CSP)

    async def prepare(self) -> None:
        """Who asks is found out first: a made-up token beside a cookie counts for nothing."""
        found = super().prepare()
        if inspect.isawaitable(found):
            await found
        if self._finished:
            return
        kind = self.kind_of()
        if kind is not RequestKind.OPEN:
            await self._meet_user(kind is not RequestKind.API)
        by_token = getattr(self, "_token_authenticated", False)
        if by_token or (kind is RequestKind.API and not self.request.cookies):
            return
        valid = _valid(self)
        match verdict(kind, self.request.method or "", self.request.headers, valid):
            case Verdict.REFUSE:
                self._refuse()
                raise Finish
            case Verdict.CONFIRM:
                await self.confirm()  # of handlers whose pages change something
                raise Finish
        if kind is RequestKind.CHANGE and valid and self.get_body_argument(CONFIRMED, ""):
            # tornado looks only now for the method to call.
            self.request.method = "GET"

    async def _meet_user(self, page: bool) -> None:
        """At the hub, which knows what the directory says; services meet who asks themselves."""
        # Found by JupyterHub's own ``prepare``; elsewhere ``current_user`` would ask and wait.
        meets = "readers" in self.settings and not getattr(self, "for_programs", False)
        user: Any = getattr(self, "_jupyterhub_user", None) if meets else None
        if getattr(user, "kind", "") == "user":
            # It costs decrypting: pages are enough to keep it up to date.
            said = str((await user.get_auth_state() or {}).get("language") or "") if page else None
            await meet(self, user.name, said)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """An error's page has a token in it, as others have."""
        page = self.kind_of() is not RequestKind.API
        if page and verdict(RequestKind.PAGE, "GET", self.request.headers, False) is Verdict.REFUSE:
            self._refuse(status_code)
        else:
            super().write_error(status_code, **kwargs)

    def _refuse(self, status: int = 403) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(gettext_for(language_of(self))(REFUSED) + "\n")


def _valid(handler: RequestHandler) -> bool:
    """Whether a request has the token that JupyterHub's pages and ours have."""
    headers = handler.request.headers
    token = handler.get_argument("_xsrf", "") or headers.get("X-XSRFToken", "")
    if not token or not hasattr(handler, "_xsrf_token_id"):
        return False
    return hmac.compare_digest(token.encode("utf-8", "replace"), handler.xsrf_token)


@cache
def guarded(handler: type, kind_of: Callable[[Any], RequestKind]) -> type:
    """A handler with the guard before it; ``kind_of`` tells what a request to it asks for."""
    return type(
        handler.__name__, (Guard, handler), {"kind_of": kind_of, "__module__": handler.__module__}
    )
