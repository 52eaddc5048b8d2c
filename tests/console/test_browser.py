"""The console in a browser, behind a real hub: quotas by form, a queue that is left."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jupyterhub.services.auth import HubOAuth
from playwright.async_api import Browser, Page, async_playwright, expect
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import RequestHandler

from hub_ext.console.app import PREFIX, make_app
from hub_ext.site import Site
from hub_ext.store import Store
from spawner.gpu import quotas

from .conftest import ACCESS, ask, fill

expect.set_options(timeout=30_000)
TOKEN = "the-console's-own-token-of-this-test"


def _pages() -> Any:
    """The pages' tests: their hub is used here, too."""
    file = Path(__file__).parents[1] / "pages" / "conftest.py"
    spec = importlib.util.spec_from_file_location("pages_hub", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["pages_hub"] = module
    spec.loader.exec_module(module)
    return module


class ToHub(RequestHandler):
    """What the proxy in front does: everything under ``/hub/`` goes to the hub."""

    async def _pass(self) -> None:
        hub = self.settings["hub_url"].removesuffix("/hub/")
        answer = await AsyncHTTPClient().fetch(
            hub + self.request.uri,
            method=self.request.method,
            headers=self.request.headers,
            body=self.request.body or None,
            allow_nonstandard_methods=True,
            follow_redirects=False,
            decompress_response=False,
            raise_error=False,
        )
        self.set_status(answer.code, answer.reason)
        self.clear_header("Content-Type")
        for name, value in answer.headers.get_all():
            if name not in ("Transfer-Encoding", "Content-Length", "Connection"):
                self.add_header(name, value)
        if answer.body:
            self.write(answer.body)

    get = post = _pass

    def check_xsrf_cookie(self) -> None:
        """The hub's own business."""


@pytest.fixture
async def origin(
    tmp_path: Path, lab_site: Site, lab_store: Store, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """Hub and console under one address."""
    listener, port = bind_unused_port()
    service = {
        "name": "labcommons",
        "api_token": TOKEN,
        "oauth_redirect_uri": f"{PREFIX}oauth_callback",
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": ["admin-ui"],
    }
    monkeypatch.setenv("PAGES_SERVICES", json.dumps([service]))
    hub = _pages().Hub(tmp_path)
    process = hub.start()
    try:
        hub.wait(process)
        lab_store.transact(fill)
        auth = HubOAuth(
            api_token=TOKEN,
            api_url=f"{hub.url}api",
            base_url=PREFIX,
            oauth_client_id="service-labcommons",
            access_scopes={ACCESS},
            cookie_options={"samesite": "Lax"},
        )
        app = make_app(lab_site, lab_store, auth)
        app.settings["hub_url"] = hub.url
        app.add_handlers(".*", [("/hub/.*", ToHub)])
        server = HTTPServer(app)
        server.add_socket(listener)
        yield f"http://127.0.0.1:{port}"
        server.stop()
        await server.close_all_connections()
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        await browser.close()


async def log_in(browser: Browser, origin: str, name: str, path: str = "") -> Page:
    """Open a page of the console, by way of the hub's login."""
    page = await (await browser.new_context(locale="en-US")).new_page()
    await page.goto(f"{origin}{PREFIX}{path}")
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Password", exact=True).fill("demo")
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(f"**{PREFIX}{path}")
    return page


async def test_an_administrator_sets_a_quota_by_form(
    browser: Browser, origin: str, lab_store: Store
) -> None:
    page = await log_in(browser, origin, "carol", "quotas")
    await expect(page.get_by_text("Nothing is set: everybody may have every GPU")).to_be_visible()
    await page.get_by_role("link", name="team vision").click()
    every = page.get_by_role("group", name="All together")
    await every.get_by_label("GPUs at once", exact=True).fill("-4")
    await page.get_by_label("Longest time limit").fill("8 hours")
    await page.get_by_role("button", name="Save").click()

    # What was wrong is said, belongs to its field, and nothing that was typed is lost.
    await expect(page.get_by_role("alert")).to_be_focused()
    wrong = every.get_by_label("GPUs at once", exact=True)
    await expect(wrong).to_have_value("-4")
    await expect(wrong).to_have_accessible_description(
        "grp_gpus must be a whole number from 0 to 100000"
    )
    assert lab_store.transact(quotas.specs) == {}

    await wrong.fill("4")
    await page.get_by_label("Longest time limit").fill("8h")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("Saved")
    assert lab_store.transact(quotas.specs) == {"group:vision": {"grp_gpus": 4, "time_limit": "8h"}}
    await expect(page.get_by_role("row", name="team vision")).to_contain_text("grp_gpus 4")

    # One person's limits begin with their name.
    await page.get_by_label("One person").fill("alice")
    await page.get_by_role("button", name="Set limits").click()
    await expect(page.get_by_role("heading", name="Quotas: alice")).to_be_visible()


async def test_two_administrators_do_not_overwrite_each_other(
    browser: Browser, origin: str, lab_store: Store
) -> None:
    page = await log_in(browser, origin, "carol", "quotas/edit?subject=default")
    lab_store.transact(lambda s: quotas.set_keys(s, "default", {"max_gpus": 1}, "dave"))
    await page.get_by_label("GPUs at once", exact=True).fill("8")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("Somebody else has changed")
    await expect(page.get_by_label("GPUs at once", exact=True)).to_have_value("8")
    assert lab_store.transact(quotas.specs) == {"default": {"max_gpus": 1}}
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_contain_text("Saved")
    assert lab_store.transact(quotas.specs) == {"default": {"max_gpus": 8}}


async def test_a_person_watches_the_queue_and_leaves_it(
    browser: Browser, origin: str, lab_store: Store
) -> None:
    page = await log_in(browser, origin, "alice")
    await expect(page.get_by_role("link", name="Quotas")).to_have_count(0)
    await expect(page.get_by_text("Nobody waits.")).to_be_visible()
    lab_store.transact(lambda s: ask(s, "alice", "more"))
    # The page has noticed by itself.
    row = page.get_by_role("region", name="Who waits for GPUs").get_by_role("row", name="alice")
    await expect(row).to_contain_text("0 of 2 A100 are free, 1 needed.")
    leave = row.get_by_role("button", name="Leave the queue")
    await leave.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("button", name="Go back")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(row).to_be_visible()
    await leave.click()
    await dialog.get_by_role("button", name="Leave the queue").click()
    await expect(page.get_by_text("Nobody waits.")).to_be_visible()


async def test_a_reservation_is_made_and_cancelled_by_form(browser: Browser, origin: str) -> None:
    page = await log_in(browser, origin, "carol", "reservations")
    await page.get_by_label("Name", exact=True).fill("ML lab")
    await page.get_by_label("For whom").fill("course:ml101")
    await page.get_by_label("GPUs", exact=True).fill("9")
    await page.get_by_label("Begins").fill("2034-11-28T10:00")
    await page.get_by_label("Lasts").fill("2h")
    await page.get_by_role("button", name="Reserve").click()
    await expect(page.get_by_role("alert")).to_contain_text("So many GPUs do not exist here")
    await expect(page.get_by_label("Name", exact=True)).to_have_value("ML lab")
    await page.get_by_label("GPUs", exact=True).fill("2")
    await page.get_by_role("button", name="Reserve").click()
    row = page.get_by_role("row", name="ML lab")
    await expect(row).to_contain_text("course ml101")
    await row.get_by_role("button", name="Cancel").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel the reservation").click()
    await expect(page.get_by_text("Nothing is reserved.")).to_be_visible()
