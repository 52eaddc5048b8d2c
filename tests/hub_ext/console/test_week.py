"""Reservations: weeks and months, what is in the way before it is saved, hours that are dragged
over; and what limits would do before they are saved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta
from urllib.parse import urlencode

import pytest
from playwright.async_api import Browser, async_playwright, expect

from commons.store.models import GpuReservation
from spawner.gpu.quotas import quota_store

from .conftest import HOSTILE, Console, ask

DAY = date.today() + timedelta(days=40)
FORM = {
    "name": f"Lesson {HOSTILE}",
    "subject": "course:ml101",
    "starts": f"{DAY}T10:00",
    "duration": "2h",
    "timezone": "UTC",
    "gpus": "1",
    "gpu_type": f"RTX {HOSTILE}",
    "repeat": "once",
}


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        yield found
        await found.close()


def reserved(console: Console) -> int:
    return console.store.transact(lambda s: s.query(GpuReservation).count(), read=True)


async def post(console: Console, path: str, **form: str) -> tuple[int, str]:
    answer = await console.send(
        "POST",
        path,
        "carol-token",
        urlencode(form),
        **{"Content-Type": "application/x-www-form-urlencoded"},
    )
    return answer.code, answer.body.decode()


async def test_what_is_in_the_way_is_said_before_anything_is_saved(filled: Console) -> None:
    code, page = await post(filled, "reservations", **FORM, do="look")
    assert (code, reserved(filled)) == (200, 0)
    assert "Nothing is in the way" in page
    assert f'value="{DAY}T10:00"' in page, "the form stays filled"
    assert (await post(filled, "reservations", **FORM))[0] == 302
    code, page = await post(filled, "reservations", **{**FORM, "name": "other"}, do="look")
    assert (code, reserved(filled)) == (409, 1)
    assert "Nothing was reserved" in page
    assert HOSTILE not in page


async def test_any_week_and_month_can_be_seen(filled: Console) -> None:
    await post(filled, "reservations", **FORM)
    for path, there in (
        ("reservations", False),
        (f"reservations?from={DAY}", True),
        (f"reservations?from={DAY - timedelta(days=9)}&view=month", True),
        ("reservations?from=9999-12-31", False),
        ("reservations?from=x&view=y", False),
    ):
        page = (await filled.get(path, "carol-token")).body.decode()
        assert ("<strong>Lesson" in page) is there, path
        assert HOSTILE not in page
    month = (await filled.get(f"reservations?from={DAY}&view=month", "alice-token")).body.decode()
    assert month.count("<h3>") == 35
    assert 'id="plan"' not in month


async def test_hours_that_are_dragged_over_fill_in_the_form(
    filled: Console, browser: Browser
) -> None:
    await post(filled, "reservations", **FORM)
    context = await browser.new_context(
        extra_http_headers={"Authorization": "token carol-token"}, timezone_id="UTC"
    )
    page = await context.new_page()
    await page.goto(f"{filled.origin}/services/labcommons/reservations?from={DAY}")
    await page.click("#drag > summary")
    await expect(page.locator(".lc-plan__busy")).to_have_count(1)
    await expect(page.locator(".lc-plan__busy")).to_have_text(FORM["name"])
    box = await page.locator(".lc-plan__day").nth(2).bounding_box()
    assert box is not None
    x, hour = box["x"] + box["width"] / 2, box["height"] / 24
    await page.mouse.move(x, box["y"] + 9.1 * hour)
    await page.mouse.down()
    await page.mouse.move(x, box["y"] + 11.3 * hour, steps=4)
    await page.mouse.up()
    day = DAY + timedelta(days=2)
    await expect(page.locator("#r-starts")).to_have_value(f"{day}T09:00")
    await expect(page.locator("#r-duration")).to_have_value("150m")
    await expect(page.locator("#r-name")).to_be_focused()
    await context.close()


async def test_what_limits_would_do_is_said_before_they_are_saved(filled: Console) -> None:
    limits = {"default": {"max_gpus": 1, "time_limit": "8h"}}
    filled.store.transact(lambda s: quota_store.apply(s, limits, "carol"))
    filled.store.transact(lambda s: ask(s, "alice", "more", gpu_type="", time_limit=3600))
    form = {"max_gpus": "2", "time_limit": "8h", "tag": "x", "do": "look"}
    code, page = await post(filled, "quotas/edit?subject=default", **form)
    assert code == 200
    assert "Starts at once" in page
    assert filled.store.transact(quota_store.specs, read=True) == limits, "nothing is saved"
    code, page = await post(filled, "quotas/edit?subject=default", **{**form, "max_gpus": "-1"})
    assert code == 400
    assert "Nothing was saved" in page
