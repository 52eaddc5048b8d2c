"""What the hub's pages need beyond JupyterHub's own: words, language, the spawn form's model.

``jupyterhub_config.py`` takes three things from here::

    c.JupyterHub.template_paths = template_paths
    c.JupyterHub.template_vars = template_vars(site)
    c.JupyterHub.jinja_environment_options = jinja_environment_options

The console renders its pages with the same extension (``handler`` in the context).
"""

from __future__ import annotations

import json
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from jinja2 import Environment, pass_context
from jinja2.ext import InternationalizationExtension
from jinja2.runtime import Context
from tornado.web import RequestHandler

from hub_ext.i18n import (
    LANGUAGE_COOKIE,
    LANGUAGE_NAMES,
    N_,
    TIMEZONE_COOKIE,
    choose_language,
    choose_timezone,
    gettext_for,
)
from hub_ext.site import Site
from hub_ext.store.models import utcnow
from spawner.gpu.reasons import duration

_HERE = Path(__file__).parent
template_paths = [str(_HERE / "templates"), str(_HERE / "static")]

# Sentences that JupyterHub itself says on our pages, for the catalogue.
HUB_SENTENCES = (
    N_("Invalid username or password"),
    N_("Login form invalid or expired. Try again."),
    N_("Server requested"),
    N_("Spawning server..."),
    N_("Spawn failed"),
    N_("Spawn cancelled"),
)

# The accounts of the demo directory: (name, what the person is there).
DEMO_ACCOUNTS = (
    ("carol", N_("platform administrator")),
    ("bob", N_("lead of team vision")),
    ("alice", N_("researcher in team vision")),
    ("dan", N_("instructor of course ml101")),
    ("s01", N_("student of ml101, as are s02 to s40")),
)


def language_of(handler: RequestHandler) -> str:
    """The language of one request: the cookie, else Accept-Language, else English."""
    return choose_language(
        handler.get_cookie(LANGUAGE_COOKIE), handler.request.headers.get("Accept-Language")
    )


def timezone_of(handler: RequestHandler) -> tzinfo:
    """The time zone of one request's reader, as their browser has said it; else UTC."""
    return choose_timezone(handler.get_cookie(TIMEZONE_COOKIE))


def _handler(context: Context) -> RequestHandler | None:
    """The request that a template is rendered for.

    JupyterHub hands no handler to its templates, but ``static_url``, which is a bound
    method of it.
    """
    owner = context.get("handler") or getattr(context.get("static_url"), "__self__", None)
    return owner if isinstance(owner, RequestHandler) else None


@pass_context
def language(context: Context) -> str:
    """The language a template is rendered in, one of ``hub_ext.i18n.LANGUAGES``."""
    handler = _handler(context)
    return language_of(handler) if handler else "en"


@pass_context
def _gettext(context: Context, message: str) -> str:
    return gettext_for(language(context))(message)


@pass_context
def _ngettext(context: Context, singular: str, plural: str, count: int) -> str:
    return gettext_for(language(context))(singular if count == 1 else plural)


@pass_context
def known(context: Context, text: object) -> str:
    """A sentence made elsewhere, translated where the catalogue has it.

    Plain text, which the template escapes. (``_()`` would take it for our own markup.)
    """
    return gettext_for(language(context))(str(text or ""))


@pass_context
def form_model(context: Context) -> dict[str, Any] | None:
    """The spawn form as data, from the JSON that the spawner gave as its options form.

    What was posted and refused stays chosen. None where it is not such JSON, which
    means another spawner than ours is configured.
    """
    try:
        model = json.loads(context.get("spawner_options_form") or "")
    except (TypeError, ValueError):
        return None
    if not isinstance(model, dict) or not {"environments", "sizes", "gpus"} <= model.keys():
        return None
    handler = _handler(context)
    if handler is not None and handler.request.method == "POST":
        _choose_posted(model, handler)
    return model


def _choose_posted(model: dict[str, Any], handler: RequestHandler) -> None:
    environment, _, version = handler.get_body_argument("environment", "").partition(":")
    _choose(model["environments"], "name", environment)
    _choose(model["sizes"], "name", handler.get_body_argument("size", ""))
    _choose(model["gpus"]["choices"], "count", handler.get_body_argument("gpus", ""))
    for entry in model["environments"]:
        if entry["selected"] and version in entry["versions"]:
            entry["chosen_version"] = version
    if model["gpus"].get("accounts"):
        _choose(model["gpus"]["accounts"], "name", handler.get_body_argument("account", ""))
        minutes = handler.get_body_argument("time_limit", "")
        model["gpus"]["time_limit"] = int(minutes) if minutes.isdecimal() else None
        model["gpus"]["wait"] = bool(handler.get_body_argument("wait", ""))
    gpu_type = handler.get_body_argument("gpu_type", "")
    if gpu_type in [kind["name"] for kind in model["gpus"]["types"]]:
        model["gpus"]["selected_type"] = gpu_type


def _choose(options: list[dict[str, Any]], key: str, value: str) -> None:
    """Make one option the selected one, where it exists and can be had."""
    if any(str(option[key]) == value and not option.get("disabled") for option in options):
        for option in options:
            option["selected"] = str(option[key]) == value


@pass_context
def show_minutes(context: Context, minutes: int) -> str:
    """A time limit: "8 h"."""
    return duration(minutes * 60, gettext_for(language(context)))


@pass_context
def all_minutes(context: Context, accounts: list[dict[str, Any]]) -> dict[str, str]:
    """Every time limit of the form's accounts in words, by its minutes."""
    found = {minutes for one in accounts for minutes in (*one["minutes"], one["usual"]) if minutes}
    return {str(minutes): str(show_minutes(context, minutes)) for minutes in sorted(found)}


@pass_context
def request_method(context: Context) -> str:
    """``GET`` or ``POST``, so that a page knows whether reloading it would post again."""
    handler = _handler(context)
    return (handler.request.method if handler else None) or "GET"


def seconds_since(moment: datetime | None) -> int:
    """Whole seconds since a time of the hub's database (UTC without zone); 0 for None."""
    return max(0, int((utcnow() - moment).total_seconds())) if moment else 0


class PageExtension(InternationalizationExtension):
    """``{% trans %}``, ``_()`` and the functions above, in the language of each request."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.policies["ext.i18n.trimmed"] = True
        install = environment.install_gettext_callables  # type: ignore[attr-defined]
        install(_gettext, _ngettext, newstyle=True)
        environment.globals.update(
            language=language,
            language_names=LANGUAGE_NAMES,
            language_cookie=LANGUAGE_COOKIE,
            known=known,
            form_model=form_model,
            show_minutes=show_minutes,
            all_minutes=all_minutes,
            request_method=request_method,
            seconds_since=seconds_since,
        )


jinja_environment_options: dict[str, Any] = {"extensions": [PageExtension]}


def template_vars(site: Site) -> dict[str, Any]:
    """What every page knows of the site."""
    return {
        "site_name": site.site.name,
        "demo_accounts": DEMO_ACCOUNTS if site.site.demo else (),
        "gpus_simulated": site.gpus.source == "simulated",
    }
