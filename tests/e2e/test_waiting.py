"""Waiting for a server: for a quota, for a reservation, and not where it was started ahead."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conftest import NewPage
from deployment import Deployment, wait_for
from people import choose, in_lab, log_in, picture, start
from playwright.sync_api import expect


def test_who_waits_sees_why_and_starts_when_a_quota_is_raised(
    clean: Deployment, admin: str, new_page: NewPage
) -> None:
    quota = ("docker", "exec", clean.container("hub"), "labcommons", "quota")
    clean.run(*quota, "set", "user:alice", "max_gpus=1")
    try:
        clean.login_once("alice")
        path = "users/alice/servers/train"
        status, _ = clean.api("POST", path, admin, {"environment": "py313-data", "gpus": 1})
        assert status in (201, 202)
        wait_for(lambda: [x["state"] for x in clean.leases()] == ["active"], "the first server")
        page = new_page()
        log_in(page, "alice")
        choose(page, "py313-data", gpus=1)
        start(page)
        page.wait_for_url("**/hub/spawn-pending/**")
        waiting = page.get_by_text("one person may hold").first
        expect(waiting).to_be_visible()
        assert "1 of the 1 GPUs" in page.locator("main").inner_text()
        [place] = clean.labcommons("gpu", "queue")
        assert "person_gpus" in [reason["code"] for reason in place["waiting"]["reasons"]]
        page.reload()
        expect(waiting).to_be_visible()
        page.goto("/hub/home")
        expect(page.get_by_text("Waiting for GPUs")).to_be_visible()
        mine = page.get_by_role("region", name="My server")
        mine.get_by_role("link", name="Show progress").click()
        expect(waiting).to_be_visible()
        clean.run(*quota, "set", "user:alice", "max_gpus=2")
        in_lab(page)
        assert [x["state"] for x in clean.leases()] == ["active", "active"]
        assert clean.labcommons("gpu", "queue") == []
    finally:
        clean.run(*quota, "unset", "user:alice", "max_gpus")


def test_before_a_reservation_the_form_chooses_the_longest_time_that_starts_now(
    clean: Deployment, new_page: NewPage, pictures: Path
) -> None:
    run = ("docker", "exec", clean.container("hub"), "labcommons")
    begins = datetime.now(UTC) + timedelta(minutes=50)
    clean.run(*run, "quota", "set", "default", "default_time_limit=8h")
    for name, model, count in (("lab", "A100", 2), ("drill", "RTX 4090", 1)):
        clean.run(
            *run, "reservation", "create", name, "course:ml101", "--type", model,
            "--gpus", str(count), "--starts", f"{begins:%Y-%m-%dT%H:%M}", "--duration", "1h",
            "--timezone", "UTC",
        )  # fmt: skip
    try:
        page = new_page()
        log_in(page, "alice")
        choose(page, "py313-data", gpus=1)
        limit = page.get_by_label("Time limit", exact=True)
        chosen = limit.locator("option:checked")
        expect(chosen).to_contain_text("until ")
        note = page.get_by_text("then the GPUs are reserved: longer starts later")
        expect(note.first).to_be_visible()
        picture(page, pictures, "spawn-until")
        start(page)
        in_lab(page)
        [lease] = clean.leases()
        assert datetime.fromisoformat(lease["ends_at"]) <= begins
        # An hour more would run into the class: at most what is left is added, and it says why.
        page.goto("/services/labcommons/")
        page.locator(f"#extend-{lease['id']}").click()
        page.get_by_label("Extend by").select_option("1h")
        page.locator("#confirm-yes").click()
        expect(page.locator("#trouble")).to_contain_text(re.compile("“(lab|drill)”"))
        [lease] = clean.leases()
        assert datetime.fromisoformat(lease["ends_at"]) <= begins
        picture(page, pictures, "not-extended")
    finally:
        clean.without_limits()


def test_a_class_has_its_servers_ahead_of_time_though_the_hub_is_killed_in_the_middle(
    clean: Deployment, new_page: NewPage
) -> None:
    people = ["s01", "s02", "s03"]
    for one in people:
        clean.login_once(one)
    warm = ("server", "warm")
    with clean.held_up():
        made = clean.labcommons(
            *warm, "start", "Lesson", *(f"--user={one}" for one in people),
            "--environment=py313-data",
        )  # fmt: skip
        wait_for(lambda: clean.containers(), "the first server to be made")
        clean.kill("hub")
    wait_for(lambda: clean.healthy("hub"), "the hub to come back", 90)

    def states() -> dict[str, str]:
        found = clean.labcommons(*warm, "show", made["id"])["servers"]
        return {one["user"]: one["state"] for one in found}

    wait_for(lambda: states() == dict.fromkeys(people, "ready"), "all to be ready", 120)
    held = {one: clean.containers(one) for one in people}
    assert all(len(found) == 1 for found in held.values()), "one each, none twice"
    # It has behind it what a browser asks first, JupyterLab's page above all.
    [container] = held["s02"]

    def said() -> str:
        return clean.run("sh", "-c", f"docker logs {container} 2>&1")

    wait_for(lambda: "asked ahead" in said(), "the server to have asked itself")
    ahead = [line for line in said().splitlines() if "no_track_activity" in line]
    assert any("/user/s02/lab?" in line for line in ahead)
    assert all(" 200 GET " in line for line in ahead), ahead
    # The person comes: nothing is to be chosen, and nothing to be waited for.
    page = new_page()
    log_in(page, "s01")
    page.wait_for_url("**/user/s01/lab**")
    in_lab(page)
    wait_for(lambda: states()["s01"] == "opened", "it to be theirs")
    assert clean.containers("s01") == held["s01"]
    clean.labcommons(*warm, "cancel", made["id"])
    wait_for(lambda: clean.containers() == held["s01"], "the others to be released")
    assert states() == {"s01": "opened", "s02": "cancelled", "s03": "cancelled"}
