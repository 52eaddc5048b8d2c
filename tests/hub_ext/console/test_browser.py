"""The console in a browser, behind a real hub: quotas by form, a queue that is left."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jupyterhub.services.auth import HubOAuth
from playwright.async_api import Browser, Page, async_playwright, expect
from sqlalchemy.orm import Session
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import RequestHandler

from commons.messages import Message
from commons.scopes import Scope, personal
from commons.site import Builds, Site
from commons.store import Store
from commons.store.environments import BuildState, EnvironmentBuild
from commons.store.models import SharedServer, utcnow
from environments.builds import messages, queue, repository
from environments.messages import making
from hub_ext.console import inbox
from hub_ext.console.app import PREFIX, make_app
from rig.phone import BEYOND, PHONE
from spawner import shared_servers
from spawner.gpu.quotas import quota_store
from spawner.shared_servers import State
from spawner.warm import records

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
    assert lab_store.transact(quota_store.specs) == {}

    await wrong.fill("4")
    await page.get_by_label("Longest time limit").fill("8h")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("Saved")
    assert lab_store.transact(quota_store.specs) == {
        "group:vision": {"grp_gpus": 4, "time_limit": "8h"}
    }
    await expect(page.get_by_role("row", name="team vision")).to_contain_text("grp_gpus 4")

    # One person's limits begin with their name.
    await page.get_by_label("One person").fill("alice")
    await page.get_by_role("button", name="Set limits").click()
    await expect(page.get_by_role("heading", name="Quotas: alice")).to_be_visible()


async def test_two_administrators_do_not_overwrite_each_other(
    browser: Browser, origin: str, lab_store: Store
) -> None:
    page = await log_in(browser, origin, "carol", "quotas/edit?subject=default")
    lab_store.transact(lambda s: quota_store.set_keys(s, "default", {"max_gpus": 1}, "dave"))
    await page.get_by_label("GPUs at once", exact=True).fill("8")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("Somebody else has changed")
    await expect(page.get_by_label("GPUs at once", exact=True)).to_have_value("8")
    assert lab_store.transact(quota_store.specs) == {"default": {"max_gpus": 1}}
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_contain_text("Saved")
    assert lab_store.transact(quota_store.specs) == {"default": {"max_gpus": 8}}


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
    await page.set_viewport_size(PHONE)
    assert await page.evaluate(BEYOND) == []
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
    await page.get_by_role("button", name="Reserve", exact=True).click()
    # Somebody's lease has no end.
    await expect(page.get_by_role("alert")).to_contain_text("cannot be kept. Nothing was saved")
    await expect(page.get_by_role("alert")).to_contain_text("leases without an end hold")
    await page.get_by_role("button", name="Reserve anyway").click()
    row = page.get_by_role("row", name="ML lab")
    await expect(row).to_contain_text("course ml101")
    await row.get_by_role("button", name="Cancel").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel the reservation").click()
    await expect(page.get_by_text("Nothing is reserved.")).to_be_visible()


async def test_servers_are_started_ahead_by_form_and_what_became_of_them_is_told(
    browser: Browser, origin: str, lab_store: Store
) -> None:
    page = await log_in(browser, origin, "carol", "ahead")
    await page.get_by_label("Name", exact=True).fill("Lesson 3")
    await page.get_by_label("For whom").select_option("course:ml101")
    await page.get_by_label("Begins").fill("2019-11-24T09:50")
    await page.get_by_role("button", name="Start ahead of time").click()
    await expect(page.locator("[data-focus]")).to_contain_text("over already")
    await expect(page.get_by_label("Name", exact=True)).to_have_value("Lesson 3")
    begins = datetime.now() + timedelta(days=1)
    await page.get_by_label("Begins").fill(begins.strftime("%Y-%m-%dT09:50"))
    await page.get_by_role("button", name="Start ahead of time").click()
    lesson = page.get_by_role("article", name="Lesson 3")
    await expect(lesson).to_contain_text("course ml101")
    await expect(lesson).to_contain_text("planned")
    [row] = lab_store.transact(records.standing)

    def go_on(session: Session) -> None:
        records.begin(session, row.id, ["alice", "s01"], utcnow())
        for held in records.live(session, "s01"):
            records.move(session, held, records.State.FAILED, records.NEVER_HERE())

    lab_store.transact(go_on)
    await lesson.get_by_text("not started: 1").click()
    await expect(lesson).to_contain_text("s01 not started: has never logged in here")
    await lesson.get_by_role("button", name="Cancel").click()
    await page.get_by_role("dialog").get_by_role("button", name="Start no more").click()
    await expect(lesson).to_contain_text("cancelled")
    # Nobody else has this page.
    page = await log_in(browser, origin, "alice", "ahead")
    await expect(page.get_by_role("main")).to_contain_text("by who looks after it")


async def test_a_file_of_any_unicode_encoding_is_uploaded_with_its_text(
    browser: Browser, origin: str, lab_store: Store
) -> None:
    """The kind: a file from another system, whose characters a browser would replace unasked."""
    page = await log_in(browser, origin, "alice", "environments")
    await page.get_by_text("Build an environment").click()
    text = "name: cells\r\n# 细胞计数, Zählung\r\ndependencies:\r\n  - python\r\n"
    kept = text.replace("\r\n", "\n")
    field, upload = page.locator("#new-spec"), page.locator("#new-file")

    async def give(raw: bytes) -> None:
        await field.fill("")
        await upload.set_input_files({"name": "e.yml", "mimeType": "text/plain", "buffer": raw})

    for codec in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        mark = b"\xfe\xff" if codec == "utf-16-be" else b""
        await give(mark + text.encode(codec))
        await expect(field).to_have_value(kept)
    for raw in (text.encode("gb18030"), b"# Z\xe4hlung\n", b"\xff\xfe\x00"):
        await give(raw)
        await expect(page.get_by_role("alert")).to_contain_text("not UTF-8 text. Save it as UTF-8")
        await expect(field).to_have_value("")
    await give(b"#" * 2_100_000)
    await expect(page.get_by_role("alert")).to_contain_text("This file is too large.")

    await give(b"numpy\nscipy>=1\n")
    await page.locator("#new-name").fill("cells")
    await page.get_by_role("button", name="Build", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("This is pip's requirements.txt")
    await expect(field).to_have_value("numpy\nscipy>=1\n")
    await page.get_by_role("button", name="Make an environment.yml of it").click()
    await expect(field).to_have_value(
        "name: cells\ndependencies:\n  - python\n  - ipykernel\n  - pip:\n"
        "      - numpy\n      - scipy>=1\n"
    )
    await expect(page.get_by_role("alert")).to_be_hidden()
    await give(text.encode("utf-16"))
    await page.get_by_role("button", name="Build", exact=True).click()
    await expect(page.locator(".lc-build", has_text="cells")).to_be_visible()
    asked = lab_store.transact(
        lambda s: [(job.name, job.spec) for job in queue.recent(s)], read=True
    )
    assert asked == [("cells", kept)]


async def test_a_failed_build_is_corrected_and_an_environment_changed_on_the_page(
    browser: Browser, origin: str, lab_store: Store
) -> None:
    """The text is kept by the server; the difference is shown before anything is built."""
    mine, limits = personal("alice"), Builds()
    text = "name: study\nchannels: [conda-forge]\ndependencies:\n  - python 3.13.*\n  - numpy\n"

    def fail(session: Session, name: str, message: Message) -> None:
        job = queue.enqueue(
            session, queue.BuildRequest("create", mine, name, "alice", spec=text), limits
        )
        queue.move(job, BuildState.RUNNING)
        queue.end(session, job.id, BuildState.FAILED, str(message), said=message.as_json())

    wanted = making.KERNEL_WANTED(name="study", package="ipykernel")
    wrong = making.PIP_UNKNOWN(package="numpyy", python="Python 3.13", near=("numpy",))
    lab_store.transact(lambda s: fail(s, "study", messages.failed("kernel", wanted)))
    lab_store.transact(lambda s: fail(s, "wrong", messages.failed("package", wrong)))
    facts = {
        "python": "3.13.5", "lock_digest": "ab", "size": 1, "spec": text, "words": "", "lock": "",
        "packages": [], "kernels": {"python3": {}}, "findings": [], "origin": None, "exports": {},
    }  # fmt: skip
    lab_store.transact(
        lambda s: repository.record(
            s, mine, "there", "20261121-aa", built_by="alice", created_at=datetime(2026, 11, 21),
            facts=facts, kept=set(),
        )
    )  # fmt: skip
    page = await log_in(browser, origin, "alice", "environments")
    builds = page.get_by_role("region", name="Builds")
    # Nothing that would fail again is offered.
    await expect(builds.get_by_role("button", name="Try again")).to_have_count(0)
    await expect(builds.get_by_text("Did you mean numpy?")).to_be_visible()
    await builds.get_by_role("button", name="Correct the text…: wrong").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_label("Contents of environment.yml")).to_have_value(text)
    await page.keyboard.press("Escape")
    await builds.get_by_role("button", name="Add ipykernel and build: study").click()
    await expect(builds.get_by_text("Waiting for its turn")).to_be_visible()

    await page.get_by_role("button", name="Change there").click()
    await dialog.get_by_label("Add packages").fill("cowsay pandas >=2")
    await dialog.get_by_label("Remove packages").fill("numpy")
    await dialog.get_by_role("button", name="Show what will change").click()
    changes = dialog.locator("#edit-diff")
    for line in ("-  - numpy", "+  - cowsay", "+  - pandas>=2"):
        await expect(changes.get_by_text(line, exact=True)).to_be_visible()
    await shots(page, "environments-edit")
    await dialog.get_by_role("button", name="Build", exact=True).click()
    await expect(dialog).to_be_hidden()
    jobs = lab_store.transact(
        lambda s: {job.name: s.get(EnvironmentBuild, job.id).spec for job in queue.recent(s)},  # type: ignore[union-attr]
        read=True,
    )
    assert "- pandas>=2" in jobs["there"]
    assert "- numpy\n" not in jobs["there"]
    # A second change while that is built is told, and what was typed stays.
    await page.get_by_role("button", name="Change there").click()
    await dialog.get_by_label("Add packages").fill("six")
    await dialog.get_by_role("button", name="Show what will change").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("is being built")
    await expect(dialog.get_by_label("Add packages")).to_have_value("six")
    await page.keyboard.press("Escape")
    await shots(page, "environments")
    # Of what one may not change, one gets a copy of one's own.
    await page.get_by_role("button", name="Add packages to a copy of py313-data").click()
    await dialog.get_by_label("Add packages").fill("cowsay")
    await shots(page, "environments-derive")
    await dialog.get_by_role("button", name="Build", exact=True).click()
    await expect(builds.get_by_role("heading", name="Build: py313-data → personal")).to_be_visible()


async def shots(page: Page, name: str) -> None:
    """Pictures to look at, where LABCOMMONS_SHOTS names a folder."""
    if not (folder := os.environ.get("LABCOMMONS_SHOTS")):
        return
    for width, scheme in ((1280, "light"), (390, "light"), (390, "dark"), (1280, "dark")):
        await page.set_viewport_size({"width": width, "height": 1000})
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await page.screenshot(path=f"{folder}/{name}-{width}-{scheme}.png", full_page=True)
    await page.set_viewport_size({"width": 1280, "height": 720})


async def test_what_was_sent_is_refused_and_taken_again_on_the_page(
    browser: Browser, origin: str, lab_store: Store
) -> None:
    """Kind: the receiver's choices: throw away, no more of somebody, back again; by name."""
    page = await log_in(browser, origin, "alice", "inbox")
    await expect(page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
    one = inbox.read("plan.ipynb", "r45:1", inbox.pack({"nbformat": 4, "cells": []}))

    def sent(name: str, *senders: str) -> None:
        parcel = replace(one, name=name)
        for sender in senders:
            lab_store.transact(lambda s, who=sender: inbox.send(s, who, ["alice"], parcel, True))

    sent("plan.ipynb", "bob", "dan")
    sent("old.ipynb", "bob")
    # They come by themselves.
    old = page.get_by_role("region", name="old.ipynb")
    await expect(old).to_contain_text("from bob")
    await shots(page, "inbox")
    await old.get_by_role("button", name="Throw away").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Throw away").click()
    await expect(old).to_be_hidden()
    plans = page.get_by_role("region", name="plan.ipynb")
    await plans.get_by_role("button", name="No more from bob").click()
    await dialog.get_by_role("button", name="No more from bob").click()
    await expect(plans).to_have_count(1)
    await expect(plans).to_contain_text("from dan")
    with pytest.raises(inbox.NotAllowed):
        sent("more.ipynb", "bob")
    await page.get_by_role("button", name="Take notebooks of bob again").click()
    await dialog.get_by_role("button", name="Take again").click()
    await expect(page.get_by_role("region", name="You take nothing from")).to_be_hidden()
    sent("more.ipynb", "bob")
    await expect(page.get_by_role("region", name="more.ipynb")).to_be_visible()
    await page.get_by_label("Login name").fill("mallory")
    await page.get_by_role("button", name="Refuse", exact=True).click()
    await expect(page.get_by_role("region", name="You take nothing from")).to_contain_text(
        "mallory"
    )
    await shots(page, "inbox-refused")


async def test_a_shared_server_is_made_started_and_stopped_on_its_page(
    browser: Browser, origin: str, lab_store: Store, lab_site: Site
) -> None:
    key, course = ("course-ml101", "project"), Scope("course", "ml101")
    page = await log_in(browser, origin, "carol", "shared")
    name = page.get_by_label("Name of the server")
    await name.fill("project")
    await page.get_by_label("Environment").fill("none-such")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_be_focused()
    await expect(page.get_by_role("alert")).to_contain_text("Nothing was changed")
    await expect(name).to_have_value("project")
    lab_store.transact(
        lambda s: s.add(
            SharedServer(
                scope=key[0], name=key[1], user_options={"size": "small"}, leads_only=False,
                members_run=True, created_by="dan", state="stopped", at=utcnow(), by="", people=[],
            )
        )
    )  # fmt: skip
    # The page has noticed by itself, and goes on to.
    one = page.get_by_role("article", name="project")
    await one.get_by_role("button", name="Start “project”").click()
    await expect(one).to_contain_text("asked for by carol")
    lab_store.transact(lambda s: shared_servers.move(s, key, ["asked"], State.RUNNING))
    lab_store.transact(lambda s: shared_servers.note_people(s, key, {"bob", "alice"}))
    await expect(one.get_by_role("link", name="Open “project”")).to_have_attribute(
        "href", "/hub/shared/course-ml101/project"
    )
    await expect(one).to_contain_text("In it now: alice, bob")
    await page.set_viewport_size(PHONE)
    assert await page.evaluate(BEYOND) == []
    await one.get_by_role("button", name="Stop “project”").click()
    await page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    await expect(one).to_contain_text("Stopping")
    row = lab_store.transact(lambda s: shared_servers.get(s, course, "project"))
    assert (row.state, row.by) == ("ending", "carol")
