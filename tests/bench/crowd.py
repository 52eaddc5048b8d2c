"""A class that clicks at once: when each server is ready, its cost, and the hub's silence.

Ours (the whole deployment, ``make up``, over HTTPS) beside a stock JupyterHub with DockerSpawner
and a plain image whose own limits are lifted: in one run, in turn, on one Engine. Every student
is a person of the directory who logged in before. Run by ``make bench``; writes
tests/bench/results/crowd.md. BENCH_CROWDS: sizes, such as
"20 40"; BENCH_JSON: a file for the figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from deployment import ROOT, Deployment, copy_checkout
from spawn import Peer, machine

SIZES = [int(size) for size in os.environ.get("BENCH_CROWDS", "20 40").split()]
ENVIRONMENT = "py313-data"
LIMIT = 300  # seconds until a start counts as failed
BEAT = 0.02  # seconds between two questions whether the hub answers


@dataclass(frozen=True)
class Crowd:
    """Seconds, but for ``failed`` (servers) and ``asked``."""

    asked: int
    failed: int
    first: float
    median: float
    last: float
    silence: float
    cpu_a_start: float
    stopped: float


class Here(AbstractResolver):
    """Every host is this machine."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family or 2, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Nothing is held."""


def busy() -> float:
    """CPU seconds of the whole machine until now, without this process's own."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq, *_ = map(int, fields)
    own = resource.getrusage(resource.RUSAGE_SELF)
    jiffies = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return jiffies - own.ru_utime - own.ru_stime


async def ready(session: aiohttp.ClientSession, path: str, token: str, options: object) -> bool:
    """Ask for a server and follow its progress, as the page does, until it is ready."""
    headers = {"Authorization": f"token {token}"}
    async with session.post(path, json=options, headers=headers) as answer:
        if answer.status not in (201, 202):
            print(answer.status, await answer.text(), file=sys.stderr)
            return False
    last = b"nothing"
    async with session.get(f"{path}/progress", headers=headers) as events:
        async for line in events.content:
            last = line.strip() or last
            if line.startswith(b"data:"):
                event = json.loads(line[5:])
                if event.get("ready"):
                    return True
                if event.get("failed"):
                    print(path, event.get("message"), file=sys.stderr)
                    return False
    print(f"{path}: its progress ended ({events.status}) with {last!r}", file=sys.stderr)
    return False


async def longest_silence(session: aiohttp.ClientSession, path: str, over: asyncio.Event) -> float:
    longest = 0.0
    while not over.is_set():
        asked = time.perf_counter()
        async with session.get(path) as answer:
            await answer.read()
        longest = max(longest, time.perf_counter() - asked)
        await asyncio.sleep(BEAT)
    return longest


async def crowd(
    base: str,
    people: list[tuple[str, str]],
    admin: str,
    options: object,
    connector: Callable[[], aiohttp.TCPConnector],
) -> Crowd:
    """``people``: (name, token). ``base``: the hub's address, with ``/hub/``."""
    timeout = aiohttp.ClientTimeout(total=LIMIT)
    async with aiohttp.ClientSession(base, connector=connector(), timeout=timeout) as session:
        over = asyncio.Event()
        silence = asyncio.create_task(longest_silence(session, "health", over))

        async def one(name: str, token: str) -> float | None:
            clicked = time.perf_counter()
            with suppress(TimeoutError, aiohttp.ClientError):
                if await ready(session, f"api/users/{name}/server", token, options):
                    return time.perf_counter() - clicked
            return None

        before = busy()
        ends = await asyncio.gather(*(one(*person) for person in people))
        spent = busy() - before
        over.set()
        headers = {"Authorization": f"token {admin}"}
        stopping = time.perf_counter()

        async def stop(name: str) -> None:
            async with session.delete(f"api/users/{name}/server", headers=headers) as answer:
                await answer.read()

        await asyncio.gather(*(stop(name) for name, _ in people))
        while time.perf_counter() - stopping < LIMIT:
            async with session.get("api/users?state=active", headers=headers) as answer:
                if not await answer.json():
                    break
            await asyncio.sleep(0.2)
        stopped = time.perf_counter() - stopping
    times = sorted(end for end in ends if end is not None)
    return Crowd(
        asked=len(people),
        failed=len(people) - len(times),
        first=times[0],
        median=statistics.median(times),
        last=times[-1],
        silence=await silence,
        cpu_a_start=spent / len(times),
        stopped=stopped,
    )


def main() -> None:
    root = ROOT / ".cache" / "e2e"
    copy_checkout(root)
    site = Deployment(root)
    site.up()
    admin = site.login_once("carol")
    site.stop_all_servers(admin)
    students = [f"s{n:02}" for n in range(1, max(SIZES) + 1)]  # the demo's directory has forty
    people = [(name, site.login_once(name)) for name in students]
    context = ssl.create_default_context(cafile=str(site.ca_file))
    results: dict[str, list[Crowd]] = {"LabCommons": [], "DockerSpawner, plain image": []}

    def secure() -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=0, ssl=context, resolver=Here())

    def plain() -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=0)

    options = {"environment": ENVIRONMENT}
    with Peer() as peer:
        for name, _ in people:
            peer.api("POST", f"users/{name}", None)
        theirs = [(name, peer.token) for name, _ in people]
        base = peer.base.removesuffix("api/")
        for size in (2, *SIZES):  # two warm up
            found = asyncio.run(crowd(f"{site.url}/hub/", people[:size], admin, options, secure))
            other = asyncio.run(crowd(base, theirs[:size], peer.token, {}, plain))
            print(found, other, sep="\n", flush=True)
            if size > 2:
                results["LabCommons"].append(found)
                results["DockerSpawner, plain image"].append(other)
    site.down()
    if path := os.environ.get("BENCH_JSON"):
        data = {name: [asdict(one) for one in rows] for name, rows in results.items()}
        Path(path).write_text(json.dumps(data, indent=1), "utf-8")
    (HERE / "results" / "crowd.md").write_text(report(results), "utf-8")


HEAD = """# A class that clicks at once

Seconds from the click until the progress page says *ready*, for students who logged in before
and ask for a server without GPU at the same moment; the longest time in which `/hub/health` did
not answer meanwhile; CPU of the whole machine for each start, without the measuring program; and
seconds until all servers are gone when all are stopped at once. Ours goes through HTTPS; the peer
is a stock JupyterHub 6.1.1 with DockerSpawner 14, its limits of starts at once lifted, and an
image of `pip install jupyterhub jupyterlab`.

{machine}.

| | servers | failed | first | median | last | silence | CPU a start | all stopped |
|---|---|---|---|---|---|---|---|---|
"""


def report(results: dict[str, list[Crowd]]) -> str:
    return HEAD.format(machine=machine()) + "".join(
        f"| {name} | {one.asked} | {one.failed} | {one.first:.1f} | {one.median:.1f} "
        f"| {one.last:.1f} | {one.silence:.2f} | {one.cpu_a_start:.2f} | {one.stopped:.1f} |\n"
        for name, found in results.items()
        for one in found
    )


if __name__ == "__main__":
    main()
