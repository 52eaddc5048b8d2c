"""From a pasted environment.yml to a kernel that can be started, over the console's REST API.

Beside it, in the same server: ``python -m venv`` and pip install of the same packages. Run in the
test bed, as ``make bench`` does; prints a table and writes tests/bench/results/paste.md.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "e2e"), str(HERE.parents[1])]

from deployment import ROOT, Deployment, copy_checkout, wait_for

RUNS = 3
CONSOLE = "/services/labcommons/api/v1/"
SPEC = (
    "name: NAME\nchannels: [conda-forge]\n"
    "dependencies: [python 3.13.*, ipykernel, numpy, pandas, matplotlib-base]\n"
)
PACKAGES = "ipykernel numpy pandas matplotlib"


def pasted(site: Deployment, token: str, name: str) -> tuple[float, float]:
    """Seconds from the request until the build is done, and until a kernel lists it."""
    begun = time.monotonic()
    body = {"source": "personal", "name": name, "spec": SPEC.replace("NAME", name)}
    status, answer = site.api("POST", "environments", token, body, of=CONSOLE)
    assert status == 202, answer
    job = answer["build"]["id"]
    found: dict[str, object] = {}

    def over() -> bool:
        _, said = site.api("GET", f"builds/{job}", token, of=CONSOLE)
        found.update(said["build"])
        return found["state"] not in ("queued", "running")

    wait_for(over, "the build", 300)
    assert found["state"] == "done", found
    built = time.monotonic() - begun
    wait_for(lambda: f"conda-personal-{name}-python3" in kernels(site), "the kernel", 30)
    return built, time.monotonic() - begun


def kernels(site: Deployment) -> str:
    """The kernels that a kernel manager in alice's server lists."""
    program = (
        "from kernels.manager import CondaKernelSpecManager as M; print(*M().find_kernel_specs())"
    )
    return site.docker("exec", server(site), "/opt/labcommons/server/bin/python", "-c", program)


def server(site: Deployment) -> str:
    return site.docker(
        "ps",
        "-q",
        "--filter",
        "label=labcommons.user=alice",
        "--filter",
        "label=labcommons.site=labcommons",
    ).strip()


def plain(site: Deployment, folder: str) -> float:
    """Seconds for venv and pip, where the person would do it: on the machine that has an index."""
    begun = time.monotonic()
    site.run(
        "sh", "-c",
        f"{sys.executable} -m venv {folder} && {folder}/bin/pip install -q {PACKAGES}; "
        f"rm -rf {folder}",
    )  # fmt: skip
    return time.monotonic() - begun


def main() -> None:
    root = ROOT / ".cache" / "e2e"
    copy_checkout(root)
    site = Deployment(root)
    site.up()
    try:
        token = site.login_once("alice")
        site.start_server(token, "alice", {"environment": "py313-data", "size": "small"})
        rows = []
        for number in range(RUNS + 1):
            built, listed = pasted(site, token, f"bench{number}-{int(time.time())}")
            rows.append((built, listed, plain(site, f"/tmp/bench-venv-{number}")))
    finally:
        site.down()
    first, warm = rows[0], rows[1:]
    lines = [
        "# From a pasted environment.yml to a kernel",
        "",
        f"{platform.platform()}, {Path('/proc/cpuinfo').read_text().count('processor')} cores, "
        f"load average {os.getloadavg()[0]:.1f} at the end; "
        "offline channel; python, ipykernel, numpy, pandas, matplotlib. Seconds.",
        "",
        "| | build done | kernel listed | venv + pip of the same |",
        "|---|---|---|---|",
        "| first | " + " | ".join(f"{value:.1f}" for value in first) + " |",
        f"| median of {RUNS} more | "
        + " | ".join(f"{statistics.median(column):.1f}" for column in zip(*warm, strict=True))
        + " |",
        "",
    ]
    text = "\n".join(lines)
    print(text)
    (HERE / "results" / "paste.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
