"""What breaks, and what goes on: hub, proxy and directory killed or gone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from conftest import NewPage
from deployment import Deployment, wait_for
from people import log_in
from playwright.sync_api import expect

WITH_GPU = {"environment": "py313-data", "gpus": 1}


def answers(deployment: Deployment, admin: str, user: str) -> bool:
    """Does the person's server answer through the proxy?"""
    status, found = deployment.api("GET", f"users/{user}", admin)
    return status == 200 and bool(found["servers"].get("", {}).get("ready"))


def test_a_killed_hub_keeps_servers_and_frees_what_nobody_has(
    clean: Deployment, admin: str
) -> None:
    clean.login_once("alice")
    clean.login_once("bob")
    clean.start_server(admin, "alice", WITH_GPU)
    [alices] = clean.containers()
    # Bob's start is under way when the hub is killed.
    clean.api("POST", "users/bob/server", admin, WITH_GPU)
    clean.kill("hub")
    wait_for(lambda: clean.healthy("hub"), "the hub to come back", 90)
    wait_for(lambda: answers(clean, admin, "alice"), "alice's server to be known again")
    wait_for(lambda: clean.containers() == [alices] or answers(clean, admin, "bob"), "order")
    leases = clean.leases()
    assert {lease["user"] for lease in leases} == {
        name.split("-user-")[1].removesuffix("--") for name in clean.containers()
    }
    assert {lease["state"] for lease in leases} == {"active"}


def test_a_container_that_is_killed_gives_its_gpu_back(clean: Deployment, admin: str) -> None:
    clean.login_once("alice")
    clean.start_server(admin, "alice", WITH_GPU)
    clean.docker("kill", *clean.containers())
    wait_for(lambda: not clean.leases(), "the lease to end")


def test_a_cancelled_start_leaves_nothing(clean: Deployment, admin: str) -> None:
    clean.login_once("alice")
    clean.api("POST", "users/alice/server", admin, WITH_GPU)
    clean.api("DELETE", "users/alice/server", admin)
    wait_for(lambda: not clean.leases() and not clean.containers(), "all to be gone")


def test_a_killed_proxy_has_its_routes_back_in_seconds(clean: Deployment, admin: str) -> None:
    clean.login_once("alice")
    clean.start_server(admin, "alice", WITH_GPU)
    clean.kill("chp")
    wait_for(
        lambda: clean.answers("alice"),
        "the route to alice's server",
        60,
    )


def test_the_directory_is_down_login_says_so_and_servers_go_on(
    clean: Deployment, admin: str, new_page: NewPage
) -> None:
    clean.login_once("alice")
    clean.start_server(admin, "alice", {"environment": "py313-data"})
    directory = clean.container("directory")
    clean.docker("stop", directory)
    try:
        page = new_page()
        log_in(page, "bob")
        expect(page.get_by_text("directory").first).to_be_visible()
        assert "password" not in page.locator("[role=alert]").first.inner_text().lower()
        assert clean.answers("alice")
    finally:
        clean.docker("start", directory)
        wait_for(lambda: clean.healthy("directory"), "the directory")


def test_a_silent_docker_costs_nobody_their_server(clean: Deployment, admin: str) -> None:
    clean.login_once("alice")
    clean.start_server(admin, "alice", WITH_GPU)
    pid = int(Path(os.environ["LABCOMMONS_TESTBED_PIDFILE"]).read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(30)  # longer than the hub's poll interval
        assert clean.answers("alice")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert answers(clean, admin, "alice")
    [lease] = clean.leases()
    assert lease["state"] == "active"
