"""environment.yml as editors and systems save it: the text is kept, or the file clearly refused."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

import pytest

from environments.encoding import clean, decode
from environments.errors import SpecError
from environments.spec import load_spec, parse_spec

TEXT = "name: x\n# 细胞计数, Zählung\nvariables: {TITLE: 细胞}\ndependencies:\n  - python\n"


@pytest.mark.parametrize(
    "raw",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        TEXT.replace("\n", "\r\n").encode("utf-16"),
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_any_unicode_encoding_and_line_end_gives_the_same_text(raw: bytes, tmp_path: Path) -> None:
    """The kind: a file from Windows, an old Mac, PowerShell's ``>``, a spreadsheet."""
    assert decode(raw, "environment.yml") == TEXT
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "environment.yml").write_bytes(raw)
    assert load_spec(tmp_path / "x").variables == {"TITLE": "细胞"}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (TEXT.encode("gb18030").replace("ä".encode("gb18030"), b"a"), "line 2: .*perhaps GBK"),
        (b"name: x\n# Z\xe4hlung\n", "line 2: .*perhaps LATIN1.*iconv -f LATIN1 -t UTF-8 e.yml"),
        (b"name: x\r\n\r\n# Z\xe4hlung\r\n", "line 3: "),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "line 1: "),
        (b"name: x\n\0", "line 2: a NUL character"),
        (codecs.BOM_UTF16_LE + b"\0\xd8n\0", "line 1: it begins as UTF-16 text and is none"),
        (codecs.BOM_UTF16_LE + b"n\0a", "line 1: it begins as UTF-16 text and is none"),
        ("name: x\n# Z\ufffdhlung\n".encode(), "line 2: a character was lost"),
    ],
)
def test_what_is_no_unicode_is_refused_with_line_and_what_to_do(raw: bytes, words: str) -> None:
    """The kind: a guess that would change a name or a path without a word."""
    with pytest.raises(SpecError, match=rf"^e\.yml, {words}") as caught:
        decode(raw, "e.yml")
    assert re.search("save it as UTF-8", str(caught.value))


@pytest.mark.parametrize("text", ["a: \ud800\n", "a: \0", "\udcff"])
def test_a_text_that_is_none_is_refused_wherever_it_came_from(text: str) -> None:
    """JSON can say half of a character, which no store and no file takes."""
    with pytest.raises(SpecError, match=r"e\.yml, line 1: "):
        clean(text, "e.yml")
    with pytest.raises(SpecError, match=r"e\.yml, line 1: "):
        parse_spec(text, name="x", file="e.yml")


def test_a_text_that_was_pasted_is_kept() -> None:
    assert clean("\ufeff" + TEXT.replace("\n", "\r\n"), "e.yml") == TEXT
