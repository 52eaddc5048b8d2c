"""An exam at the hub: the page's button starts its server alone, with what the exam says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from commons.audit import AuditTrail
from commons.site import CoursePeople, Site
from commons.store import Store
from commons.store.models import ExamSitting
from courses import records
from courses.document import check_course
from courses.exam_keeper import ExamKeeper
from rig.hub_in_memory import Lab, hub_lab

PAGE = "course/ml101/exam/midterm"


def settings() -> Config:
    config = Config()
    config.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0, "slow_stop_timeout": 10}
    config.JupyterHub.load_groups = {"course:ml101:students": {"users": ["alice", "bob"]}}
    config.Authenticator.allowed_users = {"alice", "bob", "carol"}
    return config


@pytest.fixture
async def lab(site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    courses = {"ml101": CoursePeople(students=["ml101"])}
    directory = site.directory.model_copy(update={"courses": courses})
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    site = site.model_copy(update={"directory": directory})
    async with hub_lab(store, site, tmp_path, settings()) as lab:

        async def at_login() -> dict[str, Any]:
            return {"courses": {"ml101": "student"}}

        for name in ("alice", "bob"):
            lab.app.users[name].get_auth_state = at_login
        yield lab
    store.close()


async def say(lab: Lab, begins: datetime, **extra_time: str) -> None:
    day = begins.date()
    spec = check_course(
        {
            "version": 1, "course": "ml101", "title": {"en": "ML"}, "timezone": "UTC",
            "term": {"first": str(day - timedelta(days=2)), "last": str(day + timedelta(days=9))},
            "exams": [
                {
                    "name": "midterm", "title": {"en": "The midterm"}, "day": str(day),
                    "starts": f"{begins:%H:%M}", "duration": "1h", "environment": "data:1",
                    "size": "small", "extra_time": extra_time,
                }
            ],
        }
    )  # fmt: skip
    shared = lab.resources
    await shared.store.run(lambda s: records.apply(s, spec, "dan", shared.site))


async def test_the_button_starts_the_exams_server_and_stops_the_others(lab: Lab) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    await say(lab, now + timedelta(hours=2))
    async with lab.browser("carol") as browser:
        assert (await browser.send(PAGE, {})).status == 404
    async with lab.browser("alice") as browser:
        assert (await browser.send(PAGE, {})).status == 403
        assert lab.memory.servers == {}

        await lab.started(size="large")
        await say(lab, now - timedelta(minutes=5))
        begun = await browser.send(PAGE, {})
        assert begun.status == 302
        assert "/spawn-pending/alice/exam-midterm?" in begun.headers["Location"]
        await lab.until(lambda: lab.spawner("alice", "exam-midterm").ready)
        assert not lab.spawner().active
        [spec] = [one for key, one in lab.memory.specs.items() if key in lab.memory.servers]
        assert (spec.server, spec.environment, spec.version) == ("exam-midterm", "data", "1")
        assert spec.exam is not None
        assert (spec.exam.course, spec.exam.exam) == ("course-ml101", "midterm")
        assert (spec.scopes, spec.mounts, spec.account.gids, spec.gpus) == ((), (), (), None)
        assert not {"PIP_INDEX_URL", "LABCOMMONS_GROUPS", "LABCOMMONS_CONDARC"} & spec.env.keys()
        assert lab.memory.made["exam-course-ml101/midterm/alice"] == 1

        # No other server until the end, and its own with what the exam says, whoever asks.
        await lab.rest("POST", "users/alice/server", {"size": "small"})
        await lab.until(lambda: not lab.spawner().pending)
        refused = lab.spawner()._spawn_future.exception()
        assert "You are in the exam" in str(getattr(refused, "jupyterhub_message", ""))
        assert len(lab.memory.servers) == 1
        await lab.servers.stop("alice", "exam-midterm")
        await lab.rest("POST", "users/alice/servers/exam-midterm", {"size": "large"})
        await lab.until(lambda: lab.spawner("alice", "exam-midterm").ready)
        [spec] = [one for key, one in lab.memory.specs.items() if key in lab.memory.servers]
        assert spec.limits.memory == lab.resources.site.sizes["small"].memory_bytes
        assert (await browser.send(PAGE, {})).headers["Location"].endswith("/exam-midterm/")


async def test_the_clock_ends_it_and_then_there_are_other_servers(lab: Lab) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    await say(lab, now - timedelta(minutes=5))
    shared = lab.resources
    async with lab.browser("alice") as browser:
        await browser.send(PAGE, {})
        await lab.until(lambda: lab.spawner("alice", "exam-midterm").ready)
        keeper = ExamKeeper(
            shared.store, shared.runtime, lab.servers, AuditTrail(), lab.app.log,
            lambda: (now + timedelta(hours=1)).replace(tzinfo=UTC).timestamp(),
        )  # fmt: skip
        await keeper.look()
        await lab.until(lambda: not keeper.busy)
        assert lab.memory.servers == {}
        assert lab.memory.made["exam-close-course-ml101/midterm/alice"] == 1
        assert "exam-midterm" not in lab.app.users["alice"].spawners

        def over(session: Any) -> bool:
            row = session.get_one(ExamSitting, ("ml101", "midterm", "alice"))
            return bool(row.ended_at and row.collected_at)

        assert await shared.store.read(over)
        assert (await lab.started(size="small")).ready
