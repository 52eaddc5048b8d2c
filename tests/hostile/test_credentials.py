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


SECRET = re.compile(r"token|secret|key|password|cookie|credential", re.I)


def test_a_server_is_started_with_its_own_token_and_no_other_secret(hub: StandInHub) -> None:
    environment = hub.record("alice")[0]["environment"]
    secret = {name: value for name, value in environment.items() if SECRET.search(name)}
    own = {secret.pop("JUPYTERHUB_API_TOKEN"), secret.pop("JPY_API_TOKEN")}
    assert own == {hub.server_token("alice")}
    # Of the rest only settings, and what the stand-in itself needs.
    assert set(secret) <= {
        "JUPYTERHUB_COOKIE_OPTIONS",
        "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED",
        "JPY_COOKIE_NAME",
    }
    for name in hub.secrets:
        assert hub.secrets[name] not in environment.values(), name


def sign_in(hub: StandInHub, user: str) -> requests.Session:
    """A browser in which somebody is logged in; its cookies go to every port of the host."""
    browser = requests.Session()
    page = browser.get(f"{hub.origin}/hub/login", timeout=30)
    form = {"username": user, "password": "demo", "_xsrf": _cookie(page, "_xsrf")}
    cookies = {"_xsrf": form["_xsrf"], **_anonymous(page)}
    done = browser.post(
        f"{hub.origin}/hub/login", data=form, cookies=cookies, allow_redirects=False, timeout=30
    )
    assert done.status_code == 302, done.text[:500]
    # They are for https alone; here is none.
    for cookie in done.cookies:
        cookie.secure = False
        browser.cookies.set_cookie(cookie)
    return browser


def _cookie(page: requests.Response, name: str) -> str:
    return str(next(one.value for one in page.cookies if one.name == name))


def _anonymous(page: requests.Response) -> dict[str, str]:
    return {one.name: str(one.value) for one in page.cookies}


def test_what_an_administrators_visit_brings_a_server_opens_nothing_else(hub: StandInHub) -> None:
    """carol opens alice's server: its login brings it a token of hers, for this one server."""
    browser = sign_in(hub, "carol")
    door = f"{hub.server_url('alice')}door"
    at_server = browser.get(door, allow_redirects=False, timeout=30)
    assert at_server.status_code == 302
    state = {one.name: str(one.value) for one in at_server.cookies}
    asked = browser.get(
        f"{hub.origin}{at_server.headers['Location']}", allow_redirects=False, timeout=30
    )
    if asked.status_code == 200:  # the hub asks whether she wants to
        values = re.findall(r'name="(_xsrf|scopes)"[^>]*value="([^"]*)"', asked.text)
        asked = browser.post(
            asked.url, data=[*values], headers={"Referer": asked.url}, allow_redirects=False,
            timeout=30,
        )  # fmt: skip
    assert asked.status_code == 302, asked.text[:500]
    code = asked.headers["Location"].partition("?")[2]
    back = requests.get(
        f"{hub.server_url('alice')}oauth_callback?{code}", cookies=state, allow_redirects=False,
        timeout=30,
    )  # fmt: skip
    assert back.status_code == 302, back.text[:500]
    cookies = {one.name: str(one.value) for one in back.cookies} | browser.cookies.get_dict()
    inside = requests.get(door, cookies=cookies, allow_redirects=False, timeout=30)
    assert inside.json()["you"] == "carol"
    tokens = {one["token"] for one in hub.record("alice") if one.get("token")}
    tokens -= {hub.server_token("alice")}
    assert tokens, "the server has a token of carol's"
    for token in tokens:
        who = hub.api("GET", "user", token=token).json()
        assert who["name"] == "carol"
        assert [one for one in who["scopes"] if not one.startswith("read:users:")] == [
            "access:servers!server=alice/"
        ]
        assert opens(hub, token, f"{hub.server_url('bob')}door") != 200
        assert opens(hub, token, f"{hub.server_url('carol')}door") != 200
        for method, path in (
            ("GET", "users"), ("POST", "users/carol/tokens"), ("POST", "users/carol/server"),
            ("GET", "services"), ("POST", "users/carol/activity"),
        ):  # fmt: skip
            assert hub.api(method, path, {}, token=token).status_code in (403, 404), path


def test_the_hubs_cookies_that_reach_a_server_log_nobody_in(hub: StandInHub) -> None:
    """On a site of one origin browsers send the hub's cookies with the path / to every server."""
    browser = sign_in(hub, "carol")
    everywhere = {one.name: one for one in browser.cookies if one.path == "/"}
    assert "jupyterhub-session-id" in everywhere
    sent = {name: str(one.value) for name, one in everywhere.items()}
    for url in (f"{hub.origin}/hub/api/user", f"{hub.server_url('bob')}door"):
        answer = requests.get(url, cookies=sent, allow_redirects=False, timeout=30)
        assert answer.status_code in (302, 403)
