"""The end of a server's log, as its owner sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawner import last_words
from spawner.last_words import HIDDEN, cleaned


@pytest.mark.parametrize(
    "line",
    [
        "http://127.0.0.1:8888/lab?token=5f3e9a and more",
        "JUPYTERHUB_API_TOKEN=5f3e9a",
        "{'api_key': '5f3e9a'}",
        "Authorization: token 5f3e9a",
        "GET /oauth_callback?code=5f3e9a&state=x",
        "git clone https://me:5f3e9a@git.example.org/x",
        "the password: 5f3e9a",
        "MY_SECRET=5f3e9a",
        "mine 5f3e9a, by name",
        "\x1b[31mtoken\x1b[0m=5f3e9a",
    ],
)
def test_what_opens_something_is_hidden(line: str) -> None:
    """Kind: tokens and passwords as programs print them, and the server's own wherever it is."""
    said = cleaned(line, ["mine 5f3e9a"])
    assert "5f3e9a" not in said
    assert HIDDEN in said


def test_what_explains_is_kept() -> None:
    text = 'Traceback:\n  File "/home/alice/.jupyter/x.py", line 3\nModuleNotFoundError: 日本語'
    assert cleaned(text) == text


@given(st.text(), st.integers(1, 400))
def test_whatever_it_says_it_is_plain_text_within_bounds(text: str, times: int) -> None:
    said = cleaned(text * times)
    assert len(said) <= last_words.MOST
    assert all(line.isprintable() for line in said.split("\n"))
    assert len(said.split("\n")) <= last_words.LINES
