"""A data folder, a target, and the container that copies the one to the other."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

DATA = "/srv/labcommons/data"
SERVES = ("DAC_OVERRIDE", "SETUID", "SETGID")
RESTORES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
SITE = """
version: 1
directory: {servers: [ldaps://d.example.org], users: {base_dn: "dc=example,dc=org"}}
sizes: {small: {cpu: 1, memory: 1G, default: true}}
backup: {target: /srv/target, keep: {daily: 1, weekly: 0, monthly: 0}}
"""


class Box:
    """What a site has of its own for backups, without a site."""

    def __init__(self, folder: Path, image: str, target: str = "/srv/target") -> None:
        self.data, self.target, self.image = folder / "data", folder / "target", image
        self.network = "none" if target.startswith("/") else "bridge"
        for name in ("backup", "health", "homes/alice", "store", "hub", "secrets"):
            (self.data / name).mkdir(parents=True)
        self.target.mkdir()
        (self.data / "secrets" / "crypt-key").write_text("secret")
        self.site = folder / "site.yaml"
        self.site.write_text(SITE.replace("/srv/target", target))
        for name in ("store/labcommons", "hub/jupyterhub"):
            with closing(sqlite3.connect(self.data / f"{name}.sqlite")) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("CREATE TABLE told (n INTEGER)")
                connection.commit()

    def words(self, *command: str, data: Path | None = None, options: str = "") -> list[str]:
        """What runs ``labcommons backup …``."""
        return [
            *("docker", "run", "--rm", "--init", "--user=0:0", "--cap-drop=ALL"),
            f"--network={self.network}",
            # As the service has them, and a restore.
            *(f"--cap-add={one}" for one in (RESTORES if command[0] == "restore" else SERVES)),
            *options.split(),
            f"--volume={data or self.data}:{DATA}",
            f"--volume={self.target}:/srv/labcommons/backup",
            f"--volume={self.site}:/etc/labcommons/site.yaml:ro",
            f"--volume={self.site.parent}:/keys:ro",
            f"--env=LABCOMMONS_DATABASE_URL=sqlite:///{DATA}/store/labcommons.sqlite",
            f"--env=LABCOMMONS_HUB_DATABASE_URL=sqlite:///{DATA}/hub/jupyterhub.sqlite",
            *(self.image, "labcommons", "backup", *command),
        ]

    def run(
        self, *command: str, data: Path | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.words(*command, data=data),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def good(self, *command: str, data: Path | None = None, timeout: float = 300) -> str:
        """What it prints when all goes well."""
        done = self.run(*command, data=data, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def state(self) -> dict[str, object]:
        """What doctor reads."""
        found: dict[str, object] = json.loads((self.data / "health" / "backup.json").read_text())
        return found

    def key(self) -> None:
        """Make the repository; its recovery key is /keys/key."""
        (self.site.parent / "key").write_text(self.good("init"))
