"""Guides for each role, in both languages."""

from __future__ import annotations

import re

import pytest

from commons.i18n import LANGUAGE_NAMES
from hub_ext.console.help_pages import FOLDER, PICTURES, ROLES

from .conftest import Console


@pytest.mark.parametrize("role", ROLES)
async def test_every_guide_is_there_in_every_language(filled: Console, role: str) -> None:
    texts = {}
    for language in LANGUAGE_NAMES:
        tag = {"Accept-Language": language.replace("_", "-")}
        answer = await filled.get(f"help/{role}", "alice-token", **tag)
        assert answer.code == 200
        page = answer.body.decode()
        texts[language] = (FOLDER / language / f"{role}.md").read_text("utf-8")
        title = texts[language].partition("\n")[0].removeprefix("# ")
        assert f"<h1>{title}</h1>" in page
        # Wherever one is, the way to the guides is there.
        assert 'href="/services/labcommons/help"' in page
    # The same chapters, points and commands: a change of one is a change of all.
    shapes = {
        (
            text.count("\n## "),
            text.count("\n- "),
            text.count("\n\n"),
            len(re.findall("`[a-z%]", text)),
            *re.findall(r"\]\(([a-z]+)\)", text),  # pictures
        )
        for text in texts.values()
    }
    assert len(shapes) == 1, shapes


async def test_a_guide_that_there_is_not_is_no_page(filled: Console) -> None:
    assert (await filled.get("help/nobody", "alice-token")).code == 404
    assert (await filled.get("help", "alice-token")).code == 200


@pytest.mark.parametrize("role", ROLES)
async def test_pictures_of_a_guide_are_of_its_language_light_and_say_what_they_show(
    filled: Console, role: str
) -> None:
    """Kind: pictures that are missing, heavy, in another language, or mute."""
    for language in LANGUAGE_NAMES:
        tag = {"Accept-Language": language.replace("_", "-")}
        page = (await filled.get(f"help/{role}", "alice-token", **tag)).body.decode()
        pictures = re.findall(r"<img ([^>]*help/pictures/[^>]*)>", page)
        assert pictures, "a guide without a picture"
        weights = 0
        for attributes in pictures:
            said = dict(re.findall(r'(\w+)="([^"]*)"', attributes))
            assert said["loading"] == "lazy"
            assert len(said["alt"]) > 10
            assert int(said["width"]) <= 960
            address = said["src"].partition("/services/labcommons/")[2]
            assert address.startswith(f"help/pictures/{language}/")
            answer = await filled.get(address)
            assert (answer.code, answer.headers["Content-Type"]) == (200, "image/webp")
            assert len(answer.body) <= 70_000
            weights += len(answer.body)
        # With the page itself below what a first visit may weigh (tests/e2e/test_pages.py).
        assert weights <= 170_000


def test_every_picture_is_used_and_all_are_small_together() -> None:
    used = {
        f"{language}/{name}.webp"
        for language in LANGUAGE_NAMES
        for role in ROLES
        for name in re.findall(
            r"\]\(([a-z]+)\)", (FOLDER / language / f"{role}.md").read_text("utf-8")
        )
    }
    files = {str(file.relative_to(PICTURES)): file for file in PICTURES.glob("*/*")}
    assert files.keys() == used
    assert sum(file.stat().st_size for file in files.values()) < 1_200_000
