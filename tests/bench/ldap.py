"""How many people can log in at once, and how long the hub stands still meanwhile.

Ours beside jupyterhub-ldapauthenticator in one run, each in a process of its own, against one
real slapd under StartTLS: a search for the person, the bind, and their three groups. Run by
``make bench`` (the extra ``bench`` installs the peer); writes tests/bench/results/ldap.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import re
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from rig.delay import Delay
from rig.slapd import GROUPS, PEOPLE, SERVICE_DN, SERVICE_PASSWORD, Slapd, group, person
from rig.tarpit import Tarpit, silent

PEOPLE_AT_ONCE = 200
TEAMS = ("bench-a", "bench-b", "bench-c")
ROUND_TRIP = 0.010  # seconds
ROUNDS = int(os.environ.get("BENCH_RUNS", "3"))
PEER = "jupyterhub-ldapauthenticator"
DEADLINE = 3.0  # seconds, of the run with a silent server
RESULTS = Path(__file__).parent / "results" / "ldap.md"


def names() -> list[str]:
    return [f"p{number:03}" for number in range(PEOPLE_AT_ONCE)]


def records() -> list[str]:
    people = [person(name, 30000 + number) for number, name in enumerate(names())]
    return people + [group(team, *(f"uid={name},ou=people" for name in names())) for team in TEAMS]


# -- what is measured, in a process of its own ------------------------------------------


def ours(options: dict[str, Any]) -> Any:
    from hub_ext.authenticator import LDAPAuthenticator

    return LDAPAuthenticator(
        servers=options["servers"],
        ca_file=options["ca_file"],
        bind_dn=SERVICE_DN,
        bind_password_file=options["password_file"],
        user_base_dn=PEOPLE,
        group_base_dn=GROUPS,
        # state_database=f"sqlite:///{options['folder']}/state-{os.getpid()}.sqlite",
        **options.get("traits", {}),
    )


def peer(options: dict[str, Any]) -> Any:
    from ldapauthenticator import LDAPAuthenticator

    url = urlsplit(options["servers"][0])
    return LDAPAuthenticator(
        server_address="localhost",
        server_port=url.port,
        tls_strategy="before_bind",
        tls_kwargs={"validate": ssl.CERT_REQUIRED, "ca_certs_file": options["ca_file"]},
        lookup_dn=True,
        lookup_dn_search_user=SERVICE_DN,
        lookup_dn_search_password=SERVICE_PASSWORD,
        lookup_dn_user_dn_attribute="uid",
        user_attribute="uid",
        user_search_base=PEOPLE,
        bind_dn_template=[f"uid={{username}},{PEOPLE}"],
        allowed_groups=[f"cn={team},{GROUPS}" for team in TEAMS],
        group_search_filter="(member={userdn})",
        auth_state_attributes=["uidNumber", "gidNumber", "cn", "mail", "preferredLanguage"],
    )


class Nobody:
    """Asks no directory: what the machine's other work alone does to an event loop."""

    def __init__(self, _options: dict[str, Any]) -> None:
        self.log = logging.getLogger("bench")

    def get_handlers(self, _app: Any) -> None:
        """Nothing to start."""

    async def get_authenticated_user(self, _handler: None, data: dict[str, str]) -> Any:
        """After a second, as somebody in all three groups."""
        await asyncio.sleep(1)
        return {"name": data["username"], "auth_state": {"groups": list(TEAMS)}}


MAKERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ours": ours,
    "peer": peer,
    "nobody": Nobody,
}


async def log_in_all(authenticator: Any) -> dict[str, float]:
    """Everybody at once: logins each second, and the longest time the loop ran nothing else."""
    stall = 0.0

    async def watch() -> None:
        nonlocal stall
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            stall, before = max(stall, now - before), now
            await asyncio.sleep(0.001)
            stall = max(stall, time.perf_counter() - now - 0.001)
            before = time.perf_counter()

    async def log_in(name: str) -> float:
        begin = time.perf_counter()
        model = await authenticator.get_authenticated_user(
            None, {"username": name, "password": f"{name}-secret"}
        )
        assert model["name"] == name
        state = model["auth_state"]
        assert len(state.get("ldap_groups") or set(TEAMS) & set(state["groups"])) == len(TEAMS)
        return time.perf_counter() - begin

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.05)
    stall = 0.0
    begin = time.perf_counter()
    waits = await asyncio.gather(*(log_in(name) for name in names()))
    seconds = time.perf_counter() - begin
    await asyncio.sleep(0.01)
    watcher.cancel()
    return {"logins": len(waits) / seconds, "stall": stall, "longest": max(waits)}


async def measure(options: dict[str, Any]) -> list[dict[str, float]]:
    logging.getLogger().setLevel(logging.ERROR)
    authenticator = MAKERS[options["who"]](options)
    authenticator.log = logging.getLogger("bench")
    # As the hub does when it starts.
    authenticator.get_handlers(SimpleNamespace(users={}, log=authenticator.log))
    results = []
    for _ in range(options["runs"]):
        results.append(await log_in_all(authenticator))
    return results


# -- the run ----------------------------------------------------------------------------


def in_process(who: str, slapd: Slapd, folder: Path, servers: list[str], **more: Any) -> Any:
    options = {
        "who": who,
        "servers": servers,
        "ca_file": str(slapd.ca_file),
        "password_file": str(slapd.password_file),
        "folder": str(folder),
        **more,
    }
    done = subprocess.run(
        [sys.executable, __file__, "--measure", json.dumps(options)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=900,
        cwd=folder,
    )
    return json.loads(done.stdout)


def row(title: str, results: list[dict[str, float]]) -> str:
    logins = [result["logins"] for result in results]
    stalls = [result["stall"] * 1000 for result in results]
    return (
        f"| {title} | {statistics.median(logins):.1f} | {min(logins):.1f} - {max(logins):.1f} "
        f"| {statistics.median(stalls):.0f} ms | {max(stalls):.0f} ms "
        f"| {max(result['longest'] for result in results):.2f} s |"
    )


def machine() -> str:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    slapd = subprocess.run(["/usr/sbin/slapd", "-VV"], capture_output=True, text=True, check=False)
    found = re.search(r"slapd [0-9][0-9.]*", slapd.stderr)
    return (
        f"{os.cpu_count()} cores of {cpu}, shared with slapd and other work "
        f"(load {os.getloadavg()[0]:.1f} at the start, LOAD at the end); "
        f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, "
        f"ldap3 {version('ldap3')}, JupyterHub {version('jupyterhub')}, "
        f"{found[0] if found else 'slapd'}"
    )


def main() -> None:
    described = machine()
    with tempfile.TemporaryDirectory(prefix="lcbench") as name:
        folder = Path(name)
        with Slapd(folder / "slapd", more=records()) as slapd:
            near = [slapd.ldap_url]
            port = urlsplit(slapd.ldap_url).port
            assert port is not None
            alone, mine, other = [], [], []
            # In turn, so that the machine's other work meets all of them alike.
            for _ in range(ROUNDS):
                alone += in_process("nobody", slapd, folder, near, runs=2)
                mine += in_process("ours", slapd, folder, near, runs=3)
                other += in_process("peer", slapd, folder, near, runs=1)
            with Delay(port, ROUND_TRIP) as relay:
                far = in_process("ours", slapd, folder, [f"ldap://127.0.0.1:{relay.port}"], runs=5)
            with Tarpit(silent) as tarpit:
                quiet = in_process(
                    "ours",
                    slapd,
                    folder,
                    [f"ldap://127.0.0.1:{tarpit.port}", slapd.ldap_url],
                    runs=2,
                    traits={"timeout": 1, "login_deadline": DEADLINE},
                )
    ratio = statistics.median(r["logins"] for r in mine) / statistics.median(
        r["logins"] for r in other
    )
    quiet_limits = f"time-out 1 s, deadline {DEADLINE:g} s"
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        f"""# Directory logins

{PEOPLE_AT_ONCE} people at once, one hub process, one slapd with StartTLS (verified), search for the
person, bind, three groups and attributes. Measured by `make bench`
({datetime.now(UTC):%Y-%m-%d}): {described.replace("LOAD", f"{os.getloadavg()[0]:.1f}")}.

| | logins/s, median | range | longest stall of the loop: median run | worst run | longest wait |
|---|---|---|---|---|---|
{row(f"LabCommons ({len(mine)} runs)", mine)}
{row(f"{PEER} {version(PEER)} ({len(other)} runs)", other)}
{row(f"LabCommons, {ROUND_TRIP * 1000:g} ms round trip ({len(far)} runs)", far)}
{row(f"LabCommons, the first of two servers newly silent ({quiet_limits})", quiet[:1])}
{row("LabCommons, the same, from then on", quiet[1:])}
{row(f"nobody asked, only waited for ({len(alone)} runs)", alone)}

{ratio:.1f} times as many logins as the peer on the same work. The last row is the machine's
own share of the stalls. Waits are within a crowd of {PEOPLE_AT_ONCE}. The round trip is added by
a relay in a process of its own, which takes its share of the cores.
""",
        "utf-8",
    )
    print(RESULTS.read_text("utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", type=json.loads)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(asyncio.run(measure(arguments.measure))))
    else:
        main()
