"""The console's pages at a large site: how long each takes, and how heavy a first visit is.

A store with GPUS GPUs, PEOPLE people, LEASES leases that are over, WAITING that wait and SERVERS
servers that run; the console in a process of its own, over HTTP, before a hub that knows tokens.
Every page of the application is asked for: what has a part in its address is in ``PARTS``. What is
told beside the time on the clock is the console's own of the processor: others may work here, too.

Run by ``make bench``; writes tests/bench/results/console.md.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import multiprocessing
import os
import platform
import re
import socket
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[0] = str(HERE.parent)
sys.path.insert(0, str(ROOT))

from jupyterhub.services.auth import HubOAuth
from sqlalchemy import insert
from sqlalchemy.orm import Session
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from commons.leases import LeaseState
from commons.site import Site
from commons.store import DirectoryPerson, DiskUse, Store
from commons.store.models import GpuUsage, GpuWatch, Lease, LeaseDevice, utcnow
from hub_ext.console.app import PREFIX, make_app
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import usage
from spawner.gpu.ledger.snapshot import periods, read_snapshot
from spawner.gpu.policy.placement import Device

GPUS, PEOPLE, LEASES = 200, 2000, int(os.environ.get("BENCH_LEASES", "100000"))
WAITING, SERVERS, TEAMS = 500, 400, 40
TIMES = int(os.environ.get("BENCH_TIMES", "15"))
WANTED, WEIGHT = 150.0, 250_000  # milliseconds; bytes on the wire
ACCESS = "access:services!service=labcommons"
WHO: dict[str, dict[str, Any]] = {
    "admin": {"name": "p0000", "admin": True, "scopes": [ACCESS, "admin-ui"], "groups": []},
    "lead": {"name": "p0001", "scopes": [ACCESS], "groups": ["team:t1", "team:t1:leads"]},
    "person": {"name": "p0041", "scopes": [ACCESS], "groups": ["team:t1"]},
}
# Of addresses with a part: what is asked for.
PARTS = {
    "people/([^/]{1,255})": "people/p0041",
    "help(?:/([a-z]+))?": "help/admin",
    "courses/([a-z0-9._-]{1,64})": None,
    "jobs/([0-9_]{1,30})": None,
}
SITE = {
    "version": 1,
    "directory": {
        "servers": ["ldaps://l"],
        "users": {"base_dn": "dc=example,dc=org"},
        "teams": {f"t{n}": {"members": [f"t{n}"]} for n in range(TEAMS)},
    },
    "sizes": {"small": {"cpu": 1, "memory": "1G", "default": True}},
    "ssh": {},
}


def name(n: int) -> str:
    return f"p{n % PEOPLE:04}"


def account(n: int) -> str:
    return f"group:t{n % PEOPLE % TEAMS}"


def seed(session: Session) -> None:
    """Rows as a site of a year has them; what holds GPUs fits the devices."""
    now = utcnow()
    sync_inventory(session, [Device(f"GPU-{n:03}", "A100", 80 * 2**30) for n in range(GPUS)])
    people, homes = [], []
    for n in range(PEOPLE):
        position = "lead" if n < TEAMS else "member"
        roles = {"admin": n == 0, "teams": {f"t{n % TEAMS}": position}, "courses": {}}
        people.append(
            {"name": name(n), "confirmed": time.time(), "roles": roles, "dismissed": False}
        )
        homes.append(
            {"area": "homes", "name": name(n), "bytes": n * 10**7, "largest": [], "whole": True}
        )
    session.execute(insert(DirectoryPerson), people)
    session.execute(insert(DiskUse), homes)
    rows, used, held, watched = [], [], [], []
    for n in range(LEASES + GPUS + WAITING):
        over, holds = n < LEASES, n < LEASES + GPUS
        began = now - timedelta(minutes=5 * (LEASES - n)) if over else now - timedelta(hours=1)
        rows.append(
            {
                "id": f"{n:032}", "username": name(n), "server_name": "" if over else f"s{n}",
                "account": account(n), "gpus": 1, "time_limit": 8 * 3600, "gpu_type": "A100",
                "state": LeaseState.ENDED if over else LeaseState.ACTIVE if holds
                else LeaseState.QUEUED, "requested_at": began,
                "held_at": began if holds else None, "active_at": began if holds else None,
                "ends_at": began + timedelta(hours=8) if holds else None,
                "ended_at": began + timedelta(hours=1) if over else None,
                "ended_reason": "stopped" if over else None, "user_options": {}, "weight": 1.0,
                "verdict": None if holds else {"position": n - LEASES, "reasons": []},
            }
        )  # fmt: skip
        device = n % GPUS
        if holds:
            used.append(
                {
                    "lease_id": f"{n:032}", "username": name(n), "account": account(n),
                    "weight": 1.0, "started_at": began, "charged_to": began + timedelta(hours=1),
                    "gpu_seconds": 3600.0, "closed": over,
                }
            )  # fmt: skip
            held.append(
                {
                    "lease_id": f"{n:032}", "device_id": f"GPU-{device:03}", "slot": 0,
                    "released_at": began if over else None,
                }
            )  # fmt: skip
        if holds and not over:
            watched.append(
                {"lease_id": f"{n:032}", "at": now, "use": "active", "gpu_percent": 50.0}
            )
    for table, found in ((Lease, rows), (GpuUsage, used), (LeaseDevice, held), (GpuWatch, watched)):
        for start in range(0, len(found), 5000):
            session.execute(insert(table), found[start : start + 5000])
    # As the first pass of a site does.
    settings = read_snapshot(session, time.time()).settings
    usage.keep_periods(session, time.time(), periods({}, settings))


def running() -> dict[str, Any]:
    """What the hub says that runs."""
    return {
        "servers": [
            {
                "user": name(n), "server": f"s{n}", "state": "running", "size": "small",
                "environment": "py313-data:1", "gpus": int(n < LEASES + GPUS),
                "account": account(n), "started": "2026-11-29T07:00:00Z",
                "active": "2026-11-29T08:00:00Z", "memory": 5 * 10**8, "memory_limit": 10**9,
                "cpu": 0.5, "cpu_limit": 1.0,
            }
            for n in range(LEASES, LEASES + SERVERS)
        ],
        "seen": {name(n): "2026-11-28T10:00:00Z" for n in range(PEOPLE)},
    }  # fmt: skip


class _Hub(RequestHandler):
    """Who somebody is, and what runs."""

    def get(self, path: str) -> None:
        token = self.request.headers["Authorization"].removeprefix("token ")
        if path == "user" and token in WHO:
            self.finish({"kind": "user", "admin": False} | WHO[token])
        elif path == "live" and not self.get_query_argument("person", ""):
            self.finish(self.settings["running"])
        else:
            self.set_status(404)


def pages(app: Application) -> list[str]:
    """Addresses of pages below the console's; a part of an address is put in."""
    found = []
    for rule in app.wildcard_router.rules:
        matcher = getattr(rule.matcher, "regex", None)
        kinds = str(getattr(rule.target, "__mro__", ""))
        if matcher is None or ".Page'" not in kinds:
            continue
        pattern = matcher.pattern.removesuffix("$").removeprefix(re.escape(PREFIX))
        address = PARTS.get(pattern, pattern if re.fullmatch(r"[a-z/]*", pattern) else None)
        if address is not None and address != "oauth_callback":
            found.append(address)
    return found


def serve(folder: str, port: int, hub_port: int, ready: Any) -> None:
    """The console, in a process of its own."""

    async def run() -> None:
        store = Store(f"sqlite:///{folder}/labcommons.sqlite")
        auth = HubOAuth(
            api_token="of-the-console",
            api_url=f"http://127.0.0.1:{hub_port}/hub/api",
            base_url=PREFIX,
            oauth_client_id="service-labcommons",
            access_scopes={ACCESS},
        )
        app = make_app(Site.model_validate(SITE), store, auth, Path(folder))
        HTTPServer(app).listen(port, "127.0.0.1")
        ready.put(pages(app))
        await asyncio.Event().wait()

    asyncio.run(run())


def hub(port: int) -> None:
    async def run() -> None:
        HTTPServer(Application([("/hub/api/(.*)", _Hub)], running=running())).listen(
            port, "127.0.0.1"
        )
        await asyncio.Event().wait()

    asyncio.run(run())


def ask(port: int, path: str, who: str) -> tuple[int, bytes, float]:
    """Status, body, milliseconds."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"token {who}"}
    )
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
            return answer.status, body, 1000 * (time.perf_counter() - began)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), 1000 * (time.perf_counter() - began)


def weight(port: int, body: bytes, who: str, kept: dict[str, int]) -> int:
    """Bytes of a first visit, as nginx sends them: the page and what it loads, compressed."""
    total = len(gzip.compress(body, 5))
    for link in set(re.findall(rb'(?:href|src)="([^"]+\.(?:css|js|svg)[^"]*)"', body)):
        path = link.decode()
        if path not in kept:
            if "/hub/static/" in path or path.startswith("/static"):
                from jupyterhub._data import DATA_FILES_PATH

                file = Path(DATA_FILES_PATH, "static", path.split("static/", 1)[1].split("?")[0])
                data = file.read_bytes()
            else:
                data = ask(port, path, who)[1]
            kept[path] = len(gzip.compress(data, 5))
        total += kept[path]
    return total


def spent(pid: int) -> float:
    """Milliseconds of the processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def measure() -> list[tuple[str, str, float, float, float, int, int]]:
    """Who, page, p50, p95, processor (ms), bytes of the page, bytes of a first visit."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/labcommons.sqlite")
        store.migrate()
        store.transact(seed)
        store.close()
        port, hub_port = free_port(), free_port()
        context = multiprocessing.get_context("spawn")
        ready = context.Queue()
        console = context.Process(target=serve, args=(folder, port, hub_port, ready), daemon=True)
        helpers = [context.Process(target=hub, args=(hub_port,), daemon=True), console]
        for one in helpers:
            one.start()
        addresses = ready.get(timeout=60)
        time.sleep(1)  # the hub listens by then
        kept: dict[str, int] = {}
        for address in addresses:
            for who in WHO:
                status, body, _ = ask(port, PREFIX + address, who)
                if status != 200:
                    continue
                before = spent(console.pid or 0)
                times = sorted(ask(port, PREFIX + address, who)[2] for _ in range(TIMES))
                cpu = (spent(console.pid or 0) - before) / TIMES
                row = (
                    who, address or "/", statistics.median(times), times[int(0.95 * len(times))],
                    cpu, len(body), weight(port, body, who, kept),
                )  # fmt: skip
                found.append(row)
                print(f"{who:<7} {row[1]:<24} {row[2]:7.1f} {row[3]:7.1f} {cpu:7.1f}", flush=True)
        for one in helpers:
            one.terminate()
    return found


def main() -> int:
    rows = measure()
    lines = [
        f"| {path} | {who} | {p50:.0f} | {p95:.0f} | {cpu:.0f} "
        f"| {size / 1000:.0f} | {whole / 1000:.0f} |"
        for who, path, p50, p95, cpu, size, whole in rows
    ]
    slow = [f"{who} {path}" for who, path, _, _, cpu, *_ in rows if cpu > WANTED]
    heavy = [f"{who} {path}" for who, path, *_, whole in rows if whole > WEIGHT]
    head = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"SQLite; {GPUS} GPUs, {PEOPLE} people, {LEASES} leases that are over, {WAITING} requests "
        f"that wait, {SERVERS} servers that run. Each page {TIMES} times, one after the other; "
        f"load of the machine, with what else it did: {os.getloadavg()[0]:.1f}."
    )
    (HERE / "results" / "console.md").write_text(
        f"""# The console's pages at a large site

{head}

| page | who | p50 ms | p95 ms | processor, ms | page, kB | first visit, compressed, kB |
|---|---|---|---|---|---|---|
"""
        + "\n".join(lines)
        + f"""

Wanted: {WANTED:.0f} ms (of the processor), {WEIGHT // 1000} kB.
Over it: {", ".join(slow + heavy) or "none"}.
""",
        encoding="utf-8",
    )
    print(json.dumps({"slow": slow, "heavy": heavy}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
