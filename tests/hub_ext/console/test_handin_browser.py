"""The pages of hand-ins in a browser: more time, groups, marks; for everybody, on a phone too."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from playwright.async_api import Browser, Page, expect

from commons.store import Store
from commons.store.models import Course, CoursePerson
from courses import handins
from courses.document import check_course, to_plain
from courses.marks import Mark, marks
from rig.phone import BEYOND, PHONE

from .test_browser import browser, log_in, origin
from .test_handin_pages import handed_in
from .test_openapi import COURSE

__all__ = ["browser", "origin"]
PAGES = ("handins", "handins/hw1", "handed-in/0123456789ab")


@pytest.fixture
def course(tmp_path: Path, lab_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """With something that s01 handed in, and a roster of two."""
    monkeypatch.setenv("LABCOMMONS_DATA", str(tmp_path))

    async def nobody(_auth: object, _course: object) -> set[str]:
        return set()

    # The console's token of this hub may not ask for groups; see test_handin_pages.
    monkeypatch.setattr("hub_ext.console.handin_api.students", nobody)
    people = [
        CoursePerson(course="ml101", username=who, position="student", added_by="dan")
        for who in ("s01", "s02")
    ]
    spec = to_plain(check_course(COURSE))
    lab_store.transact(
        lambda s: s.add_all([Course(name="ml101", spec=spec, changed_by="dan"), *people])
    )
    handed_in(SimpleNamespace(data=tmp_path, store=lab_store), "s01")  # type: ignore[arg-type]
    return lab_store


async def serious(page: Page) -> list[str]:
    """What axe finds, light and dark, and what is beyond the edge of a phone."""
    axe, found = Path(AXE_FILE_PATH).read_text("utf-8"), []
    for scheme in ("light", "dark"):
        await page.evaluate("scheme => document.documentElement.dataset.bsTheme = scheme", scheme)
        await page.evaluate("Promise.all(document.getAnimations().map(one => one.finished))")
        result: Any = await page.evaluate(axe + "; axe.run({resultTypes: ['violations']})")
        found += [
            f"{one['id']}: {node['html'][:200]}"
            for one in result["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
    await page.set_viewport_size(PHONE)
    found += [f"beyond the edge: {one}" for one in await page.evaluate(BEYOND)]
    return found


async def test_who_grades_gives_time_and_marks(
    course: Store, browser: Browser, origin: str
) -> None:
    page = await log_in(browser, origin, "carol", "courses/ml101/handins")
    await page.get_by_role("link", name="Who has handed in").first.click()
    who = page.get_by_role("region", name="Who has handed in").first
    await expect(who).to_contain_text("1 of 2 have handed in")
    await page.get_by_label("For whom").select_option("s02")
    await page.get_by_label("Until").fill("2031-01-25T12:00")
    await page.get_by_role("button", name="Give more time").click()
    await expect(page.get_by_role("row", name="s02")).to_contain_text("extended")
    await page.get_by_label("Who hands in together").fill("p1 s01")
    await page.get_by_role("button", name="Save the groups").click()
    await expect(page.get_by_role("alert")).to_be_focused()
    await page.get_by_label("Who hands in together").fill("p1: s01, s02")
    await page.get_by_role("button", name="Save the groups").click()
    await expect(page.get_by_role("row", name="@p1")).to_contain_text("s01, s02")
    table = page.get_by_label("Marks, as CSV")
    await table.fill((await table.input_value()).replace("s01,,", "s01,A,well done"))
    await page.get_by_role("button", name="See what would change").click()
    await expect(page.get_by_role("status")).to_contain_text("s01: – -> A (well done)")
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(table).to_have_value("username,mark,comment\ns01,A,well done\ns02,,\n")
    assert course.transact(lambda s: marks(s, "ml101", "hw1")) == {"s01": Mark("A", "well done")}
    assert set(course.transact(lambda s: handins.extensions(s, "ml101", "hw1"))) == {"s02"}
    pictures = os.environ.get("LABCOMMONS_PICTURES")
    for path in PAGES:
        await page.set_viewport_size({"width": 1280, "height": 860})
        await page.goto(f"{origin}/services/labcommons/courses/ml101/{path}")
        if pictures:
            await page.screenshot(path=f"{pictures}/{path.replace('/', '-')}.png", full_page=True)
        assert await serious(page) == [], path
        if pictures:
            await page.screenshot(
                path=f"{pictures}/{path.replace('/', '-')}-phone.png", full_page=True
            )
