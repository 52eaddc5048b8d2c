"""The disk of a site that runs: what nobody needs is removed by its own builder, at its hour and by
hand; limits are watched where the file system keeps none."""

from __future__ import annotations

import json
import os
import subprocess

from .deployment import Deployment
from .test_doctor import look

# The hub's nightly work, an hour after its begin and a minute after its time.
NIGHT = """
import asyncio, logging
from datetime import datetime, timedelta
from pathlib import Path
from commons.audit import AuditTrail
from commons.i18n import choose_timezone
from commons.site import load_site
from commons.site.storage import Storage
from commons.store import Store
from hub_ext.disk_prune import NightlyPrune
from spawner.runtime.client import from_environment

site, logging.root.level = load_site(), logging.INFO
hour = datetime.now(choose_timezone(site.servers.timezone)) - timedelta(minutes=1)
site = site.model_copy(update={"storage": Storage(prune=f"{hour:%H:%M}")})

async def main():
    runtime = from_environment()
    work = NightlyPrune(
        Store(), runtime, site, Path("/etc/labcommons/environments"), AuditTrail(), logging.root
    )
    work._began -= timedelta(hours=1)
    await work.once()
    await runtime.close()

asyncio.run(main())
"""
# The agent's look at limits, with a site file that has one.
LIMITS = """
import asyncio
from dataclasses import replace
from commons.site.storage import Storage
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.docker.settings import AgentSettings

found = AgentSettings.from_environment()
site = found.site.model_copy(update={"storage": Storage(homes="1G")})

async def main():
    runtime = DockerRuntime(replace(found, site=site))
    await runtime.quotas.round()
    for one in runtime.quotas.limits():
        print(one.area, one.refusal or "kept", one.folders)
    await runtime.close()

asyncio.run(main())
"""


def labcommons(deployment: Deployment, *words: str) -> str:
    command = [deployment.root / "bin" / "labcommons", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=deployment.root
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_nobody_needs_is_removed_at_night_and_by_hand(deployment: Deployment) -> None:
    logs = deployment.root / "data" / "logs" / "environments" / "gone"

    def leave_logs() -> None:
        logs.mkdir(exist_ok=True)
        os.chown(logs, 990, 990)
        for number in range(13):
            (logs / f"2026010{number:02}.log").write_text("x" * 1000)

    leave_logs()
    deployment.docker("exec", deployment.container("hub"), "python3", "-c", NIGHT)
    assert len(list(logs.iterdir())) == 10
    _, [row] = look(deployment, "prune")
    assert row["state"] == "ok", row
    left = deployment.docker("ps", "--all", "--quiet", "--filter=label=labcommons.purpose=build")
    assert left == ""
    # Images that no version has, as of earlier runs of the tests, are gone now.
    images = deployment.docker("images", "--quiet", "--filter=reference=labcommons/env-*")

    leave_logs()
    assert "logs that would go: 3" in labcommons(deployment, "disk", "prune", "--dry-run")
    found = json.loads(labcommons(deployment, "disk", "prune", "--yes", "--json"))
    kinds = {one["kind"]: one["count"] for one in found["removed"]}
    assert kinds["logs"] == 3
    assert len(list(logs.iterdir())) == 10
    # What is offered stays.
    assert deployment.docker("images", "--quiet", "--filter=reference=labcommons/env-*") == images
    assert look(deployment, "environments")[1][0]["state"] == "ok"


def test_limits_are_watched_where_the_file_system_keeps_none(deployment: Deployment) -> None:
    agent = deployment.container("agent")
    said = deployment.docker("exec", agent, "python", "-I", "-c", LIMITS)
    area, refusal, folders = said.split()
    assert (area, folders) == ("homes", "0")
    assert refusal in ("ENOSYS", "ENOTTY", "EOPNOTSUPP", "ESRCH", "off"), said
    assert look(deployment, "quotas")[1][0]["state"] == "ok"  # this site has no limits


def test_leases_and_versions_agree_on_a_site_that_runs(deployment: Deployment) -> None:
    _, rows = look(deployment, "leases", "versions")
    assert {row["check"] for row in rows} == {"leases", "versions"}
    assert [row for row in rows if row["state"] not in ("ok", "advice")] == []
