"""A notebook as a page: what it says is there, and nothing of it runs or is fetched."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.notebook_view import MOST_PICTURES, MOST_TEXT, rendered

PICTURE = base64.b64encode(b"\x89PNG\r\n").decode()
TAGS = {
    "meta", "style", "section", "pre", "img", "p", "h1", "h2", "h3", "h4", "h5", "h6", "a", "code",
    "em", "strong", "ul", "ol", "li", "blockquote", "hr", "br", "table", "thead", "tbody", "tr",
    "th", "td",
}  # fmt: skip


class Tags(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def harmless(page: str) -> bool:
    for tag, attributes in Tags(page).found:
        assert tag in TAGS, tag
        assert not [name for name in attributes if name.startswith("on")]
        address = (attributes.get("href") or attributes.get("src") or "").strip().lower()
        assert not address.startswith(("javascript:", "vbscript:", "file:", "data:text"))
        if tag == "img":
            assert address.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
    return True


def cell(**output: Any) -> dict[str, Any]:
    return {"cell_type": "code", "source": ["1 < 2\n", "x"], "outputs": [output]}


def test_text_pictures_and_errors_are_shown() -> None:
    page = rendered(
        {
            "cells": [
                {"cell_type": "markdown", "source": "# A *title*"},
                cell(output_type="stream", text=["a & b\n"]),
                cell(output_type="display_data", data={"image/png": PICTURE, "text/plain": "no"}),
                cell(output_type="error", traceback=["\x1b[0;31mValueError\x1b[0m", "at <x>"]),
            ]
        }
    )
    assert "<h1>A <em>title</em></h1>" in page
    assert "<pre>1 &lt; 2\nx</pre>" in page
    assert "a &amp; b" in page
    assert f'src="data:image/png;base64,{PICTURE}"' in page
    assert ">no<" not in page
    assert "ValueError\nat &lt;x&gt;" in page
    assert harmless(page)


@pytest.mark.parametrize(
    "source",
    [
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))",
        "![x](https://evil.example/i.png)", "<iframe srcdoc='<script>'>", "[x](data:text/html,<b>)",
        "`</pre><script>`", '<a href="javascript:alert(1)">x</a>', "<svg/onload=alert(1)>",
    ],
)  # fmt: skip
def test_nothing_of_it_runs_or_is_fetched(source: str) -> None:
    outputs = [
        {"output_type": "display_data", "data": {"text/html": source, "text/plain": source}},
        {"output_type": "display_data", "data": {"image/svg+xml": source, "image/png": source}},
        {"output_type": "display_data", "data": {"image/png": f'{PICTURE}" onerror="x'}},
        {"output_type": "stream", "text": source},
        {"output_type": "error", "traceback": [source], "evalue": source},
    ]
    for kind in ("markdown", "code", "raw", source):
        notebook = {"cells": [{"cell_type": kind, "source": source, "outputs": outputs}]}
        assert harmless(rendered(notebook))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["cells", "cell_type", "source", "outputs", "output_type", "data", "text", "image/png",
             "text/plain", "traceback", "evalue"]
        ),
        inner | st.sampled_from(["code", "markdown", "error", "<b onclick=x>"]),
        max_size=4,
    ),
    max_leaves=30,
)  # fmt: skip


@given(JSON)
def test_whatever_it_is_there_is_a_page(notebook: Any) -> None:
    assert harmless(rendered(notebook))
    assert harmless(rendered({"cells": [notebook]}))


def test_what_is_long_is_cut() -> None:
    page = rendered({"cells": [cell(output_type="stream", text="x" * 10 * MOST_TEXT)]})
    assert len(page) < 2 * MOST_TEXT
    large = base64.b64encode(bytes(MOST_PICTURES // 2)).decode()
    cells = [cell(output_type="display_data", data={"image/png": large}) for _ in range(4)]
    assert len(rendered({"cells": cells})) < 1.5 * MOST_PICTURES
    assert len(rendered({"cells": [cell(output_type="stream", text="x")] * 100_000})) < 100_000
