"""What may be asked of a server: declared, read, checked, resolved and shown."""

from spawner.options.choice import Choice, account_of, resolve, sizes_for, usable
from spawner.options.form import choose_posted, form_model, show_bytes
from spawner.options.linked import linked, not_chosen
from spawner.options.request import KEYS, OPTIONS, TITLES, Request, from_form, parse, schema
from spawner.options.scoped import offered

__all__ = [
    "KEYS",
    "OPTIONS",
    "TITLES",
    "Choice",
    "Request",
    "account_of",
    "choose_posted",
    "form_model",
    "from_form",
    "linked",
    "not_chosen",
    "offered",
    "parse",
    "resolve",
    "schema",
    "show_bytes",
    "sizes_for",
    "usable",
]
