"""Two students in one notebook on their course's server, until one of them is off the roster."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import NewPage
from deployment import Deployment, wait_for
from people import log_in, open_notebook, picture
from playwright.sync_api import Page, WebSocket, expect

SHARED = "/services/labcommons/shared"
LINK = "/hub/shared/course-ml101/project"
PEOPLE = ("alice", "bob")


class Sockets:
    """Those that somebody's page has open, to documents and kernels."""

    def __init__(self, page: Page) -> None:
        self.open: set[WebSocket] = set()
        page.on("websocket", self._opened)

    def _opened(self, socket: WebSocket) -> None:
        self.open.add(socket)
        socket.on("close", lambda _: self.open.discard(socket))


def enter(page: Page) -> None:
    """By the link; what the server is, is told before."""
    page.goto(LINK)
    expect(page.get_by_text("This is a shared server: Course ml101.")).to_be_visible()
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url("**/user/_course-ml101/project/lab/**")
    expect(page.locator(".jp-Launcher").first).to_be_visible()


def first_cell(page: Page) -> str:
    return page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.inner_text()


def test_two_students_work_in_one_notebook_and_who_leaves_is_out(
    clean: Deployment, admin: str, new_page: NewPage, pictures: Path
) -> None:
    api, hub = "/services/labcommons/api/v1/", ("docker", "exec", clean.container("hub"))
    roster = {"people": dict.fromkeys(PEOPLE, "student")}
    assert clean.api("PUT", "courses/ml101/roster", admin, roster, of=api)[0] == 200
    teacher = new_page()
    log_in(teacher, "dan")
    teacher.wait_for_url(re.compile(r"/hub/(home|spawn)"))
    alice, bob = new_page(), new_page()
    sockets = {"alice": Sockets(alice), "bob": Sockets(bob)}
    try:
        teacher.goto(SHARED)
        teacher.get_by_label("Name of the server").fill("project")
        teacher.get_by_label("Environment").fill("py313-data")
        teacher.get_by_label("Size").select_option("small")
        teacher.get_by_role("button", name="Save").click()
        expect(teacher.get_by_role("heading", name="project")).to_be_visible()
        picture(teacher, pictures, "shared-made")

        for name, page in (("alice", alice), ("bob", bob)):
            log_in(page, name)
            page.wait_for_url(re.compile(r"/hub/(home|spawn)"))
        alice.goto("/hub/home")
        expect(alice.get_by_role("region", name="Shared servers")).to_contain_text("project")
        alice.goto(SHARED)
        expect(alice.get_by_label("Name of the server")).to_have_count(0)
        alice.get_by_role("button", name="Start “project”").click()
        opens = alice.get_by_role("link", name="Open “project”")
        expect(opens).to_be_visible(timeout=120_000)  # the page says so by itself
        expect(alice.get_by_text(re.compile("started by alice, runs since"))).to_be_visible()
        picture(alice, pictures, "shared-running")
        enter(alice)
        open_notebook(alice, "Python 3.13")
        cell = alice.locator(".jp-Notebook .jp-CodeCell .cm-content").first
        enter(bob)
        picture(bob, pictures, "shared-in")
        bob.locator(".jp-DirListing-item", has_text="Untitled.ipynb").dblclick()
        expect(bob.locator(".jp-Notebook .jp-CodeCell .cm-content").first).to_be_visible()
        cell.click()
        alice.keyboard.type("print(6 * 7)")
        wait_for(lambda: first_cell(bob) == "print(6 * 7)", "alice's text at bob's")
        bob.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
        bob.keyboard.press("End")
        bob.keyboard.type("  # and bob's")
        wait_for(lambda: first_cell(alice).endswith("# and bob's"), "bob's text at alice's")
        # Each sees who the other is, by the directory's name and in a colour.
        alice.locator(".lm-TabBar-tab[data-id='jp-collaboration-panel']").click()
        people = alice.locator("#jp-collaboration-panel")
        expect(people).to_contain_text("李博")  # bob, as the directory has his name
        picture(alice, pictures, "shared-together")
        cell.click()
        alice.keyboard.press("Shift+Enter")
        for page in (alice, bob):
            expect(page.locator(".jp-OutputArea-output").first).to_have_text("42")

        clean.run(*hub, "labcommons", "course", "roster", "remove", "ml101", "bob")
        wait_for(lambda: bob.title() and not sockets["bob"].open, "bob's sockets to be closed")
        cell.click()
        alice.keyboard.press("End")
        alice.keyboard.type(" alone")
        bob.reload()
        expect(bob.locator(".jp-Notebook")).to_have_count(0)
        picture(bob, pictures, "shared-out")
        assert sockets["alice"].open
        assert not first_cell(alice).endswith("bob's")
        bob.goto(SHARED)
        expect(bob.get_by_role("heading", name="Shared servers")).to_be_visible()
        expect(bob.get_by_role("article", name="project")).to_have_count(0)
        teacher.goto(SHARED)
        expect(teacher.get_by_text("In it now: alice")).to_be_visible()
        [one] = clean.labcommons("shared", "list")
        assert (one["state"], one["by"], one["people"]) == ("running", "alice", ["alice"])
        teacher.get_by_role("button", name="Stop “project”").click()
        teacher.get_by_role("dialog").get_by_role("button", name="Stop").click()
        expect(teacher.get_by_role("button", name="Start “project”")).to_be_visible()
    finally:
        clean.run(*hub, "labcommons", "shared", "stop", "course-ml101", "project")
        wait_for(lambda: state(clean) == "stopped", "the shared server to be gone")
        clean.run(*hub, "labcommons", "shared", "remove", "course-ml101", "project")
        nobody = {"people": {}, "prune": True}
        clean.api("PUT", "courses/ml101/roster", admin, nobody, of=api)


def state(site: Deployment) -> str:
    [one] = site.labcommons("shared", "list")
    return str(one["state"])
