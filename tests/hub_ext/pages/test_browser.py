"""What the pages do in a browser: switching language, choosing, starting, cancelling."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Request, Route, async_playwright, expect

from rig.phone import BEYOND, PHONE

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
    # A chosen type has its own wait, and its own gap before a reservation.
    kind = page.get_by_label("Type of GPU")
    await kind.select_option("RTX 4090")
    await expect(limit).to_have_value("until:1800003600")
    await expect(one).to_have_accessible_description(re.compile("starts at once, until 11:00"))
    await kind.select_option("Any")
    await expect(limit).to_have_value("")
    await limit.select_option("480")
    await page.get_by_label("Charged to").select_option("user:alice")
    await expect(two).to_be_enabled()
    await expect(page.get_by_text("You may still use 3.5 of 20 GPU-hours.")).to_be_visible()
    # Eight hours are not to be had there.
    await expect(limit).to_have_value("")
    assert await limit.locator("option").all_text_contents() == ["none", "30 min", "1 h"]
    # Two start at once, if they end by then: that is what is chosen beforehand.
    await two.check()
    await expect(limit).to_have_value("until:1800000000")
    await expect(two).to_have_accessible_description(re.compile("then the GPUs are reserved"))
    await limit.select_option("60")
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
    # With its GPUs, it stands in line with all who start at this moment.
    (hub.home / "in-line").touch()
    (hub.home / "go").touch()
    await expect(page.get_by_role("region", name="In line to start")).to_contain_text("kept")
    await expect(page.locator("#queue-position")).to_have_text("3")
    await expect(page.locator("#queue-start")).to_have_text(re.compile(r"in about \d+ seconds"))
    await page.get_by_role("button", name="Leave the queue").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("The place is lost.")
    await dialog.get_by_role("button", name="Leave the queue").click()
    await expect(page.get_by_role("heading", name="No server is running")).to_be_visible()
    (hub.home / "in-line").unlink()


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
    await page.route("**/api/users/patient/server**", restart)
    await page.goto(hub.url + "spawn")
    await page.get_by_role("radio", name="Waits").check()
    await page.get_by_role("button", name="Start", exact=True).click()
    away = page.get_by_text("The hub does not answer just now.")
    await expect(away).to_be_visible()
    await expect(page.locator("#queue-position")).to_have_text("1")
    await expect(away).to_be_hidden()
    assert len(refused) == 2


async def test_a_start_that_a_restart_has_cost_is_said_to_be_lost(page: Page, hub: Hub) -> None:
    """Kind: what the start page says after a restart of the hub is true."""
    (hub.home / "go").unlink(missing_ok=True)

    async def restarted(route: Route) -> None:
        if "progress" in route.request.url:
            await route.fulfill(status=404, body="")
        else:
            await route.fulfill(json={"ready": False, "pending": None})

    await log_in(page, hub, "unlucky")
    await page.clock.install()
    await page.route("**/api/users/unlucky/server**", restarted)
    await page.goto(hub.url + "spawn")
    await page.get_by_role("radio", name="Waits").check()
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.wait_for_url("**/spawn-pending/**")
    for _ in range(2):  # it looks more than once before it believes that
        async with page.expect_response("**/server"):
            await page.clock.fast_forward(21_000)
    await expect(page.locator("#failed")).to_contain_text("The start did not go on")
    await expect(page.get_by_role("link", name="Choose again")).to_be_visible()
    await expect(page.get_by_text("What was asked for is kept")).to_be_hidden()


async def test_a_stop_without_an_answer_is_looked_at_again(page: Page, hub: Hub) -> None:
    """Kind: “the hub did not do it” is said only when it did not."""
    (hub.home / "go").unlink(missing_ok=True)
    await log_in(page, hub, "cut-off")
    await page.goto(hub.url + "spawn")
    await page.get_by_role("radio", name="Waits").check()
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.locator("#queue-position")).to_have_text("1")

    async def cut(route: Route) -> None:
        if route.request.method == "DELETE":
            await route.fetch()
            await route.abort("connectionreset")
        else:
            await route.continue_()

    await page.route("**/api/users/cut-off/server", cut)
    await page.get_by_role("button", name="Leave the queue").click()
    await page.get_by_role("dialog").get_by_role("button", name="Leave the queue").click()
    # Where the stream of the start was faster, on the server's own page.
    gone = re.compile("No server is running|The server is not running")
    await expect(page.get_by_role("heading", name=gone)).to_be_visible()


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


async def test_all_that_can_be_done_is_in_sight_on_a_telephone(browser: Browser, hub: Hub) -> None:
    """Kind: nobody finds out by scrolling a table sideways that a row has buttons."""
    page = await in_chinese(browser, hub)
    await page.set_viewport_size(PHONE)
    await page.goto(hub.url + "token")
    await page.get_by_role("button", name="创建令牌").click()
    await expect(page.locator("#token-area")).to_be_visible()
    for path, role, name in (("token", "button", "撤销"), ("admin", "link", "关闭 Hub…")):
        await page.goto(hub.url + path)
        await expect(page.get_by_role(role, name=name).first).to_be_visible()
        assert await page.evaluate(BEYOND) == []
        assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


async def in_chinese(browser: Browser, hub: Hub) -> Page:
    """An administrator's page."""
    page = await (await browser.new_context(locale="zh-CN")).new_page()
    await page.goto(hub.url + "login")
    await page.locator("input[name=username]").fill("carol")
    await page.locator("input[name=password]").fill("demo")
    await page.locator("#login_submit").click()
    return page
