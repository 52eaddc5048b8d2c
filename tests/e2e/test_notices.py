"""In the notebook: until when the GPUs are there, a warning before the end, and more time."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import NewPage
from deployment import Deployment, wait_for
from people import in_lab, log_in, picture
from playwright.sync_api import expect


def test_the_end_is_told_in_the_notebook_and_can_be_put_off(
    clean: Deployment, new_page: NewPage, pictures: Path
) -> None:
    token = clean.login_once("alice")
    options = {"environment": "py313-data", "gpus": 1, "time_limit": 3}
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
