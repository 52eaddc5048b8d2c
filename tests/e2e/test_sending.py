"""A notebook that one person sends and another opens: two browsers, the real gate between them."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import NewPage
from deployment import Deployment
from people import choose, in_lab, log_in, open_notebook, picture, run_cell, start
from playwright.sync_api import expect

SHOWN = "Data analysis - Python 3.13"


def test_a_notebook_is_sent_in_jupyterlab_and_opened_in_one_click(
    clean: Deployment, new_page: NewPage, pictures: Path
) -> None:
    """Kind: what one person makes and another needs, without a shared folder or a mail."""
    alice, bob = new_page(), new_page()
    log_in(bob, "bob")
    choose(bob, "py313-data")
    start(bob)
    clean.start_server(clean.login_once("alice"), "alice", {"environment": "py313-data"})
    log_in(alice, "alice")
    alice.goto("/user/alice/lab")
    in_lab(alice)
    open_notebook(alice, SHOWN)
    run_cell(alice, "print('from', 'alice', 6 * 7)")
    output = alice.locator(".jp-Notebook .jp-OutputArea-output")
    output.click(button="right")
    with alice.context.expect_page() as opened:
        alice.get_by_role("menuitem", name="Run as a Job").click()
    # The page Jobs, for the notebook that is open.
    field = opened.value.get_by_label("Or a notebook")
    expect(field).to_have_value(re.compile(r"Untitled\d*\.ipynb"))
    opened.value.close()
    output.click(button="right")
    alice.get_by_role("menuitem", name="Send a Copy to a Colleague or Team").click()
    dialog = alice.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("bob")
    dialog.get_by_role("button", name="Send").click()
    expect(alice.locator(".Toastify__toast", has_text="bob")).to_be_visible()

    in_lab(bob)
    bob.goto("/services/labcommons/inbox")
    [row] = bob.get_by_role("region", name=".ipynb").all()
    expect(row).to_contain_text("from alice")
    expect(row).to_contain_text("py313-data")
    picture(bob, pictures, "sending-inbox")
    row.get_by_role("link", name="Open a copy").click()
    expect(bob.get_by_text("from alice 42")).to_be_visible(timeout=60_000)
    expect(bob.get_by_text(f"{SHOWN} | Idle")).to_be_visible(timeout=60_000)
    picture(bob, pictures, "sending-opened")
    said = run_cell(bob, "import os, sys; print(sys.prefix, os.environ['USER'], os.listdir('.'))")
    assert said.startswith("/opt/conda/envs/py313-data bob ['Untitled")
    bob.goto("/services/labcommons/inbox")
    expect(bob.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
