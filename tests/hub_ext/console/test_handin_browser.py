"""The pages of hand-ins in a browser: more time, groups, marks; for everybody, on a phone too."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from playwright.async_api import Browser, Page, expect
from sqlalchemy.orm import Session

from commons.store import DiskUse, Store
from commons.store.models import Course, CoursePerson, utcnow
from courses import archives, handins
from courses.document import check_course, to_plain
from courses.marks import Mark, marks
from courses.term_keeper import REASONS
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


async def test_the_end_of_the_term_on_the_courses_page(
    course: Store, browser: Browser, origin: str
) -> None:
    """Frozen by a button, with an archive that failed and one that is whole; on a phone, too."""

    def write(session: Session) -> None:
        use = DiskUse(area="courses", name="ml101", bytes=9 << 30, whole=True, at=utcnow())
        use.largest = [{"folder": "files/old", "bytes": 7 << 30}]
        session.add(use)
        row = archives.ask(session, "ml101", "dan")
        why = REASONS["disk"]().as_json()
        archives.end(session, row.id, archives.State.FAILED, message=why)

    course.transact(write)
    page = await log_in(browser, origin, "carol", "courses/ml101")
    await expect(page.get_by_text("The course’s folder has 9.0 GB")).to_be_visible()
    await page.get_by_role("button", name="Freeze the course").click()
    await expect(page.get_by_text("This course is frozen")).to_be_visible()
    await page.get_by_role("button", name="Make an archive").click()
    await expect(page.get_by_role("cell", name="being made")).to_be_visible()
    one = course.transact(lambda s: archives.of_course(s, "ml101")[0].id)
    figures = {"all_bytes": 9 << 30, "bytes": 9 << 30, "files": 812, "left_out": 3, "size": 5 << 30}
    course.transact(lambda s: archives.end(s, one, archives.State.KEPT, **figures))
    await page.get_by_label("To remove all of it").fill("ml102")
    await page.get_by_role("button", name="Remove for ever").click()
    await expect(page.get_by_role("alert")).to_contain_text("type its name: ml101")
    await expect(page.get_by_role("alert")).to_be_focused()
    await page.goto(f"{origin}/services/labcommons/courses/ml101")
    await expect(page.get_by_role("cell", name="whole")).to_be_visible()
    pictures = os.environ.get("LABCOMMONS_PICTURES")
    if pictures:
        await page.screenshot(path=f"{pictures}/course-end.png", full_page=True)
    assert await serious(page) == []
    if pictures:
        await page.screenshot(path=f"{pictures}/course-end-phone-dark.png", full_page=True)
        await page.set_viewport_size({"width": 1280, "height": 860})
        chinese = {"name": "labcommons-lang", "value": "zh_CN", "url": origin}
        await page.context.add_cookies([chinese])  # type: ignore[list-item]
        for path in ("courses/ml101", *(f"courses/ml101/{one}" for one in PAGES[:2])):
            await page.goto(f"{origin}/services/labcommons/{path}")
            name = path.replace("/", "-")
            await page.screenshot(path=f"{pictures}/{name}-zh.png", full_page=True)
