"""The service of kernels with many environments and many listeners. ``make bench`` runs it.

The real command in a process of its own, real folders, SQLite, 200 open streams. There is no
peer with such a service: nb_conda_kernels and conda-store ask anew for every list.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent)]

import psutil
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from commons.store import EnvironmentVersion, Store

LISTENERS = int(os.environ.get("BENCH_LISTENERS", "200"))
SHARED, TEAMS, OF_TEAM, IMAGE = 2500, 20, 100, 500
IDLE = float(os.environ.get("BENCH_IDLE", "120"))  # seconds
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "20"))
PREFIX = "/services/kernels/"
RESULTS = Path(__file__).parent / "results" / "kernels_service.md"
KERNEL = {
    "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
    "metadata": {"debugger": True},
}


def make_environment(folder: Path) -> None:
    """A prefix as far as a registry looks at it."""
    (folder / "conda-meta").mkdir(parents=True)
    (folder / "share/jupyter/kernels/python3").mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(sys.executable)
    (folder / "share/jupyter/kernels/python3/kernel.json").write_text(json.dumps(KERNEL))
    (folder / "conda-meta/python-3.13.5-h0_0.json").touch()
    (folder / "conda-meta/history").touch()


def fill(folders: Path, store: Store) -> int:
    """All environments. Returns how many."""
    for number in range(SHARED):
        make_environment(folders / f"shared/envs/env-{number:04}")
    for team in range(TEAMS):
        for number in range(OF_TEAM):
            make_environment(folders / f"teams/team{team:02}/envs/env-{number:03}")
    store.transact(
        lambda session: session.add_all(
            EnvironmentVersion(
                name=f"env-{number:03}",
                version="1",
                image="x",
                image_id="sha256:0",
                prefix=f"/opt/conda/envs/env-{number:03}",
                python="3.13.5",
                lock_digest="",
                channels=[],
                words={},
                main_packages=[],
                packages=[],
                kernelspecs={"python3": KERNEL},
            )
            for number in range(IMAGE)
        )
    )
    return SHARED + TEAMS * OF_TEAM + IMAGE


class _User(RequestHandler):
    """A hub that knows every token as an administrator of that name."""

    def get(self) -> None:
        name = self.request.headers.get("Authorization", "").partition(" ")[2]
        scopes = ["access:services!service=kernels"]
        self.write({"kind": "user", "name": name, "admin": True, "groups": [], "scopes": scopes})


@asynccontextmanager
async def listening(port: int, number: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open streams, of ten people each."""
    readers, writers = [], []
    for index in range(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        token = f"person{index // 10}"
        writer.write(
            f"GET {PREFIX}api/v1/events HTTP/1.0\r\nAuthorization: token {token}\r\n\r\n".encode()
        )
        await asyncio.wait_for(reader.readuntil(b"event: hello"), 30)
        readers.append(reader)
        writers.append(writer)
    yield readers
    for writer in writers:
        writer.close()


async def heard(reader: asyncio.StreamReader, name: str) -> float:
    """When a stream told of an environment."""
    await asyncio.wait_for(reader.readuntil(f'"environment": "{name}"'.encode()), 30)
    return time.perf_counter()


async def healthy(port: int, process: subprocess.Popen[bytes]) -> None:
    def ask() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}{PREFIX}health", timeout=10) as answer:
                return bool(json.load(answer)["status"] == "ok")
        except OSError:
            return False

    while not await asyncio.to_thread(ask):
        assert process.poll() is None, "the service ended"
        await asyncio.sleep(0.05)


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    folders, registry = folder / "scopes", folder / "kernels"
    store = Store(f"sqlite:///{folder / 'labcommons.sqlite'}")
    store.migrate()
    found["environments"] = fill(folders, store)
    hub = HTTPServer(Application([("/hub/api/user", _User)]))
    listener, hub_port = bind_unused_port()
    hub.add_socket(listener)
    unused, port = bind_unused_port()
    unused.close()
    site = folder / "site.yaml"
    site.write_text(
        "version: 1\n"
        "directory: {servers: [ldaps://x.example.org], users: {base_dn: dc=x}}\n"
        "sizes: {small: {cpu: 1, memory: 1G}}\n"
    )
    environment = os.environ | {
        "PYTHONPATH": str(TESTS.parent),
        "LABCOMMONS_SITE_FILE": str(site),
        "LABCOMMONS_DATABASE_URL": store.url,
        "JUPYTERHUB_API_TOKEN": "service",
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub_port}/hub/api",
    }
    command = [sys.executable, "-m", "hub_ext.cli", "kernels", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--folders", str(folders), "--registry", str(registry)]
    for name in ("first", "again"):
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        await healthy(port, process)
        found[name] = time.perf_counter() - begin
        if name == "first":
            process.send_signal(signal.SIGKILL)
            process.wait()
    watched = psutil.Process(process.pid)
    try:
        async with listening(port, LISTENERS) as readers:
            found["latency"] = await completed(folders, registry, readers)
            # The eager minute after a change is not idle.
            await asyncio.sleep(65)
            begin, used = time.perf_counter(), cpu(watched)
            await asyncio.sleep(IDLE)
            found["idle"] = 100 * (cpu(watched) - used) / (time.perf_counter() - begin)
            found["memory"] = watched.memory_info().rss / 2**20
            found["lists"] = [await asyncio.to_thread(ask, port, p) for p in ("", "api/v1/kernels")]
    finally:
        process.terminate()
        process.wait()
        hub.stop()
        store.close()
    return found


def ask(port: int, path: str) -> float:
    """Seconds for the page or a list, the median of five."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        request = Request(
            f"http://127.0.0.1:{port}{PREFIX}{path}", headers={"Authorization": "token admin"}
        )
        with urlopen(request, timeout=30) as answer:
            answer.read()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


async def completed(
    folders: Path, registry: Path, readers: list[asyncio.StreamReader]
) -> list[tuple[float, float]]:
    """Seconds from an environment's completion to its kernel.json, and to the last listener."""
    latencies = []
    for number in range(ROUNDS):
        name = f"new-{number:03}"
        version = folders / f"shared/envs/.versions/{name}/1"
        make_environment(version)
        fresh = folders / f"shared/envs/.new-{name}"
        fresh.symlink_to(f".versions/{name}/1")
        file = registry / f"shared/kernels/conda-shared-{name}-python3/kernel.json"
        begin = time.perf_counter()
        os.rename(fresh, folders / f"shared/envs/{name}")
        hearing = asyncio.gather(*(heard(reader, name) for reader in readers))
        while not file.exists():
            await asyncio.sleep(0.005)
            assert time.perf_counter() - begin < 30, "not registered"
        written = time.perf_counter() - begin
        latencies.append((written, max(await hearing) - begin))
        await asyncio.sleep(1.5)
    return latencies


def machine(load: float) -> str:
    model = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return (
        f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}, "
        f"load {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    )


def main() -> None:
    load = os.getloadavg()[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    folder = Path(tempfile.mkdtemp(prefix="lcbench"))
    try:
        found = asyncio.run(measure(folder))
    finally:
        shutil.rmtree(folder)
    written, told = zip(*found["latency"], strict=True)
    page, listing = found["lists"]
    completed_row = "shared environment completed -> its kernel.json where servers have it mounted"
    rows = {
        f"CPU while idle, over {IDLE:g} s": f"{found['idle']:.2f} % of one core",
        "memory (RSS)": f"{found['memory']:.0f} MB",
        f"{completed_row}, median of {ROUNDS}": f"{statistics.median(written):.2f} s",
        "the same, longest": f"{max(written):.2f} s",
        f"told to the last of {LISTENERS} listeners, median": f"{statistics.median(told):.2f} s",
        "the same, longest ": f"{max(told):.2f} s",
        "process start -> everything written for the first time": f"{found['first']:.1f} s",
        "killed and started again -> everything compared": f"{found['again']:.1f} s",
        "the page for an administrator": f"{page * 1000:.0f} ms",
        "REST list of all kernels": f"{listing * 1000:.0f} ms",
    }
    table = "\n".join(f"| {name.strip()} | {figure} |" for name, figure in rows.items())
    RESULTS.write_text(
        f"""# The service of kernels

{found["environments"]} environments ({SHARED} shared, {TEAMS * OF_TEAM} of {TEAMS} teams,
{IMAGE} in images), {LISTENERS} open event streams, SQLite; the command `labcommons kernels` in a
process of its own. Measured by `make bench` ({datetime.now(UTC):%Y-%m-%d}): {machine(load)}.

| | |
|---|---|
{table}

A completed environment has {SHARED} others in its folder. Idle begins a minute after the last
change; the service looks at all folders every 30 s and reads all its files every 5 minutes.
""",
        "utf-8",
    )
    print(RESULTS.read_text("utf-8"))


if __name__ == "__main__":
    main()
