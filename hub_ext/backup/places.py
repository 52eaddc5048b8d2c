"""Where everything is, in the containers that make backups and restore them."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
CHECKOUT = Path("/srv/labcommons/checkout")  # config/ and .env
TARGET = Path("/srv/labcommons/backup")  # where the site file names a folder of the machine
SITE_ID = os.environ.get("LABCOMMONS_SITE_ID", "labcommons")

# What is the same on every site, what people's work is, and what nobody but the recovery key reads.
ALWAYS = ("advisories", "audit", "builds", "channel", "locks", "shared", "versions")
HOMES = ("homes",)
TEAMS = ("teams", "courses", "archives")
SECRETS = (
    "secrets",
    "tls",
    "agent-tls",
    "acme",
    "shipping",
    "logins",
    "backup/ssh",
    "backup/environment",
)


class Room:
    """``data/backup``: the site's own part of its backups."""

    def __init__(self, data: Path = DATA) -> None:
        self.folder = data / "backup"
        self.password = self.folder / "password"
        self.recipient = self.folder / "recipient"
        self.stage = self.folder / "stage"
        self.restored = self.folder / "restored"
        self.lock = self.folder / "lock"
        self.state = data / "health" / "backup.json"
