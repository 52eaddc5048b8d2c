"""The guides, one for each role, in the reader's language, with pictures of the pages.

The pictures are made by ``tests/rig/guide_pictures.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from tornado.web import HTTPError, StaticFileHandler

from commons.i18n import N_
from commons.web.pages import language_of
from hub_ext.console.handlers import Page

FOLDER = Path(__file__).parent / "guides"
PICTURES = FOLDER / "pictures"  # LANGUAGE/NAME.webp; a guide names one as ![what it shows](NAME)
ROLES = {
    "researcher": N_("For researchers"),
    "student": N_("For students"),
    "instructor": N_("For instructors"),
    "lead": N_("For leads of teams"),
    "admin": N_("For administrators"),
}


@cache
def guide(language: str, role: str, base: str) -> str:
    """A guide as HTML; its text is ours, and HTML in it stays text.

    ``base`` is the address of the console, below which the pictures are.
    """
    text = (FOLDER / language / f"{role}.md").read_text("utf-8")
    parser = MarkdownIt("commonmark", {"html": False})

    def picture(_renderer: Any, tokens: Sequence[Token], at: int, *_: Any) -> str:
        name = f"{language}/{tokens[at].attrs['src']}.webp"
        width, height = size_of((PICTURES / name).read_bytes())
        version = StaticFileHandler.get_version({"static_path": str(PICTURES)}, name)
        return (
            f'<img src="{escape(base)}help/pictures/{name}?v={version}" loading="lazy" '
            f'width="{width}" height="{height}" alt="{escape(tokens[at].content)}">'
        )

    parser.add_render_rule("image", picture)
    return str(parser.render(text))


def size_of(picture: bytes) -> tuple[int, int]:
    """Width and height of a WebP picture in pixels (RFC 9649, 2.5 and 2.7; RFC 6386, 9.1)."""
    assert picture[8:15] == b"WEBPVP8"
    if picture[15:16] == b"X":  # with a colour profile
        width, height = (int.from_bytes(picture[at : at + 3], "little") + 1 for at in (24, 27))
    else:
        width, height = (int.from_bytes(picture[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width, height


class Help(Page):
    """``GET help`` and ``help/ROLE``: everybody may read every guide."""

    async def get(self, role: str = "") -> None:
        """Researchers' first."""
        role = role or "researcher"
        if role not in ROLES:
            raise HTTPError(404)
        roles = {name: self._(title) for name, title in ROLES.items()}
        text = guide(language_of(self), role, self.hub_auth.base_url)
        self.render_page("help.html", role=role, roles=roles, guide=text)
