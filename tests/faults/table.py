"""The table of faults: what is broken, what must hold, and whether it did (`make faults`).

    python tests/faults/table.py [ROW …]

In the test bed. Results are kept in results.json beside this file, each row's last one, and
docs/faults.md is written from them. Exit 1 where a row did not hold.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from world import (
    CLOCK,
    CPU,
    GPU,
    POSTGRES,
    ROOT,
    SMALL_DISKS,
    SMALL_HOMES,
    SMALL_IMAGES,
    TEN,
    WORK,
    Unkept,
    World,
    wait_for,
)

RESULTS, PAGE = HERE / "results.json", ROOT / "docs" / "faults.md"
Scene = Callable[[World], str]
BUILT = 400  # seconds for a small environment
SPEC = """\
name: {}
channels: [conda-forge]
dependencies:
  - python 3.13.*
  - ipykernel
"""


@dataclass(frozen=True)
class Row:
    """One fault. ``scene`` raises where it did not hold, and may say figures."""

    name: str
    fault: str
    expected: str
    scene: Scene | None = None
    people: dict[str, dict[str, Any]] = field(default_factory=lambda: WORK)  # and their servers
    site: str = ""  # which: the usual one, or as World has them
    tests: tuple[str, ...] = ()  # the row is shown by these, without the site


def killed(service: str, open_sockets: bool = True) -> Scene:
    """kill -9 of a service while people work."""

    def scene(world: World) -> str:
        seconds: list[float] = []

        def fault() -> None:
            world.site.kill(service)
            if open_sockets:
                seconds.append(world.healthy())

        closed = world.over_open_sockets(fault)
        if not open_sockets:
            seconds.append(world.healthy())
        elif closed:
            raise Unkept(f"websockets closed of {', '.join(closed)}")
        routes = world.served()
        world.unharmed()
        world.in_order()
        return f"healthy after {seconds[0]:.0f} s, routes {routes:.1f} s later"

    return scene


def killed_during(service: str, what: str) -> Scene:
    """kill -9 in the middle of a start or stop of somebody else's server."""

    def scene(world: World) -> str:
        world.site.login_once("dan")
        if what == "stop":
            world.site.start_server(world.admin, "dan", CPU)
        method = "POST" if what == "start" else "DELETE"
        body = CPU if what == "start" else None
        world.site.api(method, "users/dan/server", world.admin, body)
        world.site.kill(service)
        world.healthy()
        world.served()
        world.unharmed()

        def settled() -> bool:
            _, found = world.site.api("GET", "users/dan", world.admin)
            servers = (found or {}).get("servers") or {}
            there = bool(world.site.containers("dan"))
            if what == "start" and servers:
                return there and bool(servers[""]["ready"])
            return not servers and not there

        wait_for(settled, "dan's server to be there or not", 120)
        world.site.api("DELETE", "users/dan/server", world.admin)
        wait_for(lambda: not world.site.containers("dan"), "dan's server to be gone", 60)
        world.in_order()
        return ""

    return scene


def killed_building(what: str) -> Scene:
    """kill -9 of a service, or of the builder, while an environment of bob's is built."""

    def scene(world: World) -> str:
        name = f"mid-build-{uuid.uuid4().hex[:6]}"

        def ask(method: str, path: str, body: object = None) -> Any:
            status, answer = world.site.api(
                method, path, world.tokens["bob"], body, of="/services/labcommons/api/v1/"
            )
            if status not in (200, 202):
                raise Unkept(f"{method} {path}: {status} {answer}")
            return answer

        def builders() -> list[str]:
            mine = ("--filter", f"label=labcommons.site={world.site.project}")
            purpose = "label=labcommons.purpose=build"
            return world.site.docker("ps", "-aq", "--filter", purpose, *mine).split()

        def over() -> bool:
            return ask("GET", path)["build"]["state"] not in ("queued", "running")

        body = {"source": "personal", "name": name, "spec": SPEC.format(name)}
        path = f"builds/{ask('POST', 'environments', body)['build']['id']}"
        wait_for(builders, "a builder", 120)
        if what == "builder":
            world.site.docker("kill", *builders())
        else:
            world.site.kill(what)
            world.healthy()
        world.served()
        world.unharmed()
        wait_for(over, "the build to be over", BUILT)
        build = ask("GET", path)["build"]
        if (first := build["state"]) != "done":
            if not build["message"]:
                raise Unkept(f"the build is {first}, and no word why")
            path = f"builds/{ask('POST', f'{path}/retry', {})['build']['id']}"
            wait_for(over, "the build that was asked for again", BUILT)
            build = ask("GET", path)["build"]
        if build["state"] != "done":
            raise Unkept(f"asked for again, the build is {build['state']}: {build['message']}")
        wait_for(lambda: not builders(), "builders to be gone", 60)
        ask("DELETE", f"environments/personal/{name}")
        wait_for(lambda: not builders(), "builders to be gone", BUILT)
        world.in_order()
        return "it was built" + ("" if first == "done" else f", asked for again: first {first}")

    return scene


def engine_crash(world: World) -> str:
    """Without live-restore: nobody calls make up."""
    world.kill_engine()
    seconds = world.healthy()
    world.in_order()
    for user in world.work:
        if world.container(user):
            raise Unkept(f"{user}'s server runs, and should have ended")
    told_as(world, "alice", "engine")
    world.begin(world.work)
    return f"the site was back {seconds:.0f} s after Docker"


def with_a_job(fault: Callable[[World], object], outcome: str) -> Scene:
    """Somebody's job with a GPU runs meanwhile: it is not lost, run or charged twice."""
    program = "echo begun >>begun; sleep 25; echo over"

    def scene(world: World) -> str:
        site = world.site
        site.login_once("dan")

        def jobs(*words: str) -> Any:
            said = site.docker("exec", site.container("hub"), "labcommons", *words)
            return json.loads(said)

        folder = f"job-{uuid.uuid4().hex[:6]}"
        words = f"mkdir {folder} && cd {folder} && {program}"
        [job] = jobs("run", "--json", "--user", "dan", "--gpus", "1", "--", "sh", "-c", words)

        def state() -> dict[str, Any]:
            return dict(jobs("jobs", "show", "--json", job["id"])[0])

        begun = site.root / "data" / "homes" / "dan" / folder / "begun"
        wait_for(begun.exists, "the job to run", 90)
        fault(world)
        world.healthy()
        wait_for(lambda: state()["state"] not in ("running", "starting"), "the job's end", 120)
        found = state()
        if found["state"] != outcome:
            raise Unkept(f"the job is {found['state']}: {found['reason']}")
        if (times := begun.read_text().count("begun")) != 1:
            raise Unkept(f"it ran {times} times")
        said = jobs("jobs", "log", "--json", job["id"])["log"]
        if outcome == "done" and not said.startswith("over\n"):
            raise Unkept(f"of what it printed there is {said!r}")
        leases = site.docker(
            "exec", site.container("hub"), "/opt/labcommons/hub/bin/python", "-c",
            "from commons.store import Store; from commons.store.models import Lease; s = Store(); "
            "print(s.transact(lambda x: x.query(Lease).filter_by(username='dan', "
            f"server_name='job:{job['id']}').count()))",
        )  # fmt: skip
        if leases.strip() != "1":
            raise Unkept(f"it has {leases.strip()} leases")
        world.in_order()
        return f"the job was {outcome}"

    return scene


def programs_killed(world: World) -> None:
    """Hub, agent, console and proxy, one after the other."""
    for name in ("hub", "agent", "console", "chp"):
        world.site.kill(name)
    world.healthy()
    world.served()
    world.unharmed()


def told_as(world: World, user: str, cause: str) -> None:
    """How somebody's server ended, as the store has it."""
    code = (
        "from commons.store import Store, ends; s = Store(); "
        f"print(s.transact(lambda x: getattr(ends.last(x, {user!r}, ''), 'cause', '')))"
    )
    hub = world.site.container("hub")
    wait_for(
        lambda: (
            cause in world.site.docker("exec", hub, "/opt/labcommons/hub/bin/python", "-c", code)
        ),
        f"{user} to be told that it was {cause!r}",
        60,
    )


def engine_live(world: World) -> str:
    """With live-restore: nothing ends, and the agent finds the new daemon."""
    world.restart_engine("--live-restore")
    world.healthy()
    world.begin(world.work)
    closed = world.over_open_sockets(lambda: world.kill_engine("--live-restore"))
    world.healthy()
    world.served()
    world.unharmed()
    world.in_order()
    # The hub hears of Docker again: of a server that is killed it knows that it ended.
    world.site.docker("kill", world.container("bob"))
    began = time.monotonic()
    wait_for(lambda: not world.known("bob"), "the hub to know that bob's server ended", 60)
    seconds = time.monotonic() - began
    world.restart_engine()
    world.healthy()
    world.begin(world.work)
    lost = f"; websockets closed of {', '.join(closed)}" if closed else ""
    return f"a server's end was known {seconds:.0f} s after it{lost}"


def power_cut(world: World) -> str:
    """All processes at once; what was on the disk is all there is."""
    (before,) = (lease["id"] for lease in world.site.leases())
    world.run("bob", "import os; f = open('kept.txt', 'w'); f.write('42'); f.flush(); os.fsync(f)")
    world.kill_engine(everything=True)
    seconds = world.healthy()
    world.in_order()
    if before in {lease["id"] for lease in world.site.leases()}:
        raise Unkept("a lease goes on without its server")
    check = "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check').fetchone()[0])"  # noqa: E501
    for file in ("store/labcommons.sqlite", "hub/jupyterhub.sqlite"):
        said = world.site.docker(
            "exec", world.site.container("hub"), "/opt/labcommons/hub/bin/python", "-c", check,
            f"/srv/labcommons/data/{file}",
        )  # fmt: skip
        if said.strip() != "ok":
            raise Unkept(f"{file}: {said}")
    world.begin(world.work)
    if (said := world.run("bob", "print(open('kept.txt').read())").strip()) != "42":
        raise Unkept(f"what bob had written is {said!r}")
    return f"the site was back {seconds:.0f} s after Docker"


def database_killed(world: World) -> str:
    """PostgreSQL by kill -9."""
    closed = world.over_open_sockets(lambda: world.site.kill("db"))
    if closed:
        raise Unkept(f"websockets closed of {', '.join(closed)}")
    seconds = world.healthy()
    world.served()
    world.unharmed()
    world.in_order()
    return f"healthy after {seconds:.0f} s"


def database_away(world: World) -> str:
    """Who works goes on; who asks the hub is told what it is, and when to ask again."""
    database = world.site.container("db")

    def told() -> bool:
        status, said = world.site.api("GET", "users/bob", world.admin)
        return status == 503 and "database" in str(said)

    def fault() -> None:
        world.site.docker("stop", database)
        wait_for(told, "the hub to say that its database is away", 60)

    try:
        closed = world.over_open_sockets(fault)
    finally:
        world.site.docker("start", database)
    if closed:
        raise Unkept(f"websockets closed of {', '.join(closed)}")
    seconds = world.healthy()
    world.served()
    world.unharmed()
    world.in_order()
    return f"healthy {seconds:.0f} s after the database was back"


def hub_comes_back(world: World) -> None:
    """Nobody is harmed, with the hub of before and with the next."""
    world.served()
    world.unharmed()
    world.site.kill("hub")
    world.healthy()
    world.served()
    world.unharmed()


def disk_full(world: World) -> str:
    """Logins, leases and stops go on in the room that databases hold within themselves."""
    room = world.fill_disks()
    try:
        world.site.login_once("dan")
        status, said = world.site.api("POST", "users/dan/server", world.admin, CPU)
        told = f"a start is answered with {status} {said or ''}".strip()
        if status >= 300 and (status != 503 or "disk" not in str(said)):
            raise Unkept(told)
        world.end("dan")
        hub_comes_back(world)
        world.end("s01")
    finally:
        room()
    world.healthy()
    world.in_order()
    world.site.start_server(world.admin, "dan", CPU)
    world.end("dan")
    return told


def homes_full(world: World) -> str:
    """Who works goes on; who starts a server gets it, or is told of the disk."""
    room = world.fill_disks()
    try:
        world.site.login_once("dan")
        status, said = world.site.api("POST", "users/dan/server", world.admin, CPU)
        told = f"who comes for the first time is answered with {status} {said or ''}".strip()
        if status >= 300 and "disk" not in str(said):
            raise Unkept(told)
        if status < 300:
            wait_for(lambda: world.known("dan"), "dan's server", 60)
            world.end("dan")
        hub_comes_back(world)
        world.start_anew("s01", CPU)
        world.served()
    finally:
        room()
    world.in_order()
    world.site.start_server(world.admin, "dan", CPU)
    world.end("dan")
    return told


def images_full(world: World) -> str:
    """Nothing new is begun, and says why; what Docker has no room to start again is started."""
    room = world.fill_disks()
    try:
        world.site.login_once("dan")
        status, said = world.site.api("POST", "users/dan/server", world.admin, CPU)
        told = f"a start is answered with {status} {said or ''}".strip()
        if status < 300 or "full" not in str(said):
            raise Unkept(told)
        began = time.monotonic()
        hub_comes_back(world)
        told += f"; with the next hub all was well {time.monotonic() - began:.0f} s after its end"
        world.end("s01")
    finally:
        room()
    world.healthy()
    world.in_order()
    world.site.start_server(world.admin, "dan", CPU)
    world.end("dan")
    return told


def clock_set(offset: str) -> Scene:
    """The time of day jumps under the hub, and back: what is left of a lease stays what it was."""

    def scene(world: World) -> str:
        def left() -> float:
            (lease,) = world.site.labcommons("gpu", "leases")
            now = world.site.docker("exec", world.site.container("hub"), "date", "-u", "+%s")
            return datetime.fromisoformat(lease["ends_at"]).timestamp() - float(now)

        def noticed() -> int:
            return world.site.output_of("hub").count("the clock was set by")

        before = left()
        for to in (offset, "+0"):
            known = noticed()
            world.set_clock(to)
            wait_for(lambda known=known: noticed() > known, "the hub to see that", 120)  # type: ignore[misc]
            world.healthy()
            world.served()
            world.unharmed()
            world.in_order()
            if abs(left() - before) > 600:
                raise Unkept(f"of a lease {before:.0f} s were left, and now {left():.0f} s")
        return f"{before / 60:.0f} minutes of a lease were left, then {left() / 60:.0f}"

    return scene


def directory_away(world: World) -> str:
    directory = world.site.container("directory")
    world.site.docker("stop", directory)
    try:
        world.served()
        world.unharmed()
    finally:
        world.site.docker("start", directory)
        wait_for(lambda: world.site.healthy("directory"), "the directory", 60)
    world.site.login_once("alice")
    return ""


def perimeter_flushed(world: World) -> str:
    world.site.kill("perimeter")
    world.healthy()
    world.unharmed()
    return ""


KILLS = {
    "hub": True, "console": True, "kernels": True, "agent": True, "gate": True,
    "chp": False, "proxy": False,
}  # fmt: skip
ALIVE = "servers, kernels and leases go on; open websockets {}; routes within 10 s; no orphan"
ROWS: tuple[Row, ...] = (
    *(
        Row(
            f"{prefix}kill-{name}",
            f"kill -9 of `{name}`, {words} people at work",
            ALIVE.format("stay" if KILLS[name] else "may be opened anew"),
            killed(name, KILLS[name]),
            people=people,
        )
        for prefix, words, people, names in (
            ("", "three", WORK, tuple(KILLS)),
            ("ten-", "ten", TEN, ("hub", "agent", "chp")),
        )
        for name in names
    ),
    Row("kill-perimeter", "kill -9 of `perimeter`", "servers go on; the rules are put back",
        perimeter_flushed),
    Row("directory-away", "the directory is stopped", "who works goes on; logins when it is back",
        directory_away),
    *(
        Row(
            f"{name}-mid-{what}",
            f"kill -9 of `{name}` in the middle of a {what}",
            "the server is there, or gone and clean; others go on; the ledger agrees",
            killed_during(name, what),
        )
        for name in ("hub", "agent")
        for what in ("start", "stop")
    ),
    *(
        Row(
            f"{name}-mid-build",
            f"kill -9 of {words} in the middle of a build",
            "the build goes on, or fails with its reason and can be asked for again; no builder "
            "is left; servers go on",
            killed_building(name),
        )
        for name, words in (("hub", "`hub`"), ("agent", "`agent`"), ("builder", "the builder"))
    ),
    Row("engine-crash", "kill -9 of dockerd, no live-restore",
        "the site returns by itself; people are told that Docker was restarted", engine_crash),
    Row("ten-engine-crash", "kill -9 of dockerd, no live-restore, ten people at work",
        "the site returns by itself; people are told that Docker was restarted", engine_crash,
        people=TEN),
    Row("engine-live-restore", "kill -9 of dockerd with live-restore",
        "nothing ends; the agent reaches the new daemon", engine_live),
    Row("jobs-kill", "kill -9 of hub, agent, console and chp while a job runs on a GPU",
        "the job goes on to its end: it is run once, its output is whole, it has one lease",
        with_a_job(programs_killed, "done")),
    Row("jobs-engine-crash", "kill -9 of dockerd, no live-restore, while a job runs on a GPU",
        "the job is told to be lost and is not run again unasked; its GPU is free",
        with_a_job(lambda world: world.kill_engine(), "lost")),
    Row("power-cut", "all processes and dockerd killed at once",
        "the site returns by itself; databases whole; no lease without a server", power_cut),
    Row("kill-postgresql", "kill -9 of PostgreSQL, three people at work",
        ALIVE.format("stay"), database_killed, site=POSTGRES),
    Row("postgresql-away", "PostgreSQL is stopped while three people work",
        "servers and open websockets go on; the hub says 503 and why; then all goes on",
        database_away, site=POSTGRES),
    *(
        Row(
            f"postgresql-mid-{what}",
            f"kill -9 of PostgreSQL in the middle of a {what}",
            "the server is there, or gone and clean; others go on; the ledger agrees",
            killed_during("db", what),
            site=POSTGRES,
        )
        for what in ("start", "stop")
    ),
    *(
        Row(
            f"clock-{name}",
            f"the hub's clock is set {words}, then right again",
            "nobody is stopped; leases keep what was left of them; logins go on",
            clock_set(offset),
            people={**WORK, "alice": GPU | {"time_limit": 120}},
            site=CLOCK,
        )
        for name, words, offset in (
            ("forwards", "half an hour forwards", "+30m"),
            ("back", "half an hour back", "-30m"),
        )
    ),
    Row("databases-disk-full", "no byte is left on the disks of both SQLite databases",
        "logins, leases and stops go on; who starts a server gets it or is told; a hub that is "
        "killed comes back", disk_full,
        site=SMALL_DISKS),
    Row("homes-disk-full", "no byte is left on the disk of the homes",
        "logins, servers and stops go on; a server starts in a home that is there; who has none "
        "yet gets a server or is told", homes_full,
        site=SMALL_HOMES),
    Row("images-disk-full", "no byte is left on the disk of Docker's images",
        "logins, servers and stops go on; a start is refused with the cause; a hub that is killed "
        "comes back, though Docker has no room to start it again", images_full,
        site=SMALL_IMAGES),
    Row("database-away", "PostgreSQL killed, and started again",
        "503 with the reason and Retry-After on pages and by REST; then all goes on",
        tests=("tests/hub_ext/test_database_away.py",)),
    Row("disk-full", "the disk of databases and homes is full",
        "both databases go on; a hub that starts explains itself",
        tests=("tests/hub_ext/test_full_disk.py",)),
    Row("copy-beside", "a restored copy beside its original",
        "nothing of the original's is stopped or removed",
        tests=("tests/spawner/runtime/test_other_sites.py", "tests/deploy/test_service.py")),
    Row("agent-killed", "the agent killed at each step of a start, a folder, a build",
        "nothing is left, nothing is doubled",
        tests=("tests/spawner/runtime/test_killed_agent.py",)),
    Row("hub-killed", "the hub killed at each step of starts, stops and leases",
        "no lease lost, none doubled", tests=("tests/spawner/test_killed_hub.py",)),
)  # fmt: skip
# What the table does not have yet, so that nobody takes it for held.
NOT_TRIED = (
    "the agent itself killed on a full disk of Docker's images: nobody else may start a container",
    "ten live servers at other rows than those that say so",
)


def shown_by(tests: tuple[str, ...]) -> str:
    words = [sys.executable, "-m", "pytest", "-q", "-m", "docker or not docker", *tests]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or ["nothing"])[-1]
    if done.returncode:
        raise Unkept(f"{', '.join(tests)}: {last}")
    return last.partition(" in ")[0].partition(",")[0]


def page(results: dict[str, Any]) -> str:
    """docs/faults.md."""
    held = sum(bool(one["held"]) for one in results.values())
    lines = [
        "# Faults",
        "",
        'Written by `make faults` (`ROWS="NAME …"` for some alone); what comes back and how:',
        "[recovery.md](recovery.md).",
        "",
        f"{held} of {len(results)} rows held. On a running site three people are at work (one with "
        "a GPU; ten people where a row says so), each with a kernel and an open websocket; rows "
        "that name tests are those tests.",
        "",
        "| row | fault | must hold | held | seen | on |",
        "|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        if one := results.get(row.name):
            cells = (
                row.name, row.fault + "".join(f" (`{test}`)" for test in row.tests), row.expected,
                "yes" if one["held"] else "**no**",
                one["said"].replace("|", "/").replace("\n", " ")[:300], one["at"],
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    if left := [row for row in ROWS if row.name not in results]:
        lines += ["", f"Not run here yet: {', '.join(row.name for row in left)}."]
    lines += ["", f"No row yet: {'; '.join(NOT_TRIED)}.", ""]
    return "\n".join(lines)


def main() -> int:
    """Run the rows that are named, or all."""
    asked = sys.argv[1:]
    known = {row.name for row in ROWS}
    if wrong := set(asked) - known:
        print(f"no row {', '.join(sorted(wrong))}; there are: {', '.join(sorted(known))}")
        return 2
    rows = [row for row in ROWS if not asked or row.name in asked]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    world, at = None, ""
    failed = 0
    for number, row in enumerate(rows, 1):
        print(f"[{number}/{len(rows)}] {row.name}: {row.fault} … ", end="", flush=True)
        began = time.monotonic()
        try:
            if row.scene is None:
                said = shown_by(row.tests)
            else:
                if world is None or row.site != at:
                    if world is not None:
                        world.close()
                    world, at = World(row.site), row.site
                world.begin(row.people)
                said = row.scene(world)
            held = True
        except Exception as error:
            traceback.print_exc()
            held, said = False, f"{error}"[:400] or type(error).__name__
            failed += 1
        results[row.name] = {
            "held": held,
            "said": said,
            "at": time.strftime("%Y-%m-%d"),
            "seconds": round(time.monotonic() - began),
            "kernel": platform.release(),
        }
        print(f"{'held' if held else 'DID NOT HOLD'} ({time.monotonic() - began:.0f} s) {said}")
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
        PAGE.write_text(page(results), "utf-8")
    if world is not None:
        world.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
