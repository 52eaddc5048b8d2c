"""What the pages do in a browser: switching language, choosing, starting, cancelling."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Request, Route, async_playwright, expect

from .conftest import HOSTILE, Hub

ARGUMENTS = [
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# A start takes seconds, and the machine may be busy.
expect.set_options(timeout=30_000)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    # The asynchronous interface: the other one leaves an event loop running in this thread.
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=ARGUMENTS
        )
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser) -> Page:
    context = await browser.new_context(locale="en-US")
    return await context.new_page()


async def log_in(page: Page, hub: Hub, name: str) -> None:
    await page.goto(hub.url + "login")
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Password", exact=True).fill("demo")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator("#logout")).to_be_attached()


async def test_the_language_is_switched_by_keyboard_and_stays(page: Page, hub: Hub) -> None:
    await page.goto(hub.url + "login")
    await page.get_by_role("button", name="简体中文").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="登录", exact=True)).to_be_visible()
    assert await page.evaluate("document.documentElement.lang") == "zh-CN"
    await page.goto(hub.url + "nothing-here")
    await expect(page.get_by_role("heading", name="页面不存在")).to_be_visible()


async def test_switching_language_on_a_refused_form_does_not_send_it_again(
    page: Page, hub: Hub
) -> None:
    await log_in(page, hub, "switcher")
    await page.goto(hub.url + "spawn")
    await page.get_by_role("radio", name="Refused").check()
    await page.get_by_role("button", name="Start", exact=True).click()
    alert = page.locator(".spawn-error-msg")
    await expect(alert).to_be_focused()
    await page.get_by_role("button", name="简体中文").click()
    await expect(page.get_by_role("heading", name="启动服务器")).to_be_visible()
    await expect(alert).to_have_count(0)


async def test_an_older_version_is_asked_for_by_name_and_version(page: Page, hub: Hub) -> None:
    await log_in(page, hub, "older")
    await page.goto(hub.url + "spawn")
    await page.get_by_label("Version").select_option("20261101-00112233")
    async with page.expect_request(lambda request: request.method == "POST") as sent:
        await page.get_by_role("button", name="Start", exact=True).click()
    form = (await sent.value).post_data or ""
    assert "environment=py313-data%3A20261101-00112233" in form
    assert "gpu_type" not in form


async def test_arrow_keys_choose_and_the_type_of_gpu_appears_with_a_gpu(
    page: Page, hub: Hub
) -> None:
    await log_in(page, hub, "keys")
    await page.goto(hub.url + "spawn")
    kind = page.get_by_label("Type of GPU")
    await expect(kind).to_be_hidden()
    await page.get_by_role("radio", name="None").focus()
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_role("radio", name="1 GPU")).to_be_checked()
    await expect(kind).to_be_visible()
    card = page.locator(".lc-choice", has=page.locator("#gpus-1"))
    await expect(card).to_have_css("outline-style", "solid")


async def test_an_impatient_person_sends_one_request(page: Page, hub: Hub) -> None:
    await log_in(page, hub, "impatient")
    await page.goto(hub.url + "spawn")
    sent: list[Request] = []
    page.on("request", lambda r: sent.append(r) if r.method == "POST" else None)
    await page.evaluate(
        "const b = document.querySelector('#spawn_form button[type=submit]');"
        "b.click(); b.click(); b.click();"
    )
    await page.wait_for_url("**/spawn-pending/**")
    assert len(sent) == 1


async def test_free_gpus_stay_true_while_the_page_is_open(page: Page, hub: Hub) -> None:
    async def answer(route: Route) -> None:
        kinds = [
            {"model": "A100", "memory": "80 GiB", "total": 2, "free": 0},
            {"model": "RTX 4090", "memory": "24 GiB", "total": 1, "free": 0},
        ]
        body = {"simulated": True, "total": 3, "free": 0, "types": kinds}
        await route.fulfill(content_type="application/json", body=json.dumps(body))

    await log_in(page, hub, "fresh")
    await page.route("**/services/labcommons/api/v1/gpus", answer)
    await page.clock.install()
    await page.goto(hub.url + "spawn")
    await expect(page.get_by_text("2 of 3 free now")).to_be_visible()
    await page.clock.run_for(15_000)
    await expect(page.get_by_text("0 of 3 free now")).to_be_visible()
    one = page.get_by_role("radio", name="1 GPU")
    await expect(one).to_be_disabled()
    await expect(one).to_have_accessible_description("0 of 3 free now All GPUs are in use now.")


async def test_without_the_console_the_page_keeps_what_it_shows(page: Page, hub: Hub) -> None:
    asked: list[str] = []

    async def refuse(route: Route) -> None:
        asked.append(route.request.url)
        await route.fulfill(status=401, content_type="application/json", body="{}")

    await log_in(page, hub, "stale")
    await page.route("**/services/labcommons/api/v1/gpus", refuse)
    await page.clock.install()
    await page.goto(hub.url + "spawn")
    await page.clock.run_for(15_000)
    await expect(page.get_by_text("2 of 3 free now")).to_be_visible()
    await page.clock.run_for(60_000)
    assert len(asked) == 1


async def test_a_failed_start_ends_in_its_reason_and_a_way_on(page: Page, hub: Hub) -> None:
    await log_in(page, hub, "unlucky")
    await page.goto(hub.url + "spawn")
    await page.get_by_role("radio", name="Fails").check()
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.locator("#steps li").first).to_have_text("Server requested")
    reason = page.locator("#failed")
    await expect(reason).to_be_focused()
    await expect(reason).to_contain_text(HOSTILE)
    await expect(page.locator("#steps li").last).to_contain_text("Starting a container")
    await page.get_by_role("link", name="Choose again").click()
    await expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible()


async def test_cancelling_a_start_asks_first(page: Page, hub: Hub) -> None:
    await log_in(page, hub, "doubter")
    await page.goto(hub.url + "spawn")
    await page.get_by_role("button", name="Start", exact=True).click()
    cancel = page.get_by_role("button", name="Cancel the start")
    await cancel.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("button", name="Go back")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await cancel.click()
    await dialog.get_by_role("button", name="Cancel the start").click()
    await expect(page.get_by_role("heading", name="No server is running")).to_be_visible()


async def test_each_account_shows_its_own_limits_and_waits(
    page: Page, hub: Hub, charged: dict[str, Any]
) -> None:
    await log_in(page, hub, "chooser")
    await page.goto(hub.url + "spawn")
    one, two = (page.get_by_role("radio", name=f"{n} GPU") for n in (1, 2))
    await expect(one).to_have_accessible_description(
        "2 of 3 free now waits; 2 ahead of you; about 14:30"
    )
    await expect(two).to_be_disabled()
    limit = page.get_by_label("Time limit")
    await limit.select_option("480")
    await page.get_by_label("Charged to").select_option("user:alice")
    await expect(two).to_be_enabled()
    await expect(page.get_by_text("You may still use 3.5 of 20 GPU-hours.")).to_be_visible()
    # Eight hours are not to be had there.
    await expect(limit).to_have_value("")
    assert await limit.locator("option").all_text_contents() == ["none", "30 min", "1 h"]
    await limit.select_option("60")
    await two.check()
    await page.get_by_label("Wait in the queue").uncheck()
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.wait_for_url("**/spawn-pending/**")
    sent = json.loads((hub.home / "form.json").read_text())
    assert sent["account"] == ["user:alice"]
    assert sent["time_limit"] == ["60"]
    assert "wait" not in sent
    assert sent["wait_shown"] == ["true"]


async def test_without_a_gpu_nothing_is_charged(
    page: Page, hub: Hub, charged: dict[str, Any]
) -> None:
    await log_in(page, hub, "nogpu")
    await page.goto(hub.url + "spawn")
    await expect(page.get_by_label("Charged to")).to_be_visible()
    await page.get_by_role("radio", name="None").check()
    await expect(page.get_by_label("Charged to")).to_be_hidden()
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.wait_for_url("**/spawn-pending/**")
    assert "account" not in json.loads((hub.home / "form.json").read_text())


async def test_who_waits_sees_place_start_and_reason_and_may_leave(page: Page, hub: Hub) -> None:
    (hub.home / "go").unlink(missing_ok=True)
    await log_in(page, hub, "waiter")
    await page.goto(hub.url + "spawn")
    await page.get_by_role("radio", name="Waits").check()
    await page.get_by_role("button", name="Start", exact=True).click()
    queue = page.get_by_role("region", name="Waiting for GPUs")
    await expect(queue).to_contain_text("0 of 2 A100 are free.")
    await expect(page.locator("#queue-position")).to_have_text("1")
    await expect(page.locator("#queue-start")).to_contain_text("May")  # 2033-05-18
    await expect(page.get_by_role("heading", name="Your server waits for GPUs")).to_be_visible()
    # News of the queue is no step of the start.
    await expect(page.locator("#steps")).not_to_contain_text("Number")
    await page.reload()
    await expect(page.locator("#queue-position")).to_have_text("1")
    await page.get_by_role("button", name="Leave the queue").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("The place is lost.")
    await dialog.get_by_role("button", name="Leave the queue").click()
    await expect(page.get_by_role("heading", name="No server is running")).to_be_visible()


async def test_the_page_takes_up_again_after_a_restart_of_the_hub(page: Page, hub: Hub) -> None:
    (hub.home / "go").unlink(missing_ok=True)
    refused: list[str] = []

    async def restart(route: Route) -> None:
        if len(refused) < 2:
            refused.append(route.request.url)
            await route.fulfill(status=503, body="")
        else:
            await route.continue_()

    await log_in(page, hub, "patient")
    await page.route("**/progress*", restart)
    await page.goto(hub.url + "spawn")
    await page.get_by_role("radio", name="Waits").check()
    await page.get_by_role("button", name="Start", exact=True).click()
    away = page.get_by_text("The hub does not answer just now.")
    await expect(away).to_be_visible()
    await expect(page.locator("#queue-position")).to_have_text("1")
    await expect(away).to_be_hidden()
    assert len(refused) == 2


async def test_the_start_goes_on_when_the_wait_is_over(page: Page, hub: Hub) -> None:
    (hub.home / "go").unlink(missing_ok=True)
    await log_in(page, hub, "lucky")
    await page.goto(hub.url + "spawn")
    await page.get_by_role("radio", name="Waits").check()
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.locator("#queue")).to_be_visible()
    (hub.home / "go").touch()
    await expect(page.locator("#queue")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_is_cut_off_on_a_telephone(browser: Browser, hub: Hub, scheme: str) -> None:
    context = await browser.new_context(
        viewport={"width": 375, "height": 700},
        locale="en-US",
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = await context.new_page()
    await log_in(page, hub, "mobile")
    for path in ("home", "spawn", "nothing-here"):
        await page.goto(hub.url + path)
        assert await page.evaluate("document.documentElement.dataset.bsTheme") == scheme
        assert await page.evaluate("document.documentElement.scrollWidth") == 375
    await page.get_by_role("button", name="Menu").click()
    await expect(page.get_by_role("button", name="Sign out")).to_be_visible()
