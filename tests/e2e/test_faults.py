"""What breaks, and what goes on: hub, proxy and directory killed or gone."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import NewPage
from deployment import Deployment, wait_for
from people import in_lab, log_in, open_notebook, run_cell
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
        user for user in ("alice", "bob") if clean.containers(user)
    }
    assert {lease["state"] for lease in leases} == {"active"}


MIGRATION = """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "9999", "{head}"
def upgrade():
    op.create_table("of_the_new_version", sa.Column("id", sa.Integer, primary_key=True))
"""


@contextmanager
def _taken_back(site: Deployment) -> Iterator[None]:
    """Whatever fails with the new version costs neither later tests nor a second try the site."""
    try:
        yield
    except BaseException:
        site.make("rollback", "FORCE=yes")
        raise


def test_a_new_version_and_the_way_back_keep_servers_and_open_kernels(
    clean: Deployment, admin: str, new_page: NewPage, tmp_path: Path
) -> None:
    """`make up` with another hub image, and `make rollback`, which puts the tables back, too."""

    def git(*words: str) -> str:
        who = ("-c", "user.name=site", "-c", "user.email=site@example.org")
        return clean.run("git", "-C", str(clean.root), *who, *words).strip()

    def released() -> dict[str, Any]:
        found = json.loads(path.read_text())
        assert isinstance(found, dict)
        return found

    def messages() -> list[str]:
        return [row["en"] for row in clean.labcommons("broadcast", "list")]

    # The site's own commit, as `make up` would have found it.
    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "--message", "one")
    path = clean.root / "data" / "release" / "state.json"
    state = released()
    state["running"]["commit"] = first = git("rev-parse", "--short=12", "HEAD")
    path.write_text(json.dumps(state))
    clean.login_once("alice")
    clean.start_server(admin, "alice", WITH_GPU)
    page = new_page()
    log_in(page, "alice")
    in_lab(page)
    open_notebook(page, "Python 3.13")
    run_cell(page, "kept = 41; print(kept)")
    clean.docker(
        "exec", clean.container("hub"), "labcommons", "broadcast", "send", "before", "--until", "8h"
    )
    servers, hub = clean.containers(), clean.container("hub")
    head = clean.labcommons("store", "heads")["store"]
    image = clean.docker("inspect", "-f", "{{.Image}}", hub).strip()
    # Another version: tables that went forward, and a file.
    (tmp_path / "migration.py").write_text(MIGRATION.format(head=head))
    versions = "lib/python3.13/site-packages/commons/store/migrations/versions/9999_new.py"
    clean.docker("create", "--name=new-hub", "labcommons/hub")
    clean.docker("cp", str(tmp_path / "migration.py"), f"new-hub:/opt/labcommons/hub/{versions}")
    clean.docker("commit", "new-hub", "labcommons/hub")
    clean.docker("rm", "new-hub")
    with _taken_back(clean):
        (clean.root / "CHANGELOG.md").write_text("# Another version\n")
        git("commit", "--quiet", "--all", "--message", "two")
        said = clean.up()
        assert "LabCommons' database: copied before its tables change" in said
        # The machine of the tests may be small; what is said of sizes is what the agent says of it.
        assert ("can run at once" in said) == bool(clean.labcommons("site", "check")["advice"])
        assert clean.container("hub") != hub
        assert clean.containers() == servers
        assert run_cell(page, "print(kept + 1)").strip() == "42"
        wait_for(lambda: answers(clean, admin, "alice"), "the new hub to know the server")
        assert clean.labcommons("store", "heads")["store"] == "9999"
        assert released()["previous"]["commit"] == first
        clean.docker(
            "exec",
            clean.container("hub"),
            "labcommons",
            "broadcast",
            "send",
            "after",
            "--until",
            "8h",
        )

    said = clean.make("rollback", "FORCE=yes")
    assert "LOST is what was written since: quotas" in said
    assert "building" in said  # its own `make up`, …
    assert "as it is" in said  # … which builds nothing
    assert clean.docker("inspect", "-f", "{{.Image}}", clean.container("hub")).strip() == image
    assert git("rev-parse", "--short=12", "HEAD") == first
    assert clean.containers() == servers
    wait_for(lambda: clean.answers("alice"), "alice's server, with the hub of before")
    assert run_cell(page, "print(kept + 2)").strip() == "43"
    [lease] = clean.leases()
    assert (lease["user"], lease["state"]) == ("alice", "active")
    assert messages() == ["before"]
    hub = clean.container("hub")
    assert ".until-" in clean.docker("exec", hub, "ls", "/srv/labcommons/data/store")
    clean.docker("exec", hub, "sh", "-c", "rm /srv/labcommons/data/store/*.until-*")
    assert "nothing is known of a version before" in clean.make("rollback", fails=True)


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

    def polled_in_silence() -> bool:
        """The hub polls a server that somebody asks for once more; without an answer, at length."""
        began = time.monotonic()
        status, _ = clean.api("POST", "users/alice/server", admin, WITH_GPU)
        assert status == 400  # "already running"
        return time.monotonic() - began > 1

    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(polled_in_silence, "the hub to ask an Engine that is silent", 180)
        assert clean.answers("alice")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert answers(clean, admin, "alice")
    [lease] = clean.leases()
    assert lease["state"] == "active"
