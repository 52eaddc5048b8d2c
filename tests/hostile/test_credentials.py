"""Nothing that a person's server is shown opens anything that is not its own."""

from __future__ import annotations

import re
from typing import Any

import requests

from .conftest import StandInHub


def shown(records: list[dict[str, Any]]) -> set[str]:
    """Whatever among requests may be a credential."""
    found: set[str] = set()
    for record in records:
        headers = record.get("headers", {})
        found |= set(re.findall(r"\S{8,}", headers.get("Authorization", "")))
        found |= set(re.findall(r"=([^;\s]{8,})", headers.get("Cookie", "")))
        found |= {record["token"]} if record.get("token") else set()
    return found


def opens(hub: StandInHub, token: str, path: str) -> int:
    return requests.get(
        path, headers={"Authorization": f"token {token}"}, timeout=30, allow_redirects=False
    ).status_code


def test_what_the_hub_asks_a_server_with_opens_no_other_server(hub: StandInHub) -> None:
    answer = requests.get(f"{hub.origin}/hub/ask/alice", timeout=30)
    assert "busy_kernels=0" in answer.text
    asked = [one for one in hub.record("alice") if "/api/kernels" in one.get("path", "")]
    tokens = shown(asked)
    assert tokens, "the hub asks as somebody"
    for token in tokens:
        door = opens(hub, token, f"{hub.server_url('bob')}door")
        assert door != 200, "alice's server was shown a token that opens bob's"
    assert tokens == {hub.server_token("alice")}, "only what it has already"
