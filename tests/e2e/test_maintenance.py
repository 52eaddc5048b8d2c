"""Messages to everybody and maintenance, as an administrator and the others live them."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import NewPage
from deployment import Deployment
from people import in_lab, log_in, picture
from playwright.sync_api import Locator, Page, expect

SERVICE = "/services/labcommons"
POLLING = 30_000  # milliseconds: a look each 10 s, at what is 7 s old at most, on a slow machine
WHO = "s07"  # whose choice of language no other test minds


def bar(page: Page, words: str) -> Locator:
    """A message to everybody above a page, or above JupyterLab."""
    return page.locator("#lc-broadcasts, #labcommons-broadcasts").locator(
        "[data-broadcast]", has_text=words
    )


def chinese_lab(page: Page) -> None:
    """JupyterLab of somebody who chose Chinese on a page."""
    log_in(page, WHO)
    page.wait_for_url("**/lab**")
    page.goto("/hub/home")
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("[一-龥]"))
    page.goto(f"/user/{WHO}/lab")
    in_lab(page)


def at_start_page(page: Page) -> None:
    """Alice's, who waits for a GPU."""
    log_in(page, "alice")
    page.wait_for_url(re.compile(r"/hub/(home|spawn)"))
    page.goto("/hub/spawn-pending/alice")
    expect(page.get_by_text("are in service").first).to_be_visible()


def send(page: Page, path: str, button: str, **fields: str) -> None:
    """Fill in a form of the console by its labels, and send it."""
    page.goto(f"{SERVICE}/{path}")
    for label, value in fields.items():
        page.get_by_label(label.replace("_", " ")).fill(value)
    page.get_by_role("button", name=button).click()


def test_everybody_is_told_nothing_starts_and_all_goes_on_by_itself(
    clean: Deployment, new_page: NewPage, pictures: Path
) -> None:
    gpus = {one["node"] for one in clean.labcommons("gpu", "list")["devices"]}
    hub = ("docker", "exec", clean.container("hub"))
    for node in gpus:
        clean.run(*hub, "labcommons", "gpu", "drain", node, "--reason", "dust")
    try:
        clean.start_server(clean.login_once(WHO), WHO, {"environment": "py313-data"})
        ask = {"environment": "py313-data", "gpus": 1}
        assert clean.api("POST", "users/alice/server", clean.login_once("alice"), ask)[0] == 202
        lab, page, admin = new_page(), new_page(), new_page()
        chinese_lab(lab)
        at_start_page(page)
        log_in(admin, "carol")
        texts = {"Text_in_English": "The network is slow.", "Text_in_Chinese": "网络较慢。"}
        send(admin, "broadcasts", "Send to everybody", **texts, Ends="40s")
        # In what is open, without loading it anew, each in their language.
        chinese = bar(lab, "网络较慢。")
        expect(chinese).to_be_visible(timeout=POLLING)
        expect(bar(page, "The network is slow.")).to_be_visible(timeout=POLLING)
        expect(bar(page, "网络较慢。")).to_have_count(0)
        chinese.get_by_role("button").click()
        expect(chinese).to_have_count(0)

        why = {"Reason_in_English": "Disks are changed.", "Reason_in_Chinese": "更换磁盘。"}
        send(admin, "maintenance", "Begin maintenance", **why, Expected_end="2h")
        closed = bar(lab, "更换磁盘。")
        expect(closed).to_be_visible(timeout=POLLING)
        expect(closed.get_by_role("button")).to_have_count(0)
        picture(lab, pictures, "maintenance-lab")
        expect(bar(page, "Nobody can start a server now")).to_be_visible(timeout=POLLING)
        waits = page.get_by_text(re.compile(r"Waits for the end of the maintenance \(until "))
        expect(waits.first).to_be_visible()
        # What it waited for is there, and it is not granted.
        for node in gpus:
            clean.run(*hub, "labcommons", "gpu", "undrain", node)
        expect(page.get_by_text("are in service")).to_have_count(0)
        expect(waits.first).to_be_visible()
        assert clean.leases() == []
        picture(page, pictures, "maintenance-waits")
        status, answer = clean.api("POST", "users/dan/server", clean.login_once("dan"))
        assert (status, "Disks are changed." in str(answer)) == (409, True)
        admin.reload()
        expect(admin.get_by_role("row", name=WHO)).to_be_visible()
        picture(admin, pictures, "maintenance-page")
        expect(bar(page, "The network is slow.")).to_have_count(0)  # at its end, by itself

        admin.get_by_role("button", name="End it").click()
        admin.get_by_role("dialog").get_by_role("button", name="End it").click()
        page.wait_for_url("**/user/alice/lab**")
        assert [one["state"] for one in clean.leases()] == ["active"]
        expect(closed).to_have_count(0)
    finally:
        again = ["maintenance stop", *(f"gpu undrain {node}" for node in gpus)]
        clean.run(*hub, "sh", "-c", "; ".join(f"labcommons {one}" for one in again) + "; true")
