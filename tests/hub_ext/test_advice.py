"""No sentence and no page of the docs advises a command that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from babel.messages.pofile import read_po

from hub_ext import cli

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "hub_ext" / "console" / "guides").rglob("*.md"))
CATALOGUE = ROOT / "commons" / "locale" / "zh_CN" / "LC_MESSAGES" / "labcommons.po"
# A command, as it is written: up to the end of a quotation, a line or a sentence.
ADVICE = re.compile(r"labcommons((?: +[a-z][a-z-]*)?(?: +(?:--)?[\w{}=.:/-]+)*)")
IN_DOCS = re.compile(r"`([^`\n]+)`|^ {0,2}((?:bin/)?labcommons [a-z].*)$", re.M)
# Of the machine (deploy/builder.py), and of a person's own server (kernels/).
ELSEWHERE = (
    "labcommons perimeter ",
    "labcommons whatsnew",
    "labcommons backup restore",
    *(f"labcommons env {one}" for one in ("current", "add", "remove", "keep", "local")),
)


def advised() -> list[tuple[str, str]]:
    found = []
    with CATALOGUE.open("rb") as file:
        for said in read_po(file):
            for english in (said.id,) if isinstance(said.id, str) else said.id:
                found += [(english[:40], match[0]) for match in ADVICE.finditer(english)]
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *GUIDES]:
        for code in re.findall(
            r"`([^`\n]+)`|^ {0,2}((?:bin/)?labcommons [a-z].*)$", page.read_text("utf-8"), re.M
        ):
            code = "".join(code).partition("#")[0].partition("|")[0]
            if code.startswith(("labcommons ", "bin/labcommons ")):
                found.append((page.name, code.removeprefix("bin/")))
    return found


def problem(command: str) -> str:
    """What is wrong with a command; empty: nothing."""
    if command.startswith(ELSEWHERE):
        return ""
    words = command.partition(" -- ")[0].split()[1:]  # what follows it is another program's
    here: click.Command = cli.cli
    context = click.Context(here)
    while isinstance(here, click.Group) and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        found = here.get_command(context, words[0])
        if found is None:
            return f"there is no {words[0]!r}"
        here, words = found, words[1:]
    options = {name for one in here.params for name in (*one.opts, *one.secondary_opts)}
    options |= {"--help", "--version"}
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return next((f"{flag} is no option of it" for flag in flags if flag not in options), "")


def test_the_test_sees_what_is_wrong() -> None:
    assert problem("labcommons env lock --beside x") == ""
    assert problem("labcommons env lok x")
    assert problem("labcommons env lock --besides x")


def test_whatever_is_advised_exists() -> None:
    """Kind: a remedy that names a command, in any text or page."""
    commands = advised()
    assert len(commands) > 70
    wrong = [f"{where}: {one}: {p}" for where, one in commands if (p := problem(one))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("about", ["lock"])
def test_two_texts_give_one_remedy(about: str) -> None:
    """A missing lock is made beside its environment.yml, whoever says so."""
    making = [one for where, one in advised() if f"env {about} " in one and "{name}" in one]
    assert making
    assert {"--update" in one or "--beside" in one for one in making} == {True}, making
