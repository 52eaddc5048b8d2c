"""Starts and stops for a quarter of an hour: nothing may grow, and nothing may be left.

Waves of students start servers, some with a GPU, and stop them; between waves the hub, the agent,
the console and the proxy are looked at from outside (memory and file handles), and everything that
a server has is counted (containers, routes, networks, leases, tokens, folders). Run by
``make soak`` (SOAK_MINUTES=15, SOAK_SERVERS=8); exit 1 where something grew or was left. Writes
tests/bench/results/soak.md.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import time
from pathlib import Path

import aiohttp

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from crowd import LIMIT, Here, ready
from deployment import ROOT, Deployment, copy_checkout, wait_for
from spawn import machine

MINUTES = float(os.environ.get("SOAK_MINUTES", "15"))
SERVERS = int(os.environ.get("SOAK_SERVERS", "8"))
SERVICES = ("hub", "agent", "console", "chp", "gate")
# A first part fills caches and pools; from then on the most of each half is compared (a garbage
# collector's saw is no growth).
WARM_UP = 0.4
# What the later half may have more than the one before.
GROWTH = {"MB": 8.0, "files": 8}

Counts = dict[str, float]


def processes(container: str, site: Deployment) -> list[int]:
    """The processes of a container, by the numbers that they have on this machine."""
    lines = site.docker("top", container, "-eo", "pid").split()[1:]
    return [int(line) for line in lines]


def sizes(site: Deployment) -> Counts:
    """Megabytes of its own and open files of each service."""
    found: Counts = {}
    for service in SERVICES:
        memory, files = 0.0, 0
        for pid in processes(site.container(service), site):
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                files += len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:  # a health check that has just ended
                continue
            memory += sum(
                int(line.split()[1])
                for line in rollup.splitlines()
                if line.startswith(("Private_Clean", "Private_Dirty"))
            )
        found |= {f"{service} MB": round(memory / 1024, 1), f"{service} files": files}
    return found


def left(site: Deployment, admin: str) -> Counts:
    """What servers leave, where they leave something; 0, or what there is without servers."""
    data = site.root / "data"
    routes = site.api("GET", "proxy", admin)[1]
    leases = site.labcommons("gpu", "leases")
    tokens = sum(
        one["note"].startswith("Server at ")
        for user in students()
        for one in site.api("GET", f"users/{user}/tokens", admin)[1]["api_tokens"]
    )
    return {
        "containers": len(site.docker("ps", "-aq", "--filter", "label=labcommons.user").split()),
        "all containers": len(site.docker("ps", "-aq").split()),
        "routes": sum(route.startswith("/user/") or ".lab." in route for route in routes),
        "networks": len(site.docker("network", "ls", "-q").split()),
        "volumes": len(site.docker("volume", "ls", "-q").split()),
        "leases": len(leases),
        "tokens": tokens,
        "homes": len(list((data / "homes").iterdir())),
        "folders of the agent": sum(1 for _ in (data / "agent").rglob("*")),
        "folders of builds": sum(1 for _ in (data / "builds").iterdir()),
    }


def students() -> list[str]:
    return [f"s{n:02}" for n in range(1, SERVERS + 1)]


async def wave(site: Deployment, people: list[tuple[str, str]], context: ssl.SSLContext) -> int:
    """All start, and all stop; how many came up."""
    connector = aiohttp.TCPConnector(limit=0, ssl=context, resolver=Here())
    timeout = aiohttp.ClientTimeout(total=LIMIT)
    async with aiohttp.ClientSession(
        f"{site.url}/hub/", connector=connector, timeout=timeout
    ) as session:

        async def start(number: int, name: str, token: str) -> bool:
            options = {"environment": "py313-data", "gpus": int(number < 2)}
            return await ready(session, f"api/users/{name}/server", token, options)

        up = await asyncio.gather(*(start(number, *person) for number, person in enumerate(people)))

        async def stop(name: str, token: str) -> None:
            headers = {"Authorization": f"token {token}"}
            async with session.delete(f"api/users/{name}/server", headers=headers) as answer:
                await answer.read()

        await asyncio.gather(*(stop(*person) for person in people))
    return sum(up)


def grown(samples: list[Counts]) -> list[str]:
    """What has grown from the first half after the warm-up to the second."""
    later = samples[int(len(samples) * WARM_UP) :]
    half = len(later) // 2
    found = []
    for key in samples[0]:
        before = max(one[key] for one in later[:half])
        after = max(one[key] for one in later[half:])
        if after - before > GROWTH[key.rsplit(" ", 1)[1]]:
            found.append(f"{key}: {before:g}, later {after:g}")
    return found


def main() -> int:
    root = ROOT / ".cache" / "e2e"
    copy_checkout(root)
    site = Deployment(root)
    site.up()
    site.without_limits()
    admin = site.login_once("carol")
    site.stop_all_servers(admin)
    people = [(name, site.login_once(name)) for name in students()]
    context = ssl.create_default_context(cafile=str(site.ca_file))
    asyncio.run(wave(site, people, context))  # homes are made
    site.stop_all_servers(admin)
    wait_for(lambda: not left(site, admin)["containers"], "no servers before it begins")
    before, samples, started, failed = left(site, admin), [sizes(site)], 0, 0
    end = time.monotonic() + MINUTES * 60
    while time.monotonic() < end:
        up = asyncio.run(wave(site, people, context))
        started, failed = started + up, failed + len(people) - up
        site.stop_all_servers(admin)
        samples.append(sizes(site))
        print(f"{started} started, {failed} failed, {samples[-1]}", flush=True)
    after = before
    for _attempt in range(30):  # what is on its way out goes
        after = left(site, admin)
        if after == before:
            break
        time.sleep(1)
    more = [f"{key}: {before[key]:g}, later {after[key]:g}" for key in before
            if after[key] > before[key]]  # fmt: skip
    wrong = grown(samples) + more + ([f"{failed} starts failed"] if failed else [])
    site.down()
    report = HEAD.format(machine=machine(), minutes=MINUTES, started=started, servers=SERVERS)
    middle = samples[len(samples) // 2]
    for key in samples[0]:
        report += f"| {key} | {samples[0][key]:g} | {middle[key]:g} | {samples[-1][key]:g} |\n"
    for key, value in before.items():
        report += f"| {key} | {value:g} | | {after[key]:g} |\n"
    report += "\n" + ("\n".join(f"- {one}" for one in wrong) or "Nothing grew, nothing was left.")
    (HERE / "results" / "soak.md").write_text(report + "\n", "utf-8")
    print(report)
    return 1 if wrong else 0


HEAD = """# Starts and stops, again and again

{minutes:g} minutes, {started} servers in waves of {servers}, some with a GPU; between waves each
service's own memory (private pages) and open files. Below, what there is without any server.

{machine}.

| | at first | in the middle | at the end |
|---|---|---|---|
"""

if __name__ == "__main__":
    sys.exit(main())
