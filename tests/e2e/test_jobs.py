"""A job from a terminal of one's server to its end, the server being stopped; and on the page."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from conftest import NewPage
from deployment import Deployment
from people import log_in, picture
from playwright.sync_api import expect

PROGRAM = (
    "import os, sys, time; print(sys.prefix, os.getcwd(), os.environ['NVIDIA_VISIBLE_DEVICES']);"
    " open('made', 'w').write('x'); time.sleep(8); print('over'); sys.exit(5)"
)
TOKEN = "import os; print(sorted(name for name in os.environ if 'TOKEN' in name))"


def over(site: Deployment, job: str) -> dict[str, Any]:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        [found] = site.labcommons("jobs", "show", job)
        if found["state"] not in ("pending", "starting", "running"):
            return dict(found)
        time.sleep(0.5)
    raise AssertionError(found)


def test_a_job_goes_on_when_its_server_is_stopped(
    clean: Deployment, new_page: NewPage, pictures: Path
) -> None:
    token = clean.login_once("alice")
    clean.start_server(token, "alice", {"environment": "py313-data"})
    [server] = clean.containers("alice")

    def inside(*words: str) -> str:
        lab = "cd ~ && mkdir -p runs && cd runs && exec /opt/labcommons/server/bin/labcommons"
        return clean.docker("exec", server, "sh", "-c", f'{lab} "$@"', "sh", *words)

    [job] = json.loads(inside("run", "--json", "--gpus", "1", "--time", "1h", "--",
                              "python", "-c", PROGRAM))  # fmt: skip
    assert (job["user"], job["folder"]) == ("alice", "runs")
    [second] = json.loads(inside("run", "--json", "--", "python", "-c", TOKEN))
    assert "queued" in inside("run", "--after", second["id"], "--", "true")
    clean.stop_all_servers(clean.login_once("carol"))
    found = over(clean, job["id"])
    assert (found["state"], found["exit_code"]) == ("failed", 5)
    assert found["environment"].startswith("py313-data:")
    assert found["memory_peak"] > 2**20
    said = clean.labcommons("jobs", "log", job["id"])["log"].splitlines()
    assert said[0].split()[:2] == ["/opt/conda/envs/py313-data", "/home/alice/runs"]
    assert said[0].split()[2] not in ("void", "all")
    assert said[1] == "over"
    assert over(clean, second["id"])["state"] == "done"
    assert clean.labcommons("jobs", "log", second["id"])["log"].startswith("[]\n")
    assert clean.leases() == []
    assert clean.containers("alice") == []

    page = new_page()
    log_in(page, "alice")
    page.goto("/services/labcommons/jobs")
    picture(page, pictures, "jobs")
    page.get_by_label("Command").fill("sh -c 'echo waits; sleep 300'")
    page.get_by_role("button", name="Run it").click()
    row = page.get_by_role("region", name="running").first
    expect(row).to_contain_text("echo waits")
    row.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.get_by_role("region", name="cancelled")).to_contain_text("by alice")
    page.get_by_role("link", name=job["id"], exact=True).click()
    expect(page.locator("pre")).to_contain_text("over")
    picture(page, pictures, "job")
