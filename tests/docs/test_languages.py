"""What is written in two languages says the same to a program: commands, keys, addresses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
CHINESE = sorted(path.name for path in DOCS.glob("*.zh.md"))


def code(text: str) -> set[str]:
    """Keys of tables, options, and commands without what is said of them."""
    blocks = re.findall(r"(?ms)^```\n(.*?)^```|^((?:    \S.*\n)+)", text)
    lines = [line for fenced, plain in blocks for line in (fenced or plain).splitlines()]
    commands = {re.split(r"\s{2,}#|\s+[(（]|--\(", line.strip())[0] for line in lines}
    first = re.findall(r"(?m)^\| (`.*?) \|", text)
    return {one for one in commands if one.isascii()} | {
        key for cell in first for key in re.findall(r"`([^`]+)`", cell)
    }


@pytest.mark.parametrize("name", CHINESE)
def test_both_languages_have_the_same_commands_and_keys(name: str) -> None:
    english = code((DOCS / name.replace(".zh", "")).read_text("utf-8"))
    found = code((DOCS / name).read_text("utf-8"))
    assert found
    assert found <= english
    # What is for developers alone may stay English.
    options = {one for one in english if one.startswith(("--", "ssh", "labcommons", "scp"))}
    assert options <= found
    assert f"({name})" in (DOCS / name.replace(".zh", "")).read_text("utf-8")
