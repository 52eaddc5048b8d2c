"""The hub's process alone: how long it is silent, what it costs at rest, how soon it serves again.

The site's own hub (``rig.watched_hub``) with agent, proxy and servers in memory beside it
(``rig.hub_world``), so that a hundred servers need no containers:

- crowds of CROWDS people that ask at one moment: the longest time for which one callback held the
  event loop, on the wall and in CPU of its thread, and the longest answer of ``/hub/health``;
- CPU with SERVERS servers and nobody there, for REST seconds;
- a restart with them: from the process's start to the first answers;
- WAVES waves of starts and stops: memory, open files.

Run by ``make bench``; writes tests/bench/results/hub_alone.md. PARTS chooses among
"crowd rest restart waves".
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[0] = str(HERE.parent)  # not this folder: it has an environments.py
sys.path.insert(0, str(ROOT))

from commons.store import EnvironmentVersion, Store

PARTS = os.environ.get("PARTS", "crowd rest restart waves").split()
CROWDS = [int(size) for size in os.environ.get("BENCH_CROWDS", "40 100").split()]
SERVERS = int(os.environ.get("BENCH_SERVERS", "100"))
REST = float(os.environ.get("BENCH_REST", "120"))
WAVES = int(os.environ.get("BENCH_WAVES", "30"))
TOKEN = "of-the-bench"
HEAD = {"Authorization": f"token {TOKEN}"}
BEAT = 0.02  # seconds between two questions whether the hub answers
SITE = """
version: 1
site: {name: Lab, public_url: "https://lab.example.org", subdomains: false}
directory:
  servers: ["ldaps://ldap.example.org"]
  users: {base_dn: "dc=example,dc=org"}
sizes:
  small: {cpu: 1, memory: 1G}
"""


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


class Lab:
    """World and hub in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("secrets", "data/hub"):
            (folder / name).mkdir(parents=True)
        secrets = {"cookie-secret": "0c" * 32, "crypt-key": "0d" * 32}
        secrets |= {f"{name}-token": f"the-{name}" for name in ("proxy", "console", "kernels")}
        for name, text in secrets.items():
            (folder / "secrets" / name).write_text(text)
        (folder / "site.yaml").write_text(SITE)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.env = os.environ | {
            "PYTHONPATH": f"{ROOT}:{HERE.parent}",
            "HUB_PORT": str(port),
            "HUB_TOKEN": TOKEN,
            "LABCOMMONS_HUB_URL": self.url,
            "LABCOMMONS_GATE_URL": self.url,
            "LABCOMMONS_PROXIES": "localhost",
            "LABCOMMONS_SITE_FILE": str(folder / "site.yaml"),
            "LABCOMMONS_DATA": str(folder / "data"),
            "LABCOMMONS_SECRETS": str(folder / "secrets"),
            "LABCOMMONS_DATABASE_URL": f"sqlite:///{folder / 'labcommons.sqlite'}",
        }
        self._log = (folder / "log").open("ab")
        self.hub: subprocess.Popen[bytes] | None = None
        store = Store(self.env["LABCOMMONS_DATABASE_URL"])
        store.migrate()
        store.transact(lambda session: session.add(environment()))
        store.close()
        self.world = self._run("rig/hub_world.py", str(folder))
        self.until((folder / "world.json").exists)
        self.env |= json.loads((folder / "world.json").read_text())

    def _run(self, program: str, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(HERE.parent / program), *arguments]
        return subprocess.Popen(
            command, env=self.env | more, cwd=self.folder, stdout=self._log, stderr=self._log
        )

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            gone = self.hub is not None and self.hub.poll() is not None
            if gone or time.monotonic() > deadline:
                raise TimeoutError((self.folder / "log").read_text()[-3000:])
            time.sleep(0.01)

    def up(self, **more: str) -> float:
        """Start the hub; seconds until it answers."""
        began = time.perf_counter()
        self.hub = self._run("rig/watched_hub.py", **more)
        self.until(self._listens)
        return time.perf_counter() - began

    def _listens(self) -> bool:
        port = int(self.env["HUB_PORT"])
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as found:
                found.settimeout(30)
                found.sendall(b"GET /hub/health HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return b" 200 " in found.recv(100)
        except OSError:
            return False

    def down(self) -> None:
        if self.hub is not None:
            self.hub.send_signal(signal.SIGTERM)
            self.hub.wait(30)

    def close(self) -> None:
        self.down()
        self.world.terminate()
        self.world.wait(30)


def environment() -> EnvironmentVersion:
    return EnvironmentVersion(
        name="data", version="1", image="bench/data:1", image_id=f"sha256:{'0' * 64}",
        prefix="/opt/conda/envs/data", python="3.13.5", lock_digest="sha256:0", channels=[],
        words={"title": "Data"}, main_packages=[],
        packages=[{"name": f"package-{n}", "version": "1.2.3"} for n in range(300)],
        kernelspecs={},
    )  # fmt: skip


class Client:
    """Who asks the hub."""

    def __init__(self, lab: Lab, session: aiohttp.ClientSession) -> None:
        self.lab, self.session = lab, session

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        async with self.session.request(
            method, f"{self.lab.url}/hub/{path}", json=body, headers=HEAD
        ) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]}")
            return json.loads(text) if text and path.startswith(("api", "watched")) else text

    async def start(self, name: str) -> float:
        """Seconds until it is ready."""
        began = time.perf_counter()
        path = f"api/users/{name}/server"
        await self.ask("POST", path, {"environment": "data"})
        address = f"{self.lab.url}/hub/{path}/progress"
        async with self.session.get(address, headers=HEAD) as events:
            async for line in events.content:
                if line.startswith(b"data:"):
                    event = json.loads(line[5:])
                    if event.get("ready"):
                        return time.perf_counter() - began
                    if event.get("failed"):
                        raise RuntimeError(f"{name}: {event}")
        raise RuntimeError(f"{name}: no end")

    async def stop(self, names: list[str]) -> None:
        await asyncio.gather(*(self.ask("DELETE", f"api/users/{n}/server") for n in names))
        while await self.ask("GET", "api/users?state=active"):
            await asyncio.sleep(0.1)

    async def silence(self, over: asyncio.Event) -> list[float]:
        found = []
        while not over.is_set():
            asked = time.perf_counter()
            await self.ask("GET", "health")
            found.append(time.perf_counter() - asked)
            await asyncio.sleep(BEAT)
        return found

    async def crowd(self, names: list[str]) -> dict[str, Any]:
        before, over = await self.ask("GET", "watched"), asyncio.Event()
        silence = asyncio.create_task(self.silence(over))
        ready = sorted(await asyncio.gather(*(self.start(name) for name in names)))
        over.set()
        answers = await silence
        found: dict[str, Any] = await self.ask("GET", "watched")
        return found | {
            "cpu": (found["cpu"] - before["cpu"]) / len(names),
            "silence": max(answers),
            "first": ready[0], "median": statistics.median(ready), "last": ready[-1],
        }  # fmt: skip


def people(count: int) -> list[str]:
    return [f"s{n:03}" for n in range(1, count + 1)]


async def measure(lab: Lab, lines: list[str]) -> None:
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=timeout
    ) as session:
        client = Client(lab, session)
        everybody = people(max(SERVERS, *CROWDS))
        await client.ask("POST", "api/users", {"usernames": everybody})
        await client.crowd(everybody[:5])
        await client.stop(everybody[:5])
        if "crowd" in PARTS:
            lines += [
                "",
                "| at once | longest callback: wall | its thread's CPU | callbacks over 50 ms "
                "| longest answer of health | hub's CPU a start | first | last | load |",
                "|---|---|---|---|---|---|---|---|---|",
            ]
        for size in CROWDS if "crowd" in PARTS else ():
            for _ in range(int(os.environ.get("BENCH_RUNS", "2"))):
                found = await client.crowd(everybody[:size])
                over = sum(took > 0.05 for took, _, _ in found["slow"])
                lines.append(
                    f"| {size} | {found['longest'] * 1000:.0f} ms "
                    f"| {found['longest_cpu'] * 1000:.0f} ms | {over} "
                    f"| {found['silence'] * 1000:.0f} ms | {found['cpu'] * 1000:.0f} ms "
                    f"| {found['first']:.1f} s | {found['last']:.1f} s | {load()} |"
                )
                print(lines[-1], flush=True)
                await asyncio.sleep(1)
                await client.stop(everybody[:size])
                stops = await client.ask("GET", "watched")
                print(f"stops: {stops['longest'] * 1000:.0f} ms", flush=True)
                if path := os.environ.get("BENCH_JSON"):
                    Path(f"{path}.{size}").write_text(json.dumps([found, stops], indent=1))
        if "waves" in PARTS:
            await waves(client, everybody[:20], lines)
        if "rest" in PARTS or "restart" in PARTS:
            await client.crowd(everybody[:SERVERS])
            await asyncio.sleep(10)
        if "rest" in PARTS:
            await asyncio.to_thread(lab.down)
            await asyncio.to_thread(lab.up, WATCH_LOOP=os.environ.get("BENCH_WATCH", "0"))
            await asyncio.sleep(10)
            before = await client.ask("GET", "watched")
            began = time.perf_counter()
            await asyncio.sleep(REST)
            after = await client.ask("GET", "watched")
            share = (after["cpu"] - before["cpu"]) / (time.perf_counter() - began)
            lines += ["", f"At rest with {SERVERS} servers: {share:.2%} of a core "
                      f"({REST:.0f} s, load {load()})."]  # fmt: skip
            print(lines[-1], flush=True)
            if path := os.environ.get("BENCH_JSON"):
                Path(f"{path}.rest").write_text(json.dumps(after, indent=1))
        if "restart" in PARTS:
            await restarts(lab, client, lines)


async def waves(client: Client, names: list[str], lines: list[str]) -> None:
    lines += ["", "| starts and stops | MB | open files |", "|---|---|---|"]
    for number in range(WAVES + 1):
        found = await client.ask("GET", "watched?collect=1&objects=1")
        if number % max(1, WAVES // 10) == 0:
            lines.append(f"| {number * len(names)} | {found['MB']:.1f} | {found['files']} |")
            print(lines[-1], flush=True)
            if path := os.environ.get("BENCH_JSON"):
                Path(f"{path}.wave{number}").write_text(json.dumps(found, indent=1))
        if number < WAVES:
            await client.crowd(names)
            await client.stop(names)


async def restarts(lab: Lab, client: Client, lines: list[str]) -> None:
    times = []
    for _ in range(3):
        await asyncio.to_thread(lab.down)
        health = await asyncio.to_thread(lab.up, WATCH_LOOP="0")
        began = time.perf_counter()
        await client.ask("GET", "login")
        page = health + time.perf_counter() - began
        running = len(await client.ask("GET", "api/users?state=active"))
        times.append((health, page))
        print(f"restart: {health:.2f} s, page {page:.2f} s, {running} servers", flush=True)
        await asyncio.sleep(3)
    health, pages = zip(*times, strict=True)
    lines += [
        "",
        f"Restart with {SERVERS} servers, {len(times)} times: {seconds(health)} to /hub/health, "
        f"{seconds(pages)} to a page (load {load()}).",
    ]


def seconds(found: tuple[float, ...]) -> str:
    return ", ".join(f"{one:.2f}" for one in found) + " s"


def main() -> None:
    lines = [
        "# The hub alone",
        "",
        f"The hub's process with agent, proxy and servers in memory; {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}; the driver and the "
        "other processes share the machine.",
    ]
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            lab.up()
            asyncio.run(measure(lab, lines))
        except BaseException:
            print((Path(folder) / "log").read_text()[-5000:])
            raise
        finally:
            lab.close()
    (HERE / "results" / "hub_alone.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
