"""Make the pictures of the guides: the pages as people see them, in both languages.

    make guide-pictures [NAMES="spawn queue"]

The demo is brought up as the end-to-end tests have it (.cache/e2e), with its limits and a lesson's
reservation; three others hold its GPUs, and a course has people at work. Pictures go to
hub_ext/console/guides/pictures, as WebP.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/e2e")]

from deployment import Deployment, copy_checkout, wait_for
from network import chromium
from playwright.sync_api import Locator, Page, expect

FOLDER = ROOT / "hub_ext/console/guides/pictures"
LANGUAGES = {"en": ("en-US", "Europe/Berlin"), "zh_CN": ("zh-CN", "Asia/Shanghai")}
WIDTH, HEIGHT = 880, 600
QUALITY = 80
expect.set_options(timeout=120_000)
MOST = 70_000  # bytes of a picture
HOLDERS = ("bob", "s01", "s02")  # of the demo's three GPUs
MEMORY = {"en": "Memory", "zh_CN": "内存"}
IDLE = re.compile(r"\| (Idle|空闲)")  # of a kernel, in the status bar
SERVICE = "/services/labcommons/"


class Camera:
    """Takes pictures in one language; of a page what is seen, or one part of it."""

    def __init__(self, page: Page, language: str, wanted: list[str]) -> None:
        self.page, self.folder, self.wanted = page, FOLDER / language, wanted
        self.session = page.context.new_cdp_session(page)

    def take(
        self,
        name: str,
        part: Locator | None = None,
        height: int = HEIGHT,
        edge: int = 12,
        until: Locator | None = None,
        above: int = 0,
    ) -> None:
        """Write a picture: of a part at most so many pixels, or all until the end of another, with
        an edge at its sides and, where it is asked for, above it.
        """
        if self.wanted and name not in self.wanted:
            return
        # What JupyterLab tells of earlier servers is no part of a guide.
        self.page.evaluate("document.querySelector('.Toastify')?.remove()")
        self.page.wait_for_function("document.fonts.status === 'loaded'")
        images = "[...document.images].every(image => image.complete)"
        self.page.wait_for_function(images)
        box = part.bounding_box() if part is not None else None
        box = box or {"x": 0, "y": 0, "width": WIDTH, "height": height}
        if until is not None and (last := until.bounding_box()):
            height = last["y"] + last["height"] - box["y"] + edge
        left, top = self.page.evaluate("[scrollX, scrollY]")
        clip = {
            "x": max(box["x"] + left - edge, 0),
            "y": box["y"] + top - above,
            "width": min(box["width"] + 2 * edge, WIDTH),
            "height": min(box["height"], height) + 2 * above,
            "scale": 1,
        }
        shot = self.session.send(
            "Page.captureScreenshot",
            {"format": "webp", "quality": QUALITY, "clip": clip, "captureBeyondViewport": True},
        )
        data = base64.b64decode(shot["data"])
        assert len(data) <= MOST, f"{name}: {len(data)} bytes"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.webp").write_bytes(data)
        print(f"{self.folder.name}/{name}.webp: {len(data)} bytes", flush=True)


@contextmanager
def someone(site: Deployment, browser: object, language: str, name: str) -> Iterator[Page]:
    """A page of somebody's own browser, at the login."""
    context = browser.new_context(  # type: ignore[attr-defined]
        locale=LANGUAGES[language][0],
        timezone_id=LANGUAGES[language][1],
        base_url=site.url,
        viewport={"width": WIDTH, "height": HEIGHT},
        reduced_motion="reduce",
    )
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto("/hub/login")
    # What is chosen here comes before what the demo's directory says of each person.
    with page.expect_navigation():
        page.locator(f"button[data-language={language}]").click()
    page.locator("#username_input").fill(name)
    yield page
    context.close()


def log_in(page: Page, name: str) -> None:
    page.locator("#password_input").fill(f"{name}-demo")
    page.locator("#login_submit").click()
    page.wait_for_url(lambda url: "/hub/login" not in url)


def with_limits(site: Deployment) -> None:
    """The demo's limits, and a lesson the day after tomorrow."""
    hub = ("docker", "exec", site.container("hub"))
    file = '"${LABCOMMONS_SITE_FILE%/*}/quotas.yaml"'
    site.run(*hub, "sh", "-c", f"labcommons quota apply -f {file}")
    day = (datetime.now() + timedelta(days=2)).strftime("%Y-%m-%dT14:00")
    lesson = ("Machine learning, lab", "course:ml101", "--gpus", "1", "--starts", day)
    zone = ("--duration", "2h", "--timezone", "Europe/Berlin")
    site.run(*hub, "labcommons", "reservation", "create", *lesson, *zone)


COURSE = """\
version: 1
course: ml101
title: {{en: Machine learning, zh: 机器学习}}
timezone: UTC
term: {{first: {first}, last: {last}}}
sessions:
  - {{weekdays: [tue], starts: "10:00", duration: 2h}}
environment: py313-data
size: small
handins:
  - {{name: hw1, title: {{en: First exercise, zh: 第一次作业}}, due: {due} 23:59, late: 2d}}
"""
AT_WORK = ("s03", "s04", "s05")


def with_a_course(site: Deployment, admin: str) -> None:
    """A course, three of its students at work, two of whom have handed something in."""
    now = datetime.now()
    text = COURSE.format(
        first=now.date(), last=now.date() + timedelta(days=90), due=now.date() + timedelta(days=3)
    )
    hub = ("docker", "exec", site.container("hub"), "sh", "-c")
    site.run(*hub, f"labcommons course apply -f - <<'END'\n{text}END\n")
    site.login_once("dan")
    for name in AT_WORK:
        token = site.login_once(name)
        site.start_server(admin, name, {"environment": "py313-data", "course": "ml101"})
        if name != AT_WORK[-1]:
            [container] = site.containers(name)
            site.docker("exec", container, "sh", "-c", "mkdir -p hw1 && echo 42 > hw1/answer.txt")
            asked = "courses/ml101/handins/hw1"
            assert site.api("POST", f"api/v1/{asked}", token, {"path": "hw1"}, of=SERVICE)[0] == 202


def hold_gpus(site: Deployment, admin: str) -> None:
    for name in HOLDERS:
        site.login_once(name)
        site.start_server(admin, name, {"environment": "py313-data", "gpus": 1})


def researcher(site: Deployment, browser: object, language: str, wanted: list[str]) -> None:
    """alice: from the login to the packages."""
    with someone(site, browser, language, "alice") as page:
        camera = Camera(page, language, wanted)
        camera.take("login", height=480)
        log_in(page, "alice")
        page.goto("/hub/spawn")
        page.locator("input[name=gpus][value='1']").check()
        main = page.locator("#main")
        camera.take("spawn", main, until=page.locator("#spawn_form [type=submit]").first)
        page.locator("#spawn_form [type=submit]").first.click()
        page.wait_for_url("**/hub/spawn-pending/**")
        expect(page.locator("#queue-reasons li").first).to_be_visible()
        camera.take("queue", main, 700)
        page.locator("#leave").click()
        page.locator("dialog[open] button").last.click()
        page.wait_for_url("**/hub/home")
        page.goto("/hub/spawn")
        page.locator("input[name=gpus][value='0']").check()
        page.locator("#spawn_form [type=submit]").first.click()
        page.wait_for_url("**/user/*/lab**", timeout=120_000)
        page.goto(page.url.partition("?")[0] + "?reset")
        expect(page.locator(".jp-Launcher")).to_be_visible()
        expect(page.locator(".jp-LauncherCard").first).to_be_visible()
        expect(page.locator("#jp-main-statusbar")).to_contain_text(MEMORY[language])
        camera.take("launcher")
        page.locator(".jp-LauncherCard", has_text="Python 3.13").first.click()
        expect(page.locator("#jp-main-statusbar")).to_contain_text(IDLE)
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").last.click()
        page.keyboard.insert_text("%pip install cowsay")
        page.keyboard.press("Shift+Enter")
        expect(page.locator(".labcommons-packages button")).to_be_visible()
        camera.take("packages", page.locator(".jp-NotebookPanel"), 400, 0)
        [container] = site.containers("alice")
        site.docker("exec", container, "sh", "-c", "rm -f ~/Untitled*.ipynb")
        page.goto(site.url + "/hub/home")
        expect(page.locator(".lc-meters > *").first).to_be_visible()
        camera.take("servers", main)
        page.goto(SERVICE + "environments")
        camera.take("environments", page.locator(".lc-scope").first, 560, above=12)


def others(site: Deployment, browser: object, language: str, wanted: list[str]) -> None:
    """carol: who holds what, limits, reservations."""
    with someone(site, browser, language, "carol") as page:
        camera = Camera(page, language, wanted)
        log_in(page, "carol")
        for name, path, panels in (
            ("gpus", "", 2),
            ("quotas", "quotas", 1),
            ("reservations", "reservations", 2),
        ):
            page.goto(SERVICE + path)
            last = page.locator("#main .lc-panel").nth(panels - 1)
            camera.take(name, page.locator("#main"), until=last)


def course(site: Deployment, browser: object, language: str, wanted: list[str]) -> None:
    """dan, who instructs, and a student."""
    with someone(site, browser, language, "dan") as page:
        camera = Camera(page, language, wanted)
        log_in(page, "dan")
        main = page.locator("#main")
        page.goto(SERVICE + "courses/ml101")
        camera.take("course", main, 700)
        page.goto("/hub/course-room/ml101")
        expect(page.locator("#room tbody")).to_contain_text("iB")
        camera.take("room", main, until=page.locator("#room"))
        page.goto("/hub/course-roster/ml101")
        lines = b"username;role\nalice;student\ns05;assistant\n"
        file = {"name": "class.csv", "mimeType": "text/csv", "buffer": lines}
        page.locator("input[type=file]").set_input_files(files=[file])  # type: ignore[list-item]
        page.locator("button[value=look]").click()
        expect(page.locator("#main")).to_contain_text("alice")
        camera.take("roster", main, 640)
        page.goto(SERVICE + "courses/ml101/handins/hw1")
        camera.take("handin", main, 560)
    with someone(site, browser, language, AT_WORK[0]) as page:
        camera = Camera(page, language, wanted)
        log_in(page, AT_WORK[0])
        main = page.locator("#main")
        page.goto(SERVICE + "courses/ml101")
        camera.take("student", main, 480)
        page.goto(SERVICE + "courses/ml101/handins")
        camera.take("handins", main, 700)


def main(wanted: list[str]) -> None:
    root = ROOT / ".cache/e2e"
    copy_checkout(root)
    site = Deployment(root)
    site.up()
    site.without_limits()
    admin = site.login_once("carol")
    site.stop_all_servers(admin)
    with_limits(site)
    hold_gpus(site, admin)
    with_a_course(site, admin)
    with chromium(site) as browser:
        for language in LANGUAGES:
            researcher(site, browser, language, wanted)
            others(site, browser, language, wanted)
            course(site, browser, language, wanted)
            site.api("DELETE", "users/alice/server", admin)
            wait_for(lambda: not site.containers("alice"), "alice's server to end")
    site.stop_all_servers(admin)
    hub = ("docker", "exec", site.container("hub"))
    site.run(*hub, "labcommons", "course", "remove", "ml101", "--yes")
    site.without_limits()


if __name__ == "__main__":
    main(sys.argv[1:])
