"""What the hub's pages need beyond JupyterHub's own and what all our pages share: the spawn form.

``jupyterhub_config.py`` takes three things from here::

    c.JupyterHub.template_paths = template_paths
    c.JupyterHub.template_vars = template_vars(site)
    c.JupyterHub.jinja_environment_options = jinja_environment_options
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, pass_context
from jinja2.runtime import Context

from commons.i18n import gettext_for
from commons.site import Words, words_in
from commons.store.models import utcnow
from commons.web import pages
from commons.web.pages import handler_of, language, template_vars
from hub_ext import jupyterhub_words, shared_link, standing
from spawner import options
from spawner.gpu.policy.reasons import duration

__all__ = ["jinja_environment_options", "template_paths", "template_vars"]

_HERE = Path(__file__).parent
template_paths = [str(_HERE / "templates"), str(_HERE / "static"), *pages.template_paths]


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
    handler = handler_of(context)
    if handler is not None and handler.request.method == "POST":
        form = handler.request.body_arguments
        posted = {key: values[0].decode("utf-8", "replace") for key, values in form.items()}
        options.choose_posted(model, posted)
    return model


@pass_context
def known(context: Context, text: object) -> str:
    """A sentence of ours or JupyterHub's, in the reader's language."""
    said = pages.known(context, text)
    return jupyterhub_words.translated(said, gettext_for(language(context)))


@pass_context
def foreign(context: Context, text: object) -> bool:
    """Whether a sentence stays English on a page that is not."""
    return language(context) != "en" and known(context, text).isascii()


def token_lives(longest: int | None) -> list[int]:
    """For how many seconds a token may be valid; 0: as long as the site lets it be."""
    hour, day = 3600, 86400
    lives = (hour, day, 7 * day, 30 * day, 365 * day)
    found = [seconds for seconds in lives if not longest or seconds <= longest]
    return found if longest in lives else [*found, 0]


@pass_context
def option_title(context: Context, name: str) -> str:
    """What an option of a server is called, wherever it is shown."""
    return gettext_for(language(context))(options.TITLES[name])


@pass_context
def in_language(context: Context, words: Words) -> str:
    """A text of the site's, which may be there in several languages."""
    return words_in(words, language(context)) if isinstance(words, dict) else str(words)


@pass_context
def show_minutes(context: Context, minutes: int) -> str:
    """A time limit: "8 h"."""
    return duration(minutes * 60, gettext_for(language(context)))


@pass_context
def all_minutes(context: Context, accounts: list[dict[str, Any]]) -> dict[str, str]:
    """Every time limit of the form's accounts in words, by its minutes."""
    found = {minutes for one in accounts for minutes in (*one["minutes"], one["usual"]) if minutes}
    return {str(minutes): str(show_minutes(context, minutes)) for minutes in sorted(found)}


def seconds_since(moment: datetime | None) -> int:
    """Whole seconds since a time of the hub's database (UTC without zone); 0 for None."""
    return max(0, int((utcnow() - moment).total_seconds())) if moment else 0


@pass_context
def already(context: Context) -> str | None:
    """The server that another tab was first to ask for; None: this page is not about that."""
    handler = handler_of(context)
    named: str | None = handler.get_query_argument("already", None) if handler else None
    return named


class HubPageExtension(pages.PageExtension):
    """With the functions above, and JupyterHub's frame in the reader's language."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Before a template is read."""
        return jupyterhub_words.in_frame(source)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.globals.update(
            form_model=form_model,
            option_title=option_title,
            in_language=in_language,
            known=known,
            foreign=foreign,
            token_lives=token_lives,
            show_minutes=show_minutes,
            all_minutes=all_minutes,
            seconds_since=seconds_since,
            already=already,
            server_end=standing.server_end,
            news=standing.news,
            urgent=standing.urgent,
            shared_client=shared_link.shared_client,
            shared_servers_of=shared_link.shared_servers_of,
        )


jinja_environment_options: dict[str, Any] = {"extensions": [HubPageExtension]}
