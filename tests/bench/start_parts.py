"""Where the time of one start goes: CPU of each part, from the request until the server is ready.

    python3 tests/rig/testbed.py exec -- .venv/bin/python tests/bench/start_parts.py

The whole deployment, one start at a time. CPU is what the kernel counted: for containers in their
cgroups, for the Engine in its processes and in those that they started and waited for. What a part
uses while nothing happens is measured before, told, and taken off. Then, in the server's image
alone, the process of a plain single-user server, and what each stand-in of the launcher saves.
Writes tests/bench/results/start_parts.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

import docker
from deployment import ROOT, Deployment, copy_checkout, wait_for
from spawn import machine

RUNS = int(os.environ.get("BENCH_RUNS", "9"))
IDLE = 20  # seconds
SERVICES = ("hub", "agent", "chp", "gate", "proxy", "console", "kernels", "perimeter")
TICK = os.sysconf("SC_CLK_TCK") / 1000  # in a millisecond
ENGINE = docker.from_env(timeout=60)

Parts = dict[str, float]  # milliseconds of CPU


def of_container(container: docker.models.containers.Container) -> float:
    """What its cgroup has used."""
    found = ENGINE.api.stats(container.id, stream=False, one_shot=True)
    return found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e6


def of_engine() -> float:
    """dockerd, containerd and their shims, with what these ran and waited for: runc, iptables."""
    dockerd = Path(f"/proc/{Path(os.environ['LABCOMMONS_TESTBED_PIDFILE']).read_text().strip()}")
    words = (dockerd / "cmdline").read_text().split("\0")
    # The folder of this Engine's sockets is in the command line of each.
    place, total = words[words.index("--exec-root") + 1], 0.0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if place in (entry / "cmdline").read_text():
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                total += sum(map(int, fields[11:15])) / TICK
        except (OSError, UnicodeDecodeError):
            continue  # it has ended, or is none of them
    return total


def used(site: Deployment) -> Parts:
    found = {name: of_container(ENGINE.containers.get(site.container(name))) for name in SERVICES}
    return found | {"Engine, runc": of_engine()}


def taken(before: Parts, after: Parts) -> Parts:
    return {name: after[name] - before[name] for name in after}


def one_start(site: Deployment, token: str, person: str, idle: Parts) -> Parts:
    """Parts of one start, and its seconds on the wall."""
    before, began = used(site), time.perf_counter()
    status, said = site.api("POST", f"users/{person}/server", token, {"environment": "py313-data"})
    if status not in (201, 202):
        raise RuntimeError(f"{status} {said}")
    # One request that ends with the start: asking again and again would be measured, too.
    _, progress = site.api("GET", f"users/{person}/server/progress", token)
    wall = time.perf_counter() - began
    if '"ready": true' not in str(progress):
        raise RuntimeError(f"{person}'s server did not start: {progress}")
    [server] = ENGINE.containers.list(filters={"label": f"labcommons.user={person}"})
    parts = {"container": of_container(server)} | taken(before, used(site))
    parts = {name: ms - wall * idle.get(name, 0) for name, ms in parts.items()}
    site.api("DELETE", f"users/{person}/server", token)
    wait_for(lambda: not site.api("GET", f"users/{person}", token)[1]["servers"], "the stop")
    return parts | {"sum": sum(parts.values()), "wall": wall * 1000}


# What stands instead of the plain imports, one more in each row.
HUB = ["aiohttp", "jupyterhub.httpclient", "requests", "jupyterlab.extensions.pypi"]
STEPS = {
    "plain": None,
    "without the hub's database and pages": HUB,
    "and without aiohttp": HUB[2:],
    "and without requests": HUB[3:],
    "and without JupyterLab's shop, httpx": [],
}
IN_IMAGE = """
import json, os, statistics, sys, tempfile
from pathlib import Path
sys.path.insert(0, "/launch")
import compare
runs, steps = json.load(sys.stdin)
kept = (
    "import sys; from labcommons_launch import stand_ins; stand_ins()\\n"
    "for name in %r: del sys.modules[name]\\n"
    "from jupyterhub.singleuser import main; sys.exit(main())"
)
variants = {
    name: (compare.PLAIN if names is None else [sys.executable, "-I", "-c", kept % names,
           *compare.OPTIONS], compare.WITHOUT)
    for name, names in steps.items()
}
whole = [sys.executable, "-I", sys.prefix + "/bin/labcommons-server", *compare.OPTIONS]
variants["and garbage not looked for: as it is"] = whole, ""
figures = {name: [] for name in variants}
for run in range(runs + 1):
    for name, (command, configuration) in variants.items():
        with (
            tempfile.TemporaryDirectory() as folder,
            compare.started(command, Path(folder, "x"), configuration) as (process, _, _),
        ):
            stat = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        cpu = sum(map(int, stat[11:13])) * 1000 / os.sysconf("SC_CLK_TCK")
        figures[name].append((cpu, pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
print(json.dumps({name: [statistics.median(x) for x in zip(*all[1:])]
                  for name, all in figures.items()}))
"""


def in_image() -> list[str]:
    """Rows of a table: CPU and memory of the server's process, by what it imports."""
    launch = ROOT / "config/images/server/launch"
    done = subprocess.run(
        ["docker", "run", "--rm", "-i", "--network", "none", "--tmpfs", "/tmp",
         "-v", f"{launch}:/launch:ro", "labcommons/server",
         "/opt/labcommons/server/bin/python", "-I", "-c", IN_IMAGE],
        input=json.dumps([RUNS, STEPS]), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    found = json.loads(done.stdout)
    return [f"| {name} | {cpu:.0f} ms | {memory:.0f} MB |" for name, (cpu, memory) in found.items()]


def main() -> None:
    root = ROOT / ".cache" / "e2e"
    copy_checkout(root)
    site = Deployment(root)
    site.up()
    site.login_once("alice")
    token = site.login_once("carol")
    site.stop_all_servers(token)
    before = used(site)
    time.sleep(IDLE)
    idle = {name: ms / IDLE for name, ms in taken(before, used(site)).items()}
    starts = []
    for run in range(RUNS + 1):
        parts = one_start(site, token, "alice", idle)
        print(f"{run}/{RUNS}: {parts['sum']:.0f} ms of CPU, {parts['wall']:.0f} ms", flush=True)
        starts.append(parts)
    rows = [
        f"| {name} | {low:.0f} | {middle:.0f} | {high:.0f} | {idle.get(name, 0):.1f} |"
        for name in ("container", "Engine, runc", *SERVICES, "sum", "wall")
        for values in [[parts[name] for parts in starts[1:]]]
        for low, middle, high in [(min(values), statistics.median(values), max(values))]
    ]
    image = in_image()
    site.down()
    text = "\n".join(
        [
            "# The parts of one start",
            "",
            "Milliseconds of CPU from the REST request until the server is ready, one start at a",
            "time, without a GPU; the last column is what the part takes in each second of rest,",
            f"which is taken off. {RUNS} starts after one to warm up; {machine()}.",
            "",
            "| | min | median | max | at rest, ms/s |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "The server's process in its image, until its first call to the hub; medians:",
            "",
            "| what it imports | CPU | memory |",
            "|---|---|---|",
            *image,
            "",
        ]
    )
    (HERE / "results" / "start_parts.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
