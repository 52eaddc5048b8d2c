"""Every page, as people of each role meet it: readable, on a phone too, and light to fetch."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from conftest import NewPage
from deployment import Deployment
from people import log_in

from rig.one_language import in_utc
from rig.phone import BEYOND, PHONE

SERVICES = "/services/labcommons"
EVERYBODYS = (
    "/hub/home",
    "/hub/spawn",
    "/hub/spawn?environment=nothing&size=medium",
    "/hub/token",
    "/hub/user/{who}/lab",  # nothing runs: the page that says so
    "/hub/nowhere",
    f"{SERVICES}/",
    f"{SERVICES}/today",
    f"{SERVICES}/servers",
    f"{SERVICES}/reservations",
    f"{SERVICES}/usage",
    f"{SERVICES}/usage/report",
    f"{SERVICES}/environments",
    f"{SERVICES}/inbox",
    f"{SERVICES}/jobs",
    f"{SERVICES}/shared",
    f"{SERVICES}/channels",
    f"{SERVICES}/channels/site",
    f"{SERVICES}/ssh",
    f"{SERVICES}/help",
    f"{SERVICES}/nowhere",
    "/services/kernels/",
    "/services/kernels/nowhere",
)
PAGES = {
    "": ("/hub/login", "/hub/login?next=%2Fhub%2Fspawn", "/hub/logout"),
    "alice": EVERYBODYS,
    "dan": (
        f"{SERVICES}/",
        f"{SERVICES}/environments",
        f"{SERVICES}/courses",
        f"{SERVICES}/courses/ml101",
        f"{SERVICES}/shared",
        "/hub/course-roster/ml101",
        "/hub/course-room/ml101",
        "/hub/course-looks",
    ),
    "carol": (
        *EVERYBODYS,
        f"{SERVICES}/people",
        f"{SERVICES}/people/alice",
        f"{SERVICES}/quotas",
        f"{SERVICES}/teams",
        f"{SERVICES}/teams/vision",
        f"{SERVICES}/quotas/edit",
        f"{SERVICES}/doctor",
        f"{SERVICES}/vulnerable",
        f"{SERVICES}/mirror",
        f"{SERVICES}/broadcasts",
        f"{SERVICES}/maintenance",
        f"{SERVICES}/audit",
        f"{SERVICES}/disk",
        "/hub/admin",
    ),
}
SMALLEST = 320  # px: a small phone, or a page at 400 % (WCAG 2.1, 1.4.10)
ZONE = "Asia/Shanghai"  # of the browser: where the reader's zone is UTC, UTC is right
WEIGHT = 250_000  # bytes on the wire of a first visit, of all that a page fetches


@pytest.mark.parametrize("who", PAGES)
def test_every_page_is_for_everybody(deployment: Deployment, new_page: NewPage, who: str) -> None:
    """No serious finding of axe, light and dark; nothing beyond the edge of a phone; a first visit
    fetches little; no time is in UTC. Kind: every page that we show, whoever sees it."""
    axe = Path(AXE_FILE_PATH).read_text("utf-8")
    page, found, received = new_page(reduced_motion="reduce", timezone_id=ZONE), [], [0]
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    session.on(
        "Network.loadingFinished",
        lambda event: received.append(event["encodedDataLength"]),
    )
    if who:
        log_in(page, who)
        page.wait_for_url("**/hub/**")
    for path in PAGES[who]:
        page.set_viewport_size({"width": 1280, "height": 860})
        received.clear()
        page.goto(path.format(who=who))
        if sum(received) > WEIGHT:
            found.append(f"{path}: {sum(received)} bytes")
        for scheme in ("light", "dark"):
            page.evaluate("scheme => document.documentElement.dataset.bsTheme = scheme", scheme)
            result = page.evaluate(axe + "; axe.run({resultTypes: ['violations']})")
            found += [
                f"{path} ({scheme}): {one['id']}: {one['help']}: {node['html'][:200]}"
                for one in result["violations"]
                if one["impact"] in ("serious", "critical")
                for node in one["nodes"][:3]
            ]
        found += [f"{path}: {text}" for text in in_utc(page.content())]
        for width in (PHONE["width"], SMALLEST):
            page.set_viewport_size({**PHONE, "width": width})
            found += [f"{path}: beyond the edge of a phone: {one}" for one in page.evaluate(BEYOND)]
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                found.append(f"{path}: {wide} px wide on a phone of {width}")
    assert not found, "\n".join(found)
