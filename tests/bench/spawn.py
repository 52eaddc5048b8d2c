"""How long one server takes from the request until the hub calls it ready.

Ours (the whole deployment, ``make up``) beside a stock JupyterHub with DockerSpawner and
an image of ``pip install jupyterhub jupyterlab``: in one run, in turn, on one Engine.
Run by ``make bench``; writes tests/bench/results/spawn.md.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

from deployment import ROOT, Deployment, copy_checkout, wait_for

RUNS = int(os.environ.get("BENCH_RUNS", "9"))
NETWORK, HUB, CHP = "lcbench", "lcbench-hub", "lcbench-chp"

Api = Callable[[str, str, object], tuple[int, Any]]


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=900, check=False
    )
    if check and done.returncode:
        raise RuntimeError(done.stderr or done.stdout)
    return done.stdout.strip()


class Peer:
    """The stock hub, in containers of its own."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)

    def __enter__(self) -> Peer:
        self.__exit__()
        docker("build", "-q", "-t", "lcbench/plain", str(HERE / "plain"))
        docker("network", "create", NETWORK)
        docker(
            "run", "-d", "--name", CHP, "--network", NETWORK, "--user", "990",
            "-e", "CONFIGPROXY_AUTH_TOKEN=bench", "--entrypoint", "", "labcommons/chp",
            "configurable-http-proxy", "--api-ip=0.0.0.0", "--ip=0.0.0.0",
            f"--default-target=http://{HUB}:8081",
        )  # fmt: skip
        docker(
            "run", "-d", "--name", HUB, "--network", NETWORK, "--user", "0",
            "-v", f"{socket_path()}:/var/run/docker.sock", "-v", f"{HERE / 'plain'}:/bench:ro",
            "-e", f"BENCH_TOKEN={self.token}", "-e", f"BENCH_NETWORK={NETWORK}",
            "--entrypoint", "", "-w", "/tmp",
            "labcommons/hub", "jupyterhub", "-f", "/bench/jupyterhub_config.py",
        )  # fmt: skip
        address = docker(
            "inspect", "-f", '{{(index .NetworkSettings.Networks "lcbench").IPAddress}}', HUB
        )
        self.base = f"http://{address}:8081/hub/api/"
        wait_for(lambda: self.api("GET", "", None)[0] == 200, "the stock hub")
        self.api("POST", "users/bench", None)
        return self

    def api(self, method: str, path: str, body: object) -> tuple[int, Any]:
        request = urllib.request.Request(
            self.base + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"token {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text, status = answer.read(), answer.status
        except urllib.error.HTTPError as error:
            text, status = error.read(), error.code
        except OSError:
            return 0, None
        return status, json.loads(text) if text else None

    def __exit__(self, *_error: object) -> None:
        found = docker("ps", "-aq", "--filter", "name=^lcbench").split()
        if found:
            docker("rm", "-f", *found)
        docker("network", "rm", NETWORK, check=False)


def socket_path() -> str:
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


def one_start(api: Api, user: str, options: object) -> float:
    """Seconds from the request until ``ready``; the server is stopped again."""
    started = time.perf_counter()
    status, answer = api("POST", f"users/{user}/server", options)
    if status not in (201, 202):
        raise RuntimeError(f"{user}: {status} {answer}")
    while True:
        _, found = api("GET", f"users/{user}", None)
        server = found["servers"].get("")
        if server is None:
            raise RuntimeError(f"{user}: the server failed to start")
        if server["ready"]:
            break
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    api("DELETE", f"users/{user}/server", None)
    wait_for(lambda: not api("GET", f"users/{user}", None)[1]["servers"], "the server to stop")
    return seconds


def machine() -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    engine = docker("version", "-f", "{{.Server.Version}}")
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Docker Engine {engine}, {datetime.now(UTC):%Y-%m-%d}"
    )


def row(name: str, seconds: list[float]) -> str:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"| {name} | {low:.2f} | {middle:.2f} | {high:.2f} |"


def main() -> None:
    root = ROOT / ".cache" / "e2e"
    copy_checkout(root)
    site = Deployment(root)
    site.up()
    site.login_once("alice")
    token = site.login_once("carol")
    site.stop_all_servers(token)

    def ours(method: str, path: str, body: object) -> tuple[int, Any]:
        return site.api(method, path, token, body)

    options = {"environment": "py313-data", "gpus": 1}
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    with Peer() as peer:
        for run in range(RUNS + 1):
            pair = (
                one_start(ours, "alice", options),
                one_start(peer.api, "bench", {}),
            )
            if run:  # the first one warms up
                times["ours"].append(pair[0])
                times["peer"].append(pair[1])
            print(f"{run}/{RUNS}: ours {pair[0]:.2f} s, peer {pair[1]:.2f} s", flush=True)
    site.down()
    ratio = statistics.median(a / b for a, b in zip(times["ours"], times["peer"], strict=True))
    text = "\n".join(
        [
            "# Start-up of one server",
            "",
            "Seconds from the REST request until the hub calls the server ready; each a cold",
            "start of a new container, in turn, in one run. Ours goes through HTTPS, leases a",
            "(simulated) GPU and has JupyterLab with the environment's kernel; the peer is a",
            "stock JupyterHub 6.1.1 with DockerSpawner 14 and an image of",
            "`pip install jupyterhub jupyterlab`, asked without HTTPS.",
            "",
            f"{len(times['ours'])} runs each after one to warm up; {machine()}.",
            "",
            "| | min | median | max |",
            "|---|---|---|---|",
            row("LabCommons", times["ours"]),
            row("DockerSpawner, plain image", times["peer"]),
            "",
            f"Ratio ours / peer, median of pairs: {ratio:.2f}",
            "",
        ]
    )
    (HERE / "results" / "spawn.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
