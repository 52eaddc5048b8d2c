"""Pages of hub and services: the language of a request, words in templates, what all pages share.

``jinja_environment_options`` and ``template_vars`` are what a program renders its templates with;
``template_paths`` come after its own. A template needs the request: ``handler`` in the context.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, pass_context
from jinja2.ext import InternationalizationExtension
from jinja2.runtime import Context
from jupyterhub._data import DATA_FILES_PATH
from tornado.web import RequestHandler, StaticFileHandler

from commons import broadcasts, messages, notices
from commons.i18n import (
    JUST_CHOSEN,
    LANGUAGE_COOKIE,
    LANGUAGE_NAMES,
    N_,
    NP_,
    TIMEZONE_COOKIE,
    Reader,
    gettext_for,
    in_context,
    language_for,
    timezone_for,
)
from commons.messages import Locale, listed
from commons.readers import Readers
from commons.site import Site
from commons.version import version
from commons.web.refused import Said

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
template_paths = [str(_HERE / "templates"), str(STATIC)]

# The accounts of the demo directory: (name, what the person is there).
DEMO_ACCOUNTS = (
    ("carol", N_("platform administrator")),
    ("bob", N_("lead of team vision")),
    ("alice", N_("researcher in team vision")),
    ("dan", N_("instructor of course ml101")),
    ("s01", N_("student of ml101, as are s02 to s40")),
)


async def meet(handler: RequestHandler, name: str, directory: str | None = None) -> None:
    """Somebody is known who asks: find out how they read, and keep what is new about it.

    ``directory``: the language that the directory says, where it is asked here.
    """
    readers: Readers | None = handler.settings.get("readers")
    if readers is None:
        return
    cookie = handler.get_cookie(LANGUAGE_COOKIE) or ""
    browser = not _by_token(handler)
    chosen = cookie.removesuffix(JUST_CHOSEN) if cookie.endswith(JUST_CHOSEN) and browser else ""
    zone = (handler.get_cookie(TIMEZONE_COOKIE) or "") if browser else ""
    reader = await readers.meet(name, chosen=chosen, timezone=zone, directory=directory)
    handler._labcommons_reader = reader  # type: ignore[attr-defined]
    if chosen:
        handler.set_cookie(
            LANGUAGE_COOKIE,
            language_of(handler),
            expires_days=365,
            secure=handler.request.protocol == "https",
            samesite="Lax",
        )


def _by_token(handler: RequestHandler) -> bool:
    return bool(getattr(handler, "_token_authenticated", False))


def _reader(handler: RequestHandler) -> Reader:
    found: Reader = getattr(handler, "_labcommons_reader", Reader())
    return found


def language_of(handler: RequestHandler) -> str:
    """The language of one request, by the rule of ``commons.i18n.language_for``."""
    readers: Readers | None = handler.settings.get("readers")
    return language_for(
        _reader(handler),
        handler.get_cookie(LANGUAGE_COOKIE),
        handler.request.headers.get("Accept-Language"),
        by_token=_by_token(handler),
        site=readers.language if readers else "en",
    )


def timezone_of(handler: RequestHandler) -> tzinfo:
    """The time zone of one request's reader (``commons.i18n.timezone_for``)."""
    readers: Readers | None = handler.settings.get("readers")
    cookie = handler.get_cookie(TIMEZONE_COOKIE)
    return timezone_for(_reader(handler), cookie, readers.timezone if readers else "")


def locale_of(handler: RequestHandler) -> Locale:
    """How who asks reads: language, time zone, now."""
    return Locale(gettext_for(language_of(handler)), timezone_of(handler), time.time())


def handler_of(context: Context) -> RequestHandler | None:
    """The request that a template is rendered for.

    JupyterHub hands no handler to its templates, but ``static_url``, which is a bound
    method of it.
    """
    owner = context.get("handler") or getattr(context.get("static_url"), "__self__", None)
    return owner if isinstance(owner, RequestHandler) else None


@pass_context
def language(context: Context) -> str:
    """The language a template is rendered in, one of ``commons.i18n.LANGUAGES``."""
    handler = handler_of(context)
    if handler is None:
        return "en"
    # A page asks for it a thousand times.
    found: str = getattr(handler, "_labcommons_page_in", "") or language_of(handler)
    handler._labcommons_page_in = found  # type: ignore[attr-defined]
    return found


@pass_context
def _gettext(context: Context, message: str) -> str:
    return gettext_for(language(context))(message)


@pass_context
def _ngettext(context: Context, singular: str, plural: str, count: int) -> str:
    return gettext_for(language(context))(singular if count == 1 else plural)


@pass_context
def _pgettext(context: Context, reading: str, message: str) -> str:
    return in_context(gettext_for(language(context)), NP_(reading, message))


@pass_context
def known(context: Context, text: object) -> str:
    """A sentence made elsewhere, translated where the catalogue has it.

    Plain text, which the template escapes. (``_()`` would take it for our own markup.)
    """
    handler = handler_of(context)
    if isinstance(text, Said) and handler:
        return text.error.sentence(locale_of(handler))
    return in_context(gettext_for(language(context)), str(text or ""))


@pass_context
def labelled(context: Context, label: object, value: object) -> str:
    """A label and its value, with the colon of the language."""
    return messages.labelled(label, value, gettext_for(language(context)))


@pass_context
def listed_names(context: Context, names: Sequence[object]) -> str:
    """Names in one line, with what stands between them in the language."""
    return listed(names, Locale(gettext_for(language(context))))


@pass_context
def moment(context: Context, at: datetime) -> str:
    """A time of the store, as its reader's clock has it; where that is not known, with its zone."""
    handler = handler_of(context)
    return notices.moment(at, timezone_of(handler) if handler else None)


@pass_context
def shown_broadcasts(context: Context) -> list[dict[str, Any]]:
    """Messages to everybody that last now, as the reader is told of them."""
    handler = handler_of(context)
    board: broadcasts.Board | None = handler.settings.get("board") if handler else None
    if handler is None or board is None:
        return []
    _, zone = gettext_for(language_of(handler)), timezone_of(handler)
    return [broadcasts.told(one, _, zone) for one in board.now()]


@pass_context
def request_method(context: Context) -> str:
    """``GET`` or ``POST``, so that a page knows whether reloading it would post again."""
    handler = handler_of(context)
    return (handler.request.method if handler else None) or "GET"


class PageExtension(InternationalizationExtension):
    """``{% trans %}``, ``_()``, and the functions above, in the language of each request.

    A word with several translations is said with its reading: ``pgettext("version", "in use")``.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.policies["ext.i18n.trimmed"] = True
        install = environment.install_gettext_callables  # type: ignore[attr-defined]
        install(_gettext, _ngettext, newstyle=True, pgettext=_pgettext)
        environment.globals.update(
            language=language,
            language_names=LANGUAGE_NAMES,
            language_cookie=LANGUAGE_COOKIE,
            known=known,
            labelled=labelled,
            listed=listed_names,
            moment=moment,
            request_method=request_method,
            broadcasts=shown_broadcasts,
        )


jinja_environment_options: dict[str, Any] = {"extensions": [PageExtension]}


def template_vars(site: Site) -> dict[str, Any]:
    """What every page knows of the site."""
    return {
        "site_name": site.site.name,
        "version": version(),
        "demo_accounts": DEMO_ACCOUNTS if site.site.demo else (),
        "gpus_simulated": site.gpus.source == "simulated",
        "has_ssh": site.ssh is not None,
        "has_mirror": site.mirror is not None,
        "size_titles": {name: size.title or name for name, size in site.sizes.items()},
    }


def service_templates(site: Site, *own: Path) -> Environment:
    """The templates of a service: its own folders, then those that all share."""
    templates = Environment(
        loader=FileSystemLoader([*own, *template_paths]),
        autoescape=True,
        **jinja_environment_options,
    )
    folders = {
        "hub_static": ("hub_url", "static/", Path(DATA_FILES_PATH, "static")),
        "static": ("service_url", "static/", STATIC),
        "asset": ("service_url", "assets/", own[0].with_name("static")),
    }
    templates.globals.update(template_vars(site))
    templates.globals.update({name: _kept(*where) for name, where in folders.items()})
    return templates


def _kept(base: str, below: str, folder: Path) -> Callable[[Context, str], str]:
    """The address of a file, with its version: what is asked for so may be kept for ever.

    As JupyterHub's ``static_url`` makes them, so that its own files are fetched once for all pages.
    """

    @pass_context
    def address(context: Context, path: str) -> str:
        version = StaticFileHandler.get_version({"static_path": str(folder)}, path)
        return f"{context[base]}{below}{path}?v={version}"

    return address
