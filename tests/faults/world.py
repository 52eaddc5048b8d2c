"""A site with people at work, and what can be broken about it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.netutil import DefaultLoopResolver, OverrideResolver
from tornado.websocket import WebSocketClientConnection, websocket_connect

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from deployment import ROOT, Deployment, copy_checkout, wait_for

SERVICES = (
    "proxy", "perimeter", "gate", "chp", "hub", "agent", "console", "kernels", "directory",
)  # fmt: skip
GPU = {"environment": "py313-data", "size": "small", "gpus": 1}
CPU = {"environment": "py313-data", "size": "small"}
WORK = {"alice": GPU, "bob": CPU, "s01": CPU}
TEN = WORK | {f"s{number:02}": CPU for number in range(2, 9)}
# Sites other than the usual one.
POSTGRES, SMALL_DISKS, SMALL_HOMES, CLOCK = "postgres", "small-disks", "small-homes", "clock"
SMALL_IMAGES = "small-images"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
# Of the hub alone, and only its time of day: the machine's own clock is nobody's to set.
CLOCK_OF_THE_HUB = """\
services:
  hub:
    environment:
      LD_PRELOAD: /opt/libfaketime.so.1
      DONT_FAKE_MONOTONIC: "1"
      FAKETIME_NO_CACHE: "1"
      FAKETIME_TIMESTAMP_FILE: /opt/faketime
    volumes:
      - {library}:/opt/libfaketime.so.1:ro
      - {file}:/opt/faketime:ro
"""
ROUTES_BACK = 10  # seconds
HEALTHY = 120  # seconds for a service that was killed, with Docker's own pauses


class Unkept(AssertionError):
    """What was promised and did not hold."""


class World:
    """The site, its people, their servers with a kernel and an open websocket each."""

    def __init__(self, kind: str = "") -> None:
        root = ROOT / ".cache" / (f"e2e-{kind}" if kind else "e2e")
        copy_checkout(root)
        self.site = Deployment(root)
        self.services = SERVICES[:-1]
        self._disks: list[Path] = []
        self._engines: Path | None = None  # the Engine's folder, where that is one of them
        if kind == POSTGRES:
            (root / ".env").write_text("COMPOSE_PROFILES=demo,postgres\n")
            self.services += ("db",)
        self._clock = root / ".cache" / "clock"
        if kind == CLOCK:
            self.set_clock("+0")
            override = CLOCK_OF_THE_HUB.format(library=FAKETIME, file=self._clock)
            (root / "docker-compose.override.yml").write_text(override)
        self.site.up()
        small = {SMALL_DISKS: ("store", "hub"), SMALL_HOMES: ("homes",)}.get(kind, ())
        if small:
            self.site.down()
            self._disks = [root / "data" / name for name in small]
            for folder in self._disks:
                _onto_a_disk(folder)
            self.site.up()
        # What is kept on each for a start.
        self._kept = [folder / "reserve" for folder in self._disks if folder.name != "homes"]
        if kind == SMALL_IMAGES:
            self.site.down()
            self._engines = self._engine_onto_a_disk()
            self._disks = [self._engines]
            self.site.up()
            volume = self._engines / "volumes" / f"{self.site.project}_agent"
            self._kept = [volume / "_data" / "reserve"]
        self.site.without_limits()
        # What a test that was killed left of a site of its own is nobody's here.
        for line in self.site.docker(
            "ps", "-a", "--filter", "label=labcommons.user", "--format",
            '{{.ID}} {{.Label "labcommons.site"}}',
        ).splitlines():  # fmt: skip
            if line.partition(" ")[2] != "labcommons":
                self.site.docker("rm", "--force", line.partition(" ")[0])
        self.admin = self.site.login_once("carol")
        self.work: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, str] = {}
        self.kernels: dict[str, str] = {}
        self.containers: dict[str, str] = {}

    def begin(self, work: dict[str, dict[str, Any]]) -> None:
        """Everybody works: what was ended before is started anew, and nobody else does."""
        for user in self.work.keys() - work.keys():
            self.end(user)
        self.work = work
        for user, options in work.items():
            if user not in self.tokens:
                self.tokens[user] = self.site.login_once(user)
            if not self.answers(user):
                self.start_anew(user, options)
            _, made = self.in_server(user, "POST", "api/kernels", {"name": "python3"})
            self.kernels[user] = str(made["id"])
            self.run(user, "kept = 41")
        self.containers = {user: self.container(user) for user in work}

    def answers(self, user: str) -> bool:
        """Whether their server does, to who may use it; without one, a login page would."""
        with suppress(OSError):
            return self.in_server(user, "GET", "api/kernelspecs")[0] == 200
        return False

    def known(self, user: str) -> bool:
        """Whether the hub takes their server for one that runs."""
        _, found = self.site.api("GET", f"users/{user}", self.admin)
        return bool(found["servers"])

    def start_anew(self, user: str, options: dict[str, Any]) -> None:
        """A server in place of one that ended."""
        self.end(user)
        self.site.start_server(self.admin, user, options)

    def end(self, user: str) -> None:
        self.site.api("DELETE", f"users/{user}/server", self.admin)
        wait_for(lambda: not self.site.containers(user), f"{user}'s old server", 60)

    def container(self, user: str) -> str:
        return self.site.docker(
            "ps", "-q", "--no-trunc", "--filter", f"label=labcommons.user={user}"
        ).strip()

    def in_server(self, user: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """A request to somebody's own server."""
        kept, self.site.url = self.site.url, f"https://{user}.lab.localhost:8443"
        try:
            return self.site.api(method, path, self.tokens[user], body, of=f"/user/{user}/")
        finally:
            self.site.url = kept

    async def _open(self, user: str) -> WebSocketClientConnection:
        host = f"{user}.lab.localhost"
        url = f"wss://{host}:8443/user/{user}/api/kernels/{self.kernels[user]}/channels"
        request = HTTPRequest(
            url,
            headers={"Authorization": f"token {self.tokens[user]}"},
            ca_certs=str(self.site.ca_file),
            connect_timeout=20,
        )
        resolver = OverrideResolver(resolver=DefaultLoopResolver(), mapping={host: "127.0.0.1"})
        return await websocket_connect(request, resolver=resolver)

    def run(self, user: str, code: str) -> str:
        """What a cell prints."""

        async def work() -> str:
            socket = await self._open(user)
            try:
                return await asyncio.wait_for(_execute(socket, code), 30)
            finally:
                socket.close()

        return asyncio.run(work())

    def over_open_sockets(self, fault: Callable[[], object]) -> list[str]:
        """Do it while everybody has a websocket open; whose is closed afterwards."""

        async def work() -> list[str]:
            sockets = {user: await self._open(user) for user in self.work}
            await asyncio.to_thread(fault)
            closed = []
            for user, socket in sockets.items():
                try:
                    said = await asyncio.wait_for(_execute(socket, "print(kept + 1)"), 20)
                    if said.strip() != "42":
                        closed.append(user)
                except Exception:
                    closed.append(user)
                socket.close()
            return closed

        return asyncio.run(work())

    # -- what must hold ---------------------------------------------------------------------------

    def healthy(self) -> float:
        """Seconds until all services are."""
        began = time.monotonic()

        def well() -> bool:
            with suppress(Exception):
                return all(self.site.healthy(name) for name in self.services)
            return False

        wait_for(well, "the services to be healthy", HEALTHY)
        return time.monotonic() - began

    def served(self) -> float:
        """Seconds until everybody's server answers by its route. Raises Unkept after ten."""
        began = time.monotonic()
        while left := [user for user in self.work if not self.answers(user)]:
            if time.monotonic() - began > ROUTES_BACK:
                raise Unkept(f"no route to {', '.join(left)} after {ROUTES_BACK} s")
            time.sleep(0.2)
        return time.monotonic() - began

    def unharmed(self) -> None:
        """The same containers, with the same kernels and what is in them."""
        for user, before in self.containers.items():
            if self.container(user) != before:
                raise Unkept(f"{user}'s server is another, or gone")
            if (said := self.run(user, "print(kept + 1)").strip()) != "42":
                raise Unkept(f"{user}'s kernel says {said!r}")

    def in_order(self) -> None:
        """No orphan, no lease without a server, none twice; the ledger's own check agrees."""

        def agree() -> bool:
            _, users = self.site.api("GET", "users", self.admin)
            known = {one["name"] for one in users if one.get("servers")}
            lines = self.site.docker(
                "ps", "-a", "--filter", "label=labcommons.user", "--format",
                '{{.Label "labcommons.user"}}',
            ).split()  # fmt: skip
            leases = [lease["user"] for lease in self.site.labcommons("gpu", "leases")]
            return (
                sorted(lines) == sorted(known)
                and len(leases) == len(set(leases))
                and set(leases) <= known
            )

        wait_for(agree, "hub, Engine and ledger to agree", 90)

    def close(self) -> None:
        """The site is stopped, and its data where it was."""
        self.site.down()
        if self._engines is not None:
            return self._engine_off_the_disk(self._engines)
        for folder in self._disks:
            _off_the_disk(folder)

    # -- what can be done to it -------------------------------------------------------------------

    def set_clock(self, offset: str) -> None:
        """The hub's, so far from the machine's: "+3h"."""
        self._clock.parent.mkdir(exist_ok=True)
        self._clock.write_text(f"{offset}\n")

    def fill_disks(self) -> Callable[[], None]:
        """Leave not one byte on the small disks; returns what makes room again."""
        wait_for(lambda: all(map(Path.exists, self._kept)), "what is kept for a start", 60)
        fillers = [folder / "filler" for folder in self._disks]
        for filler in fillers:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(65536)) == 65536:
                    pass
                while file.write(b"0"):
                    pass

        def room() -> None:
            for filler in fillers:
                filler.unlink(missing_ok=True)

        return room

    def engine(self) -> tuple[int, list[str], dict[str, str]]:
        """The Engine's process: id, command, environment."""
        pid = int(Path(os.environ["LABCOMMONS_TESTBED_PIDFILE"]).read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")[:-1]
        return pid, command, dict(pair.split("=", 1) for pair in pairs)

    def kill_engine(self, *options: str, everything: bool = False) -> None:
        """kill -9 of dockerd, and a new one some seconds later; with all that runs, as if the power
        was cut.
        """
        pid, command, env = self.engine()
        listed = self.site.docker("ps", "-q").split() if everything else []
        pids = [
            int(word)
            for word in (
                self.site.docker("inspect", "-f", "{{.State.Pid}}", *listed).split()
                if listed
                else ()
            )
        ]
        os.kill(pid, signal.SIGKILL)
        for one in pids:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        time.sleep(3)
        self.start_engine([word for word in command if word != "--live-restore"], env, options)

    def start_engine(
        self, command: list[str], env: dict[str, str], options: tuple[str, ...] = ()
    ) -> None:
        # The test bed, whose child the old one was, has not looked after it yet.
        Path(os.environ["LABCOMMONS_TESTBED_PIDFILE"]).unlink(missing_ok=True)
        with Path(ROOT / ".cache" / "faults-dockerd.log").open("ab") as log:
            subprocess.Popen(
                [*command, *options],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def answers() -> bool:
            with suppress(AssertionError):
                return bool(self.site.docker("info", "--format", "{{.ServerVersion}}"))
            return False

        wait_for(answers, "the Engine", 90)

    def restart_engine(self, *options: str, meanwhile: Callable[[], None] | None = None) -> None:
        """An orderly restart, with other options."""
        pid, command, env = self.engine()
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not _lives(pid), "the Engine to end", 90)
        if meanwhile is not None:
            meanwhile()
        self.start_engine([word for word in command if word != "--live-restore"], env, options)

    def _engine_onto_a_disk(self) -> Path:
        """Have all that the Engine keeps on a file system of its own, with some room; where."""
        _, command, _ = self.engine()
        folder = Path(command[command.index("--data-root") + 1])
        kept, image = folder.with_name("docker.kept"), folder.with_name("docker.img")

        def move() -> None:
            folder.rename(kept)
            folder.mkdir()
            words = ["du", "--summarize", "--block-size=1", str(kept)]
            used = int(subprocess.check_output(words).split()[0])
            with image.open("wb") as file:
                file.truncate(used * 6 // 5 + 2**30)
            for words in (
                ["mkfs.ext4", "-q", "-m", "0", image],
                ["mount", "-o", "loop", image, folder],
                ["cp", "-a", f"{kept}/.", folder],
            ):
                subprocess.run(words, check=True)

        self.restart_engine(meanwhile=move)
        return folder

    def _engine_off_the_disk(self, folder: Path) -> None:
        def move() -> None:
            subprocess.run(["umount", folder], check=True)
            folder.rmdir()
            folder.with_name("docker.kept").rename(folder)
            folder.with_name("docker.img").unlink()

        self.restart_engine(meanwhile=move)


def _onto_a_disk(folder: Path) -> None:
    """Have a folder on a file system of its own, with room for what the hub keeps for a start."""
    kept = folder.with_name(f"{folder.name}.kept")
    folder.rename(kept)
    folder.mkdir()
    size = sum(file.stat().st_size for file in kept.rglob("*") if file.is_file())
    words = ["mount", "-t", "tmpfs", "-o", f"size={size + 512 * 2**20}", "tmpfs", folder]
    subprocess.run(words, check=True)
    subprocess.run(["cp", "-a", f"{kept}/.", folder], check=True)
    shutil.rmtree(kept)


def _off_the_disk(folder: Path) -> None:
    kept = folder.with_name(f"{folder.name}.kept")
    subprocess.run(["cp", "-a", folder, kept], check=True)
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()
    kept.rename(folder)


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def _execute(socket: WebSocketClientConnection, code: str) -> str:
    """What a cell prints, over an open channel."""
    key = uuid.uuid4().hex
    header = {"msg_id": key, "msg_type": "execute_request", "username": "", "session": key}
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    await socket.write_message(
        json.dumps({
            "header": {**header, "version": "5.3", "date": ""}, "parent_header": {},
            "metadata": {}, "content": content, "channel": "shell", "buffers": [],
        })
    )  # fmt: skip
    said, done = "", {"execute_reply": False, "idle": False}
    while not all(done.values()):
        raw = await socket.read_message()
        if raw is None:
            raise ConnectionError("the websocket was closed")
        message = json.loads(raw)
        if message["parent_header"].get("msg_id") != key:
            continue
        if message["msg_type"] == "stream":
            said += message["content"]["text"]
        elif message["msg_type"] == "execute_reply":
            done["execute_reply"] = True
        elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            done["idle"] = True
    return said
