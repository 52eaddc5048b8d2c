"""Where jobs of builds are laid down: the agent's own folders, which tasks read.

``tasks/KEY`` has job.json and the files beside it, to read; ``private/JOB`` what was fetched with
the site's logins, for the steps of one job; ``snapshots/ID`` what was taken of a home, or is given
back; ``gradings/ID`` what is between the steps of grading by a program.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from spawner.runtime.docker.rules import against_rules
from spawner.runtime.docker.settings import OWNER

_SNAPSHOTS_KEPT = 60 * 86_400  # seconds: longer than anybody tries to lay one down
GRADING = ("run", "book", "ran")  # see grade_task
_KEPT = 2 * 86_400  # seconds: longer than any build may take (builds.timeout), waiting included


class JobFolders:
    """Below ``data/agent``.

    Args:
        data: as this process sees it; ``host``: as the Engine does.
    """

    def __init__(self, data: Path, host: Path) -> None:
        self.data, self.host = data / "agent", host / "agent"

    def lay(self, key: str, files: Mapping[str, str]) -> str:
        """Write a job's files; their folder on the Engine's machine. Raises RuntimeRefused."""
        folder = self.data / "tasks" / _plain(key)
        shutil.rmtree(folder, ignore_errors=True)
        for name, text in files.items():
            parts = [_plain(part) for part in name.split("/")]
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            path.chmod(0o644)
        for here, _, _ in os.walk(folder):
            os.chmod(here, 0o755)  # noqa: S103  (the folder above is shut to others)
        return str(self.host / "tasks" / key)

    def forget(self, key: str, job_id: str = "") -> None:
        """Remove a task's folder, and what was fetched for the job where it is at its end."""
        shutil.rmtree(self.data / "tasks" / _plain(key), ignore_errors=True)
        if job_id:
            shutil.rmtree(self.data / "private" / _plain(job_id), ignore_errors=True)

    def private(self, job_id: str) -> str:
        """The folder of what was fetched for a job, on the Engine's machine; made where missing."""
        folder = self.data / "private" / _plain(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        if os.geteuid() == 0:  # else it is the services' already
            os.chown(folder, OWNER, OWNER)
        return str(self.host / "private" / job_id)

    def make_snapshot(self, name: str) -> str:
        """An empty folder of what is to be taken, on the Engine's machine.

        Whoever takes may write into it: nobody else comes there.
        """
        folder = self.data / "snapshots" / _plain(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        folder.chmod(0o777)  # the folder above is shut to others
        return str(self.host / "snapshots" / name)

    def snapshot(self, name: str) -> str | None:
        """The folder of what was taken, on the Engine's machine; None where there is none."""
        there = (self.data / "snapshots" / _plain(name)).is_dir()
        return str(self.host / "snapshots" / name) if there else None

    def make_grading(self, name: str) -> dict[str, str]:
        """Empty folders of what is handed from one step of a grading to the next, by name, on the
        Engine's machine. Whoever grades may write into them; their folder is nobody's but ours.
        """
        self.drop_grading(name)
        above = self.data / "gradings" / _plain(name)
        for part in GRADING:
            (above / part).mkdir(parents=True)
            (above / part).chmod(0o777)  # the folder above is shut to others
        return {part: str(self.host / "gradings" / name / part) for part in GRADING}

    def lay_outputs(self, name: str, data: bytes) -> None:
        """What was said of a grading's notebooks, for its last step."""
        (self.data / "gradings" / _plain(name) / "ran" / "outputs").write_bytes(data)

    def drop_grading(self, name: str) -> None:
        """Remove what is between the steps."""
        shutil.rmtree(self.data / "gradings" / _plain(name), ignore_errors=True)

    def drop(self, name: str) -> None:
        """Remove what was taken."""
        shutil.rmtree(self.data / "snapshots" / _plain(name), ignore_errors=True)

    def tidy(self, live: set[str]) -> None:
        """Remove what no task needs any more."""
        for path in _listed(self.data / "tasks"):
            if path.name not in live:
                shutil.rmtree(path, ignore_errors=True)
        for path in _listed(self.data / "gradings"):  # who was at them is gone
            shutil.rmtree(path, ignore_errors=True)
        for above, kept in (("private", _KEPT), ("snapshots", _SNAPSHOTS_KEPT)):
            for path in _listed(self.data / above):
                if time.time() - path.stat().st_mtime > kept:
                    shutil.rmtree(path, ignore_errors=True)


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _plain(part: str) -> str:
    if part in ("", ".", "..") or "/" in part or "\0" in part or len(part.encode()) > 255:
        raise against_rules(f"{part[:40]!r} is no file's name")
    return part
