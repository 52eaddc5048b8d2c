"""From a pasted environment.yml to a kernel that can be started, over the console's REST API.

Beside it, in the same run: ``python -m venv`` and pip install of the same packages, and
``labcommons env build`` with nothing to do, as a person runs it: in a container of the builder.
Run in the test bed, as ``make bench`` does; writes tests/bench/results/paste.md.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "e2e"), str(HERE.parents[1])]

from deployment import ROOT, Deployment, copy_checkout, wait_for

RUNS = int(os.environ.get("BENCH_RUNS", "3"))
CONSOLE = "/services/labcommons/api/v1/"
SPEC = (
    "name: NAME\nchannels: [conda-forge]\n"
    "dependencies: [python 3.13.*, ipykernel, numpy, pandas, matplotlib-base]\n"
)
# What is there already when somebody pastes it.
NEW = "nothing: packages are made from wheels, fetched, compiled"
FIRST = "the channel, and the bytecode of the site's own images; the person's first"
AGAIN = "another of the same person's has the packages"
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


def forget_person(site: Deployment) -> None:
    """As if alice had never built anything."""
    home = site.root / "data" / "homes" / "alice"
    shutil.rmtree(home / ".cache" / "labcommons", ignore_errors=True)


def forget_all(site: Deployment) -> None:
    """As if nobody had asked for these packages; pip keeps its wheels, here and for the peer."""
    forget_person(site)
    for name in ("numpy", "pandas", "matplotlib"):
        for package in (site.root / "data" / "channel" / "linux-64").glob(f"{name}-*py313*.conda"):
            package.unlink()
    for folder in (site.root / "data" / "cache" / "bytecode").iterdir():
        shutil.rmtree(folder)


def nothing_to_do(site: Deployment) -> float:
    """Seconds of ``labcommons env build --all``, with the container it runs in."""
    data, inside = site.root / "data", "/srv/labcommons/data"
    site_file = next(
        line.partition("=")[2]
        for line in (site.root / ".env").read_text().splitlines()
        if line.startswith("LABCOMMONS_SITE_FILE=")
    )
    socket = Path(os.environ["DOCKER_HOST"].removeprefix("unix://"))
    command = [
        *("docker", "run", "--rm", "--init", "--cap-drop=ALL"),
        f"--group-add={socket.stat().st_gid}",
        f"--volume={socket}:/var/run/docker.sock",
        f"--volume={site.root / 'config'}:/etc/labcommons:ro",
        *(
            f"--volume={data / name}:{inside}/{name}"
            for name in ("store", "channel", "locks", "cache", "versions", "logs")
        ),
        f"--env=LABCOMMONS_SITE_FILE=/etc/labcommons/{site_file}",
        f"--env=LABCOMMONS_DATA={inside}",
        f"--env=LABCOMMONS_DATABASE_URL=sqlite:///{inside}/store/labcommons.sqlite",
        *("labcommons/builder", "labcommons", "env", "build", "--all"),
    ]
    begun = time.monotonic()
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.monotonic() - begun
    assert all(line.endswith("up to date") for line in said.splitlines()), said
    return seconds


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
        rows: dict[str, list[tuple[float, float, float]]] = {}
        commands = []
        load = os.getloadavg()[0]
        for number in range(2 * RUNS + 1):
            name = [NEW, *[FIRST] * RUNS, *[AGAIN] * RUNS][number]
            {NEW: forget_all, FIRST: forget_person}.get(name, lambda _: None)(site)
            built, listed = pasted(site, token, f"bench{number}-{int(time.time())}")
            peer = plain(site, f"/tmp/bench-venv-{number}")
            rows.setdefault(name, []).append((built, listed, peer))
            commands.append(nothing_to_do(site))
            print(f"{name}: {listed:.1f}; venv and pip {peer:.1f}; {commands[-1]:.2f}", flush=True)
    finally:
        site.down()
    lines = [
        "# From a pasted environment.yml to a kernel",
        "",
        f"{platform.platform()}, {os.cpu_count()} cores, load average {load:.1f} at the beginning, "
        f"{os.getloadavg()[0]:.1f} at the end; "
        "offline channel; python, ipykernel, numpy, pandas, matplotlib. Seconds, medians.",
        "",
        "| | runs | build done | kernel listed | venv + pip of the same |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {len(found)} | "
            + " | ".join(f"{statistics.median(column):.1f}" for column in zip(*found, strict=True))
            + " |"
            for name, found in rows.items()
        ),
        "",
        f"`labcommons env build --all` with nothing to do, the builder's container included: "
        f"{min(commands):.2f} to {max(commands):.2f}, median {statistics.median(commands):.2f} "
        f"({len(commands)} runs).",
        "",
    ]
    text = "\n".join(lines)
    print(text)
    (HERE / "results" / "paste.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
