"""The page in a browser: it changes by itself, and is searched as one types."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.kernels.service.conftest import PREFIX, add

expect.set_options(timeout=30_000)


@pytest.fixture
async def page(origin, registrar, store, make_prefix) -> AsyncIterator[Page]:
    add(store, "data")
    make_prefix("torch", root="teams/vision/envs")
    running = asyncio.create_task(registrar.keep_in_step(0.5))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = await browser.new_page(extra_http_headers={"Authorization": "token alice-token"})
        await page.goto(f"{origin}{PREFIX}")
        yield page
        await browser.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_what_is_made_and_deleted_comes_and_goes_by_itself(
    page: Page, make_version, make_prefix, roots
) -> None:
    await expect(page.get_by_text("conda-team-vision-torch-python3")).to_be_visible()
    make_version("stats", "20261121-aa")
    await expect(page.get_by_text("conda-shared-stats-python3")).to_be_visible()
    await expect(page.get_by_text("20261121-aa")).to_be_visible()
    # What is not this person's business does not show.
    make_prefix("intro", root="courses/ml101/envs")
    shutil.rmtree(roots / "teams/vision/envs/torch")
    await expect(page.get_by_text("conda-team-vision-torch-python3")).to_have_count(0)
    await expect(page.get_by_text("intro")).to_have_count(0)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_a_search_by_keyboard_keeps_its_place(page: Page) -> None:
    await page.get_by_role("searchbox").focus()
    await page.keyboard.type("vision")
    await expect(page.get_by_text("conda-image-data-python3")).to_have_count(0)
    await expect(page.get_by_role("status").first).to_have_text("Environments: 1")
    assert await page.evaluate("document.activeElement.id") == "q"
    assert page.url.endswith("?q=vision")
    await page.reload()
    await expect(page.get_by_role("searchbox")).to_have_value("vision")
    await page.keyboard.press("Tab")
    await page.get_by_role("searchbox").fill("nothing like it")
    await expect(page.get_by_role("heading", name="Nothing fits this search")).to_be_visible()
    await page.get_by_role("link", name="Show all environments").click()
    await expect(page.get_by_text("conda-image-data-python3")).to_be_visible()
