"""Copies of both databases from before a new version changes their tables, and the way back.

SQLite's are made beside the file by ``commons/store/copies.py``, PostgreSQL's in the volume of the
service ``db`` by ``postgres_copies.sh``. Both are given to a container on its standard input, so
that they work with the images of every version.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deploy import settings
from deploy.engine import Engine
from deploy.settings import ROOT, Settings
from deploy.shell import CommandFailed, Failure

if TYPE_CHECKING:
    from deploy.up import Compose

TIMEOUT = 1800  # seconds for a copy of a large database
SQLITE = ROOT / "commons" / "store" / "copies.py"
POSTGRES = ROOT / "deploy" / "postgres_copies.sh"


@dataclass(frozen=True)
class Database:
    """One of the two.

    Attributes:
        name: ``store``, ours, or ``hub``, JupyterHub's own.
        title: what people are told it is.
        file: under data/, where it is SQLite's.
        database: its name in PostgreSQL.
        table: where Alembic keeps the version of the tables.
        url: the setting that names another place.
        holds: what is lost with it.
    """

    name: str
    title: str
    file: str
    database: str
    table: str
    url: str
    holds: str


STORE = Database(
    "store", "LabCommons' database", "store/labcommons.sqlite", "labcommons",
    "labcommons_alembic_version", "LABCOMMONS_DATABASE_URL",
    "quotas, reservations, places in the queue, records of environments, notices, messages",
)  # fmt: skip
HUB = Database(
    "hub", "JupyterHub's database", "hub/jupyterhub.sqlite", "jupyterhub",
    "alembic_version", "LABCOMMONS_HUB_DATABASE_URL",
    "people's first logins, tokens, groups, shares, and who started which server",
)  # fmt: skip
DATABASES = (STORE, HUB)


class Copies:
    """The copies of one site. Each call is safe to repeat."""

    def __init__(self, docker: Engine, site: Settings, compose: Compose) -> None:
        self.docker, self.site, self.compose = docker, site, compose

    def revision(self, which: Database) -> str:
        """Which version its tables have now; "" for none. Raises Failure."""
        return self._ask("revision", which, which.table)

    def revisions(self) -> dict[str, str]:
        """Of both."""
        return {which.name: self.revision(which) for which in DATABASES}

    def make(self, which: Database, revision: str) -> str:
        """A copy as it is now; its name. Raises Failure."""
        return self._ask("copy", which, revision)

    def newest(self, which: Database, revision: str) -> str:
        """The last copy from when the tables had this version; "" for none. Raises Failure."""
        return self._ask("newest", which, revision)

    def restore(self, which: Database, revision: str) -> str:
        """Put that copy back, where nobody uses it; where what was there is kept."""
        return self._ask("restore", which, revision)

    def elsewhere(self, which: Database) -> bool:
        """Whether the administrator keeps it on a server of their own: it is theirs to copy."""
        known = settings.parse_env(settings.read(ROOT / ".env"))
        url = os.environ.get(which.url) or known.get(which.url, "")
        ours = f"postgresql+psycopg://labcommons@db/{which.database}"
        return bool(url) and url != ours and not url.startswith("sqlite")

    def _ask(self, action: str, which: Database, last: str) -> str:
        if self.elsewhere(which):
            return ""
        postgres = "postgres" in self.site.profiles
        if postgres:
            words = [*self.compose.words, "exec", "-T", "db", "sh", "-s"]
            script, place = POSTGRES, which.database
        else:
            file = f"/data/{which.file}"
            folder = (self.site.data / which.file).parent
            words = [
                *("docker", "run", "--rm", "--interactive", "--network=none", "--read-only"),
                *("--cap-drop=ALL", f"--volume={folder}:{os.path.dirname(file)}"),
                *("--entrypoint=python3", "labcommons/hub", "-"),
            ]
            script, place = SQLITE, file
        command = [*words, action, place, last]
        try:
            done = subprocess.run(
                command, input=script.read_text("utf-8"), capture_output=True, text=True,
                timeout=TIMEOUT, env={**os.environ, **self.docker.env}, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandFailed(f"{which.title}: {action}: {error}") from error
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or ["no reason was given"]
            raise Failure(
                f"{which.title}: {action}: {said[0]}",
                "make room where it is, see that it answers, and try again",
            )
        answer = done.stdout.strip()
        return str(json.loads(answer)) if answer and not postgres else answer


def made_at(copy: str) -> datetime | None:
    """When a copy was made, as its name says."""
    found = re.search(r"-(\d{8}T\d{6})\.\w+$", copy)
    return datetime.strptime(found[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) if found else None
