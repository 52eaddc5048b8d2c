"""The login page of a real JupyterHub, with the messages a person gets to see."""

from __future__ import annotations

import html
import logging
import os
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
from jupyterhub.proxy import Proxy
from jupyterhub.tests.mocking import MockHub
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from traitlets.config import Config

from commons.i18n import LANGUAGE_COOKIE, gettext_for
from hub_ext.authenticator import LDAPAuthenticator
from hub_ext.directory.errors import DirectoryUnavailable, WrongCredentials
from rig.slapd import PEOPLE, Slapd

pytestmark = pytest.mark.ldap

WRONG = WrongCredentials().sentence()
DOWN = DirectoryUnavailable([]).sentence()


class MemoryProxy(Proxy):
    """Keeps the routes and carries nothing: these tests talk to the hub itself."""

    should_start = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.routes = {}

    async def add_route(self, routespec, target, data):
        self.routes[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec):
        self.routes.pop(routespec, None)

    async def get_all_routes(self):
        return self.routes


@pytest.fixture
async def hub(own_slapd: Slapd, tmp_path, monkeypatch) -> AsyncIterator[MockHub]:
    monkeypatch.chdir(tmp_path)
    config = Config({"LDAPAuthenticator": own_slapd.traits()})
    config.LDAPAuthenticator.admin_groups = ["platform-admins"]
    config.LDAPAuthenticator.auth_refresh_age = 1
    config.LDAPAuthenticator.auth_refresh_strict = True
    config.LDAPAuthenticator.failed_login_seconds = 0
    config.CryptKeeper.keys = [os.urandom(32)]
    app = MockHub.instance(
        config=config, authenticator_class=LDAPAuthenticator, proxy_class=MemoryProxy
    )
    await app.initialize([])
    await app.start()
    yield app
    # Its handlers would write to streams that pytest has closed.
    app.log.handlers = []
    MockHub.clear_instance()
    await app.stop()


class Browser:
    """Keeps cookies, follows nothing."""

    def __init__(self, hub: MockHub, **headers: str) -> None:
        self._base = f"http://127.0.0.1:{hub.hub.port}{hub.hub.base_url}"
        self._headers = headers
        self.cookies: dict[str, str] = {}

    async def fetch(self, path: str, **options) -> HTTPResponse:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = await AsyncHTTPClient().fetch(
            self._base + path,
            headers={**self._headers, "Cookie": cookies, "Sec-Fetch-Mode": "navigate"},
            raise_error=False,
            follow_redirects=False,
            **options,
        )
        for cookie in response.headers.get_list("Set-Cookie"):
            name, _, value = cookie.split(";")[0].partition("=")
            self.cookies[name] = value
        return response

    async def log_in(self, name: str, password: str) -> HTTPResponse:
        await self.fetch("login")
        form = {"username": name, "password": password, "_xsrf": self.cookies["_xsrf"]}
        return await self.fetch("login", method="POST", body=urlencode(form))


def shown(response: HTTPResponse) -> str:
    return html.unescape(response.body.decode())


async def test_the_right_password_logs_in_with_groups_rights_and_state(hub):
    response = await Browser(hub).log_in("Carol", "carol-secret")
    assert response.code == 302
    user = hub.users["carol"]
    assert user.admin
    assert "platform-admins" in {group.name for group in user.orm_user.groups}
    assert (await user.get_auth_state())["uid"] == 20001


@pytest.mark.parametrize("name", ["alice", "mallory"])
async def test_a_wrong_password_is_said_on_the_login_page(hub, name):
    response = await Browser(hub).log_in(name, "wrong")
    assert response.code == 403
    assert WRONG in shown(response)
    assert f'value="{name}"' in shown(response)


async def test_it_is_said_in_chinese_to_who_reads_chinese(hub):
    chinese = gettext_for("zh_CN")(WRONG)
    assert chinese != WRONG
    by_header = await Browser(hub, **{"Accept-Language": "zh-CN,zh;q=0.9"}).log_in("alice", "wrong")
    assert chinese in shown(by_header)
    browser = Browser(hub)
    browser.cookies[LANGUAGE_COOKIE] = "zh_CN"
    assert chinese in shown(await browser.log_in("alice", "wrong"))


async def test_a_directory_that_is_down_is_said_and_is_no_500(hub, own_slapd):
    own_slapd.stop()
    response = await Browser(hub).log_in("alice", "alice-secret")
    assert response.code == 503
    assert DOWN in shown(response)


async def test_a_name_with_markup_is_shown_as_text(hub):
    response = await Browser(hub).log_in("<script>alert(1)</script>", "x")
    assert response.code == 403
    assert b"<script>alert(1)" not in response.body


async def test_who_is_logged_in_stays_so_during_an_outage(hub, own_slapd, caplog):
    caplog.set_level(logging.INFO)
    browser = Browser(hub)
    await browser.log_in("alice", "alice-secret")
    own_slapd.stop()
    hub.users["alice"]._auth_refreshed = None
    assert (await browser.fetch("home")).code == 200
    assert "kept" in caplog.text


async def test_who_left_the_directory_is_sent_to_the_login_page(hub, own_slapd):
    browser = Browser(hub)
    await browser.log_in("alice", "alice-secret")
    assert (await browser.fetch("home")).code == 200
    own_slapd.modify(f"dn: uid=alice,{PEOPLE}\nchangetype: delete\n")
    hub.users["alice"]._auth_refreshed = None
    response = await browser.fetch("home")
    assert response.code == 302
    assert "login" in response.headers["Location"]


async def test_a_token_ends_with_the_account(hub, own_slapd):
    browser = Browser(hub)
    await browser.log_in("alice", "alice-secret")
    alice = hub.users["alice"]
    token = Browser(hub, Authorization=f"token {alice.new_api_token()}")
    assert (await token.fetch("api/user")).code == 200
    own_slapd.modify(f"dn: uid=alice,{PEOPLE}\nchangetype: delete\n")
    alice._auth_refreshed = None
    assert (await token.fetch("api/user")).code == 403


async def test_too_many_failures_are_said_and_are_no_500(hub):
    for _ in range(4):
        await Browser(hub).log_in("alice", "wrong")
    response = await Browser(hub).log_in("alice", "alice-secret")
    assert response.code == 429
    assert "Too many failed logins" in shown(response)
