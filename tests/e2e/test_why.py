"""Why it died: in the notebook, on “My servers” and on the page of a server that is not running."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import NewPage
from deployment import Deployment, wait_for
from people import in_lab, log_in, open_notebook, picture, run_cell
from playwright.sync_api import Page, expect

SMALL = {"environment": "py313-data", "size": "small"}
TOO_MUCH = "x = b'1' * (1500 << 20)"
CHILDREN = (
    "import subprocess, sys\n"
    "c = \"x = b'1' * (45 << 20); import time; time.sleep(30)\"\n"
    "done = [subprocess.Popen([sys.executable, '-S', '-c', c]) for _ in range(24)]\n"
    "print('ended:', sum(one.wait() == -9 for one in done))"
)


def in_notebook(page: Page, user: str) -> None:
    log_in(page, user)
    page.goto(f"/user/{user}/lab")
    in_lab(page)
    open_notebook(page, "Python 3.13")


def test_a_kernel_and_its_children_end_before_the_server_and_it_is_told_why(
    clean: Deployment, new_page: NewPage, pictures: Path
) -> None:
    """Kind: every end by memory is told, of one large process or of many small ones, with figures
    and what to do; the server is the last to go.
    """
    token = clean.login_once("alice")
    clean.start_server(token, "alice", SMALL)
    [container] = clean.containers("alice")
    page = new_page()
    in_notebook(page, "alice")
    meter = page.locator(".labcommons-meter")
    expect(meter).to_have_text(re.compile(r"Memory \d+% · CPU \d+% · .*Disk \d+%"))
    cores = (
        "import os; print(os.environ['OMP_NUM_THREADS'], os.cpu_count(), os.environ['MEM_LIMIT'])"
    )
    assert run_cell(page, cores).split() == ["1", "1", str(2**30)]

    cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").last
    cell.click()
    page.keyboard.insert_text(TOO_MUCH)
    page.keyboard.press("Shift+Enter")
    told = page.locator(".jp-Dialog .labcommons-death")
    expect(told).to_contain_text("memory was full (1.0 GiB of 1.0 GiB used)")
    expect(told).to_contain_text("“Medium”, which has 4.0 GiB")
    picture(page, pictures, "why-kernel")
    page.locator(".jp-Dialog").get_by_role("button", name="Ok").click()

    expect(page.get_by_text("| Idle")).to_be_visible()
    # Which of many is ended is Linux's choice: the notebook's own kernel may be among them.
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").last.click()
    page.keyboard.insert_text(CHILDREN)
    page.keyboard.press("Shift+Enter")
    toast = page.locator(".Toastify__toast", has_text=re.compile("processes (of .+ )?were ended"))
    expect(toast.first).to_be_visible()
    picture(page, pictures, "why-children")
    assert clean.containers("alice") == [container]
    assert clean.answers("alice"), "the server process was not the victim"


def test_a_server_that_ended_says_why_wherever_its_owner_looks(
    clean: Deployment, admin: str, new_page: NewPage, pictures: Path
) -> None:
    """Kind: every end is told with its true cause: killed from outside; stopped by an
    administrator, with the message, before the stop and after it.
    """
    token = clean.login_once("alice")
    clean.start_server(token, "alice", SMALL)
    page = new_page()
    log_in(page, "alice")
    page.goto("/hub/home")
    expect(page.locator(".lc-meters")).to_contain_text("of 1.0 GiB")
    picture(page, pictures, "why-meters")
    clean.docker("kill", *clean.containers("alice"))
    wait_for(lambda: not clean.answers("alice"), "the hub to see it")
    page.goto("/user/alice/lab")
    expect(page.locator(".lc-end")).to_contain_text("ended from outside, by a signal")
    picture(page, pictures, "why-killed")
    page.goto("/hub/home")
    # Beside what ended other servers of hers.
    told = page.locator(".lc-end", has_text="ended from outside, by a signal")
    expect(told.first).to_be_visible()

    clean.start_server(token, "alice", SMALL)
    page.goto("/user/alice/lab")
    in_lab(page)
    carol = new_page()
    log_in(carol, "carol")
    stop_from_console(carol, "Service at 18:00.", "5m")
    toast = page.locator(".Toastify__toast", has_text="Service at 18:00.")
    expect(toast).to_contain_text("carol stops the server at")
    assert clean.containers("alice")
    stop_from_console(carol, "Service now.", "")
    wait_for(lambda: not clean.containers("alice"), "the server to stop")
    page.goto("/user/alice/lab")
    expect(page.locator(".lc-end")).to_contain_text("carol stopped the server: “Service now.”")
    picture(page, pictures, "why-stopped-by")


def stop_from_console(page: Page, message: str, when: str) -> None:
    """An administrator stops alice's server on the page Servers."""
    page.goto("/services/labcommons/servers")
    page.get_by_role("checkbox", name="alice", exact=True).check()
    page.get_by_role("button", name="Stop…").click()
    page.get_by_label("What they read about it").fill(message)
    page.get_by_label("When").select_option(when)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="Being stopped:")).to_contain_text("alice")


def test_limits_crashes_and_withdrawn_versions_are_told_wherever_their_owner_looks(
    clean: Deployment, admin: str, new_page: NewPage, pictures: Path
) -> None:
    """Kind: ends by the policy and by themselves, with figures and what to do: a time limit, a
    crash; and news of what goes on: a version that is withdrawn.
    """
    bobs, alices = clean.login_once("bob"), clean.login_once("alice")
    clean.start_server(bobs, "bob", {"environment": "py313-data", "gpus": 1, "time_limit": 1})
    clean.start_server(alices, "alice", SMALL)
    page = new_page()
    log_in(page, "alice")
    page.goto("/user/alice/lab")
    in_lab(page)
    # Of the server's own figures nothing is English, from the beginning.
    [container] = clean.containers("alice")
    version = clean.docker(
        "inspect", "-f", '{{index .Config.Labels "labcommons.environment"}}', container
    ).strip()
    command = str(clean.root / "bin/labcommons")
    clean.run(command, "env", "withdraw", version, "--reason", "wrong results in fft")
    try:
        toast = page.locator(".Toastify__toast", has_text="wrong results in fft")
        expect(toast).to_contain_text("The server goes on")
        picture(page, pictures, "why-withdrawn")
    finally:
        clean.run(command, "env", "withdraw", version, "--undo")
    clean.docker("exec", container, "bash", "-c", "kill -SEGV -1")
    wait_for(lambda: not clean.containers("alice"), "the hub to see it")
    page.goto("/user/alice/lab")
    expect(page.locator(".lc-end")).to_contain_text("ended by itself (exit code")
    expect(page.locator(".lc-end")).to_contain_text("Start it again. If it ends again")
    picture(page, pictures, "why-crashed")

    wait_for(lambda: not clean.containers("bob"), "the time limit", 150)
    page = new_page(locale="zh-CN")
    page.goto("/")
    page.locator("input[name=username]").fill("bob")
    page.locator("input[name=password]").fill("bob-demo")
    page.locator("#login_submit").click()
    page.wait_for_url("**/hub/**")
    for place in ("/hub/home", "/user/bob/lab"):
        page.goto(place)
        end = page.locator(".lc-end").first
        expect(end).to_contain_text("已达到 1 分钟的时限")
        expect(end).to_contain_text("请选择更长的时限")
    picture(page, pictures, "why-time-limit-zh")
