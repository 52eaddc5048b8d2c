"""A notebook as a page to read: nothing of it runs, and nothing of it is fetched.

Text is escaped, Markdown is rendered without HTML, of outputs there are text and pictures. The page
is shown in a frame that may do nothing, and says itself that it may load nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from html import escape
from typing import Any

MOST_CELLS, MOST_TEXT = 500, 20_000  # of a notebook, and characters of one output
MOST_PICTURES = 4 * 2**20  # bytes of all pictures, as text
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_PICTURES = ("image/png", "image/jpeg")
_HEAD = """<!doctype html><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
  :root { color-scheme: light dark }
  body { font: 15px/1.5 system-ui, sans-serif; margin: 1rem; overflow-wrap: anywhere }
  pre { font: 13px/1.45 ui-monospace, monospace; margin: .3rem 0; padding: .5rem .7rem;
    white-space: pre-wrap; border: 1px solid #8886; border-radius: 4px }
  pre.out { border-color: transparent; padding-block: 0 }
  pre.error { border-inline-start: 3px solid #c33 }
  img { max-width: 100%; background: #fff }
</style>
"""


def rendered(notebook: object) -> str:
    """The page of a notebook. What is none has no cells."""
    from markdown_it import MarkdownIt  # 20 ms of a hub that starts

    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    pictures = [MOST_PICTURES]
    parts = [_HEAD]
    for cell in (cells if isinstance(cells, list) else [])[:MOST_CELLS]:
        if not isinstance(cell, dict):
            continue
        source = _text(cell.get("source"))
        if cell.get("cell_type") == "markdown":
            parts.append(f"<section>{markdown.render(source)}</section>")
            continue
        parts.append(f"<pre>{escape(source)}</pre>")
        outputs = cell.get("outputs")
        for output in outputs if isinstance(outputs, list) else []:
            parts += _output(output, pictures)
    return "\n".join(parts)


def _output(output: Any, pictures: list[int]) -> Iterator[str]:
    if not isinstance(output, dict):
        return
    if output.get("output_type") == "error":
        told = _text(output.get("traceback"), "\n") or _text(output.get("evalue"))
        yield f'<pre class="out error">{escape(told)}</pre>'
        return
    data = output.get("data")
    data = data if isinstance(data, dict) else {}
    for kind in _PICTURES:
        if found := _picture(data.get(kind), pictures):
            yield f'<img alt="" src="data:{kind};base64,{found}">'
            return
    if text := _text(output.get("text")) or _text(data.get("text/plain")):
        yield f'<pre class="out">{escape(text)}</pre>'


def _picture(value: object, left: list[int]) -> str:
    """A picture as base64; empty for what is none, or too much."""
    text = "".join(_text(value, most=MOST_PICTURES).split())
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ""
    if len(text) > left[0]:
        return ""
    left[0] -= len(text)
    return text


def _text(value: object, between: str = "", most: int = MOST_TEXT) -> str:
    """A text of a notebook, which may be in lines, without the colours of a terminal."""
    lines = value if isinstance(value, list) else [value]
    text = between.join(line for line in lines if isinstance(line, str))
    text = _ANSI.sub("", text[: 2 * most])
    return text if len(text) <= most else f"{text[:most]}…"
