"""A course's shared server with ten people in one document: how long an edit takes to the others.

The whole deployment (``make up``); the ten are clients in the server's container (``edits.py``).
Run by ``make bench``; writes tests/bench/results/shared_server.md. BENCH_EDITS: how many.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from deployment import ROOT, Deployment, copy_checkout, wait_for
from spawn import machine

EDITS = int(os.environ.get("BENCH_EDITS", "300"))
OF = ("course-ml101", "bench")
PYTHON = "/opt/labcommons/server/bin/python"
URL = "http://127.0.0.1:8888/user/_course-ml101/bench/"


def state(site: Deployment) -> str:
    return str(next(one["state"] for one in site.labcommons("shared", "list")))


def main() -> None:
    root = ROOT / ".cache" / "e2e"
    copy_checkout(root)
    site = Deployment(root)
    site.up()
    try:
        site.labcommons("shared", "set", *OF, "--size", "small")
        site.labcommons("shared", "start", *OF)
        wait_for(lambda: state(site) in ("running", "failed"), "the shared server", 120)
        assert state(site) == "running", site.labcommons("shared", "list")
        [container] = site.containers("_course-ml101")
        command = ["docker", "exec", "-i", container, PYTHON, "-I", "-", URL, str(EDITS)]
        said = subprocess.run(
            command,
            input=(HERE / "edits.py").read_text(),
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(said.stdout)
    finally:
        site.labcommons("shared", "stop", *OF)
        wait_for(lambda: state(site) == "stopped", "the server to be gone")
        site.labcommons("shared", "remove", *OF)
        site.down()
    (HERE / "results" / "shared_server.md").write_text(
        f"""# Ten people in one document

Milliseconds from an edit of one, sent to the shared server, until it is in the document of each of
the nine others: {EDITS} edits, {9 * EDITS} arrivals. All ten are clients in the server's container
and share its one core; what a browser does to show it is not in it.

{machine()}.

| median | 95 % | last |
|---|---|---|
| {found["median"]} | {found["95 %"]} | {found["last"]} |
""",
        "utf-8",
    )


if __name__ == "__main__":
    main()
