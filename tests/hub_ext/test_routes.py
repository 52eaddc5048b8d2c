"""What the proxy says of routes: made when, used when."""

from __future__ import annotations

from typing import Any

import pytest

from hub_ext.routes import TimedProxy, use_of


async def test_each_route_is_made_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    proxy = TimedProxy(should_start=False, auth_token="t")

    async def api_request(path: str, method: str, body: dict[str, Any]) -> None:
        sent.append(body)

    monkeypatch.setattr(proxy, "api_request", api_request)
    await proxy.add_route("/user/alice/", "http://10.0.0.2:8888", {"user": "alice"})
    [body] = sent
    route = {"data": body | {"last_activity": body["made"]}}
    [(server, (made, last))] = use_of({"/user/alice/": route}).items()
    assert (server, made) == (("alice", ""), last)


def test_what_cannot_be_read_is_left_out() -> None:
    routes: dict[str, Any] = {
        "/": {"data": {"hub": True, "last_activity": "2026-11-26T20:00:00.123Z"}},
        "a": {"data": {"user": "a", "last_activity": "2026-11-26T20:00:00.500Z", "made": 7}},
        "b": {"data": {"user": "b", "server_name": "x", "last_activity": None}},
    }
    assert use_of(routes) == {("a", ""): (None, 1795723200.5)}
