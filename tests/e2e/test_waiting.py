"""One person waits on the start page, an administrator raises a quota, and the server starts."""

from __future__ import annotations

from conftest import NewPage
from deployment import Deployment, wait_for
from people import choose, in_lab, log_in, start
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
        page.get_by_role("link", name="Show progress").click()
        expect(waiting).to_be_visible()
        clean.run(*quota, "set", "user:alice", "max_gpus=2")
        in_lab(page)
        assert [x["state"] for x in clean.leases()] == ["active", "active"]
        assert clean.labcommons("gpu", "queue") == []
    finally:
        clean.run(*quota, "unset", "user:alice", "max_gpus")
