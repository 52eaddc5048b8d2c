"""What people see of promises about GPUs: a reclaim that comes and is called off, reservations."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from conftest import NewPage
from deployment import Deployment
from people import choose, come_back, in_lab, log_in, picture, start
from playwright.sync_api import expect

A100 = {"environment": "py313-data", "gpus": 1, "gpu_type": "A100"}
OF_COURSE = A100 | {"account": "course:ml101"}


def limits(site: Deployment, **document: Any) -> None:
    """The only limits that there are."""
    text = json.dumps({"version": 1} | document)
    apply = f"echo '{text}' | labcommons quota apply -f - --prune"
    site.run("docker", "exec", site.container("hub"), "sh", "-c", apply)


def active(site: Deployment) -> set[str]:
    return {one["user"] for one in site.leases() if one["state"] == "active"}


def shown(moment: str) -> str:
    """A time as pages of these browsers show it."""
    return f"{datetime.fromisoformat(moment).astimezone():%H:%M}"


def test_a_reclaim_is_told_to_both_and_called_off_when_a_gpu_comes_free_by_itself(
    clean: Deployment, admin: str, new_page: NewPage, pictures: Path
) -> None:
    share = {"cohort": "lab", "borrowing_limit": 2}
    limits(
        clean,
        groups={"vision": {"nominal": 2, **share}},
        courses={"ml101": {"nominal": 0, **share}},
    )
    try:
        tokens = {name: clean.login_once(name) for name in ("s01", "s02")}
        clean.api("POST", "users/s01/server", tokens["s01"], OF_COURSE)
        clean.start_server(tokens["s02"], "s02", OF_COURSE)
        borrower, owner, console = new_page(), new_page(), new_page()
        log_in(borrower, "s02")
        borrower.goto("/user/s02/lab")
        in_lab(borrower)

        log_in(owner, "alice")
        choose(owner, "py313-data", gpus=1, gpu_type="A100")
        start(owner)
        # The first expected start that she sees is that of the reclaim, not of the leases' ends.
        expected = owner.locator("#queue-start")
        expect(expected).not_to_have_text("–")
        first = expected.inner_text()
        [place] = clean.labcommons("gpu", "queue")
        [stop] = [one["stop"] for one in clean.leases() if one["user"] == "s02"]
        assert stop["reason"] == "preempted"
        at = datetime.fromisoformat(stop["at"])
        assert at <= datetime.now(UTC) + timedelta(minutes=5)
        assert first.startswith(shown(stop["at"])), (first, place)
        # The reason's numbers are those of the page beside it.
        reason = "0 of 2 A100 are free, 1 needed"
        expect(owner.locator("#queue-reasons")).to_contain_text(reason)
        log_in(console, "alice")
        console.goto("/services/labcommons/")
        card = console.locator(".lc-gpu", has_text="A100")
        expect(card).to_contain_text("0 of 2 free now")
        row = console.locator("tr", has_text="alice")
        expect(row).to_contain_text(reason)
        expect(row).to_contain_text(shown(place["waiting"]["expected_start"]))
        picture(owner, pictures, "reclaim-owner")

        told = come_back(borrower, "The GPUs were borrowed from")
        expect(told).to_contain_text(f"the server ends at {shown(stop['at'])}")
        picture(borrower, pictures, "reclaim-borrower")

        # The other one's comes free by itself: nobody has to end.
        clean.api("DELETE", "users/s01/server", tokens["s01"])
        owner.wait_for_url("**/user/alice/lab**", timeout=60_000)
        off = come_back(borrower, "not needed back any more: the server goes on")
        expect(off).to_be_visible()
        expect(told).to_be_hidden()
        picture(borrower, pictures, "reclaim-called-off")
        assert active(clean) == {"alice", "s02"}
        assert [one["stop"] for one in clean.leases()] == [None, None]
        assert clean.answers("s02")
    finally:
        clean.without_limits()


def test_what_nobody_uses_of_a_reservation_is_lent_and_given_back_when_its_people_come(
    clean: Deployment, admin: str, new_page: NewPage, pictures: Path
) -> None:
    tokens = {name: clean.login_once(name) for name in ("alice", "s01", "s02")}
    alice, student = new_page(), new_page()
    log_in(alice, "alice")
    log_in(student, "s02")
    now = datetime.now(UTC)
    since = now - now.replace(second=0, microsecond=0)
    after = int(since.total_seconds()) + 12
    limits(clean, settings={"release_after": after}, default={"default_time_limit": "8h"})
    clean.run(
        "docker", "exec", clean.container("hub"), "labcommons", "reservation", "create", "drill",
        "course:ml101", "--type", "A100", "--gpus", "2", "--starts", f"{now:%Y-%m-%dT%H:%M}",
        "--duration", "2h", "--timezone", "UTC",
    )  # fmt: skip
    try:
        short = A100 | {"time_limit": 30}
        clean.api("POST", "users/alice/server", tokens["alice"], short)
        alice.goto("/hub/spawn-pending/alice")
        why = alice.locator("#queue-reasons")
        expect(why).to_contain_text("reserved for “drill”")
        assert active(clean) == set()
        # Nobody of the course has come: it starts by itself.
        in_lab(alice)

        # They come: the first has what is free at once, the second in five minutes.
        clean.start_server(tokens["s01"], "s01", OF_COURSE)
        clean.api("POST", "users/s02/server", tokens["s02"], OF_COURSE)
        student.goto("/hub/spawn-pending/s02")
        expected = student.locator("#queue-start")
        expect(expected).not_to_have_text("–")
        [stop] = [one["stop"] for one in clean.leases() if one["user"] == "alice"]
        assert expected.inner_text().startswith(shown(stop["at"]))
        at = datetime.fromisoformat(stop["at"])
        assert at <= datetime.now(UTC) + timedelta(minutes=5)
        told = come_back(alice, f"the server ends at {shown(stop['at'])}")
        expect(told).to_contain_text("Save your work.")
        picture(alice, pictures, "reservation-back")
        assert active(clean) == {"alice", "s01"}
    finally:
        clean.without_limits()
