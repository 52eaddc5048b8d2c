"""In the notebook: until when something is there, a warning before the end, and more time."""

from __future__ import annotations

import json
import re
from pathlib import Path

from conftest import NewPage
from deployment import Deployment, wait_for
from people import in_lab, log_in, open_notebook, picture
from playwright.sync_api import expect


def test_the_end_is_told_in_the_notebook_and_can_be_put_off(
    clean: Deployment, new_page: NewPage, pictures: Path
) -> None:
    token = clean.login_once("alice")
    options = {"environment": "py313-data", "gpus": 1, "time_limit": 2}
    clean.start_server(token, "alice", options)
    page = new_page()
    log_in(page, "alice")
    page.goto("/user/alice/lab")
    in_lab(page)
    until = page.locator(".labcommons-until")
    expect(until).to_have_text(re.compile(r"GPU until \d\d:\d\d"))
    # Half of so short a limit before its end.
    warning = page.locator(".Toastify__toast", has_text="its time limit is over then")
    expect(warning).to_be_visible(timeout=240_000)
    picture(page, pictures, "notice")
    before = until.inner_text()
    warning.get_by_role("button", name="Extend by an hour").click()
    wait_for(lambda: until.inner_text() != before, "the lease to be extended")
    expect(warning).to_be_hidden()
    picture(page, pictures, "notice-extended")


# The hub's culler, with the site's store and a server that is asked as the hub asks it, on a
# clock of its own: what it did between two minutes from now.
CULLER = """
import asyncio, logging, sys, time
from commons.site.culling import CullingRule
from commons.store import Store
from spawner.culling.culler import Culler, Running
from spawner.culling.policy import Facts
from spawner.gpu.watch.server_activity import Asker
container, url, token, *minutes = sys.argv[1:]
begun, first, last = time.time(), *map(int, minutes)
class Servers:
    def culled(self):
        return [Running(("alice", ""), container, begun, Facts("small", 0, frozenset()))]
    async def stop(self, user, server, ending=None):
        print("stopped:", ending.cause)
async def main():
    asker, now = Asker(), begun
    said = lambda _server: asker(url, token)
    rules, log = [CullingRule(after="1h")], logging.getLogger()
    culler = Culler(Store(), rules, Servers(), said, log, lambda: now)
    for minute in range(first, last, 2):
        now = begun + 60 * minute
        await culler.look()
    while culler.busy:
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


def test_a_server_that_nobody_uses_is_warned_of_kept_and_never_ended_over_a_busy_kernel(
    clean: Deployment, new_page: NewPage, pictures: Path
) -> None:
    clean.start_server(clean.login_once("alice"), "alice", {"environment": "py313-data"})
    [name] = clean.containers()
    [described] = json.loads(clean.docker("inspect", name))
    variables = dict(one.split("=", 1) for one in described["Config"]["Env"])
    [network] = described["NetworkSettings"]["Networks"].values()
    url = f"http://{network['IPAddress']}:8888/user/alice/"

    def cull(first: int, last: int) -> str:
        return clean.docker(
            "exec", clean.container("hub"), "python3", "-c", CULLER, described["Id"], url,
            variables["JUPYTERHUB_API_TOKEN"], str(first), str(last),
        ).strip()  # fmt: skip

    assert cull(0, 52) == ""
    page = new_page()
    log_in(page, "alice")
    in_lab(page)
    warning = page.locator(".Toastify__toast", has_text="Nothing has been going on in the server")
    expect(warning).to_be_visible()
    picture(page, pictures, "cull-warning")
    warning.get_by_role("button", name="Keep the server").click()
    expect(warning).to_be_hidden()
    expect(page.get_by_text("is not stopped for want of use before").first).to_be_visible()
    assert cull(52, 200) == "", "kept for four hours"
    open_notebook(page, "Python 3.13")
    cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").last
    cell.click()
    page.keyboard.insert_text("import time; time.sleep(3600)")
    page.keyboard.press("Shift+Enter")
    expect(page.get_by_text("| Busy")).to_be_visible()
    assert cull(200, 500) == "", "a kernel is at work"
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    page.keyboard.press("i")
    expect(page.get_by_text("| Idle")).to_be_visible()
    assert cull(500, 620).splitlines()[0] == "stopped: culled"
