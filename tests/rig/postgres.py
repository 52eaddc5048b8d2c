"""A real PostgreSQL of a moment, on a Unix socket, for tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    if initdb := shutil.which("initdb"):
        return Path(initdb).parent
    raise RuntimeError("PostgreSQL's initdb is missing: apt-get install postgresql")


class Postgres:
    """``with Postgres(folder) as pg: pg.database("name")`` gives a URL of a new database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = _binaries()
        # PostgreSQL refuses to run as root.
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def _run(self, *command: str) -> None:
        subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            check=True,
            user=self.user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )

    def __enter__(self) -> Postgres:
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.chown(self.folder, self.user)
        data = self.folder / "data"
        self._run("initdb", "-D", str(data), "-A", "trust", "-N", "-E", "UTF8")
        return self.start()

    def start(self) -> Postgres:
        """Begin it, after ``kill``, too; return when it answers."""
        self.process = subprocess.Popen(
            [
                str(self.bin / "postgres"),
                *(
                    "-D",
                    str(self.folder / "data"),
                    "-k",
                    str(self.folder),
                    "-c",
                    "listen_addresses=",
                ),
                *("-c", "fsync=off", "-c", "max_connections=60"),
            ],
            user=self.user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                self._run("pg_isready", "-q", "-h", str(self.folder))
                return self
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError("PostgreSQL did not start") from None
                time.sleep(0.1)

    def kill(self) -> None:
        """As by the kernel's out-of-memory killer: all of its processes, at once."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in (self.process.pid, *map(int, found.split())):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def database(self, name: str) -> str:
        self._run("createdb", "-h", str(self.folder), name)
        return f"postgresql+psycopg://{self.user}@/{name}?host={self.folder}"

    def __exit__(self, *_error: object) -> None:
        # SIGTERM would wait for connections that a test left open.
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
