"""The repository: restic's, with its words made ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from commons.site.backup import Backup, Keep
from hub_ext.backup.places import SITE_ID, TARGET, Room
from hub_ext.backup.trouble import BackupError

TAG = "labcommons"
FIRST = 90.0  # seconds until a target that does not answer, or not well, is told
SHORT = 300.0  # seconds for what only reads a little
LONG = 24 * 3600.0  # seconds for a whole backup, or its way back
RETRY = "2m"  # for a lock of another's
SOME_UNREAD, NO_REPOSITORY, WRONG_PASSWORD = 3, 10, 12  # restic's exit codes
# What a file of logins may set: nothing that would change which program runs.
_LOGIN = re.compile(r"(?:AWS|RESTIC_REST|B2|AZURE|GOOGLE|OS|ST)_[A-Z0-9_]+")
CHUNK = 256 * 1024  # bytes
Nodes = list[dict[str, Any]]  # as restic lists files and folders
_RETRY = re.compile(r"^\S+ returned error, retrying after [^:]+: ")
_SSH = "subprocess ssh: "  # before what ssh says on stderr
_MAX_LINE = 2**20  # characters of one line of restic's
_REMEDIES = (
    (("no space left", "disk quota exceeded", "disk full"),
     "the target is full: give it room, or keep fewer (backup.keep), then run labcommons backup "
     "create again; what it holds is not damaged"),
    (("connection refused", "no route to host", "i/o timeout", "no such host", "timed out",
      "did not answer"),
     "see that the target runs and can be reached from this machine"),
    (("bucket does not exist",), "make it, or run labcommons backup init, which does"),
    (("permission denied", "access denied", "403"),
     "see the login in data/backup and who may write there"),
    (("host key verification",),
     "put the target's key into data/backup/ssh/known_hosts (ssh-keyscan HOST)"),
)  # fmt: skip

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Snapshot:
    """One backup. ``size``: bytes that a restore writes; ``added``: what the repository grew by."""

    id: str
    time: datetime
    size: int
    added: int
    paths: tuple[str, ...]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Snapshot:
        """From restic's JSON."""
        summary = row.get("summary") or {}
        return cls(
            str(row["id"]),
            # Nanoseconds are more than Python reads.
            datetime.fromisoformat(re.sub(r"\.\d+", "", row["time"])),
            int(summary.get("total_bytes_processed", 0)),
            int(summary.get("data_added_packed", summary.get("data_added", 0))),
            tuple(row.get("paths", ())),
        )


class Repository:
    """Where the snapshots are.

    Args:
        settings: of the site file; its target is a folder at TARGET here.
        room: with the password and logins.
        password: instead of the one in ``room``: of a recovery key. Then nothing is written.
    """

    def __init__(self, settings: Backup, room: Room, password: str = "") -> None:
        if not settings.target:
            raise BackupError(
                "the site has no place for backups",
                "set backup.target in the site file, run make up, then labcommons backup init",
            )
        self.target, self._room = settings.target, room
        self._env = {
            "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
            "HOME": "/nonexistent",
            **{name: os.environ[name] for name in ("SSL_CERT_FILE", "https_proxy", "HTTPS_PROXY",
               "no_proxy", "NO_PROXY") if name in os.environ},
            "RESTIC_REPOSITORY": str(TARGET) if settings.is_folder else settings.target,
            "RESTIC_CACHE_DIR": str(room.folder / "cache"),
            "RESTIC_PROGRESS_FPS": "2",
            **_logins(room.folder / "environment"),
        }  # fmt: skip
        if password:
            self._env["RESTIC_PASSWORD"] = password
        else:
            self._env["RESTIC_PASSWORD_FILE"] = str(room.password)
        self._options = ["--no-lock"] if password else ["--retry-lock", RETRY]
        if settings.target.startswith("sftp:"):
            ssh = room.folder / "ssh"
            self._options += [
                "-o",
                f"sftp.args=-i {ssh / 'id'} -o UserKnownHostsFile={ssh / 'known_hosts'} "
                "-o StrictHostKeyChecking=yes -o BatchMode=yes -o ConnectTimeout=20 "
                "-o ServerAliveInterval=15 -o ServerAliveCountMax=4",
            ]

    def init(self) -> None:
        """Make it, and its bucket, where there is none. Raises BackupError, also where the one that
        is there does not open.
        """
        done = self._call("init", limit=FIRST)
        there = ("already exists", "already initialized")  # as the kind of target has it
        if done.returncode and not any(one in done.stderr + done.stdout for one in there):
            raise self._error(done.returncode, done.stderr)
        if done.returncode:
            self._plain("cat", "config", limit=FIRST)

    def unlock(self) -> None:
        """Take away what a killed one has left; under the site's own lock: nobody else writes."""
        self._plain("unlock", "--remove-all")

    def back_up(
        self, paths: Sequence[Path], excluded: Sequence[str], at: datetime, told: Progress
    ) -> tuple[dict[str, Any], list[str]]:
        """restic's summary, and what it could not read."""
        words = [
            "backup", "--tag", TAG, "--host", SITE_ID, "--exclude-caches",
            "--time", at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            *(f"--exclude={one}" for one in excluded), *map(str, paths),
        ]  # fmt: skip
        summary: dict[str, Any] = {}
        unread: list[str] = []
        for row in self._follow(words, (0, SOME_UNREAD)):
            if row.get("message_type") == "summary":
                summary = row
            elif row.get("message_type") == "error":
                unread.append(str(row.get("item", "")))
            elif row.get("message_type") == "status":
                told(row)
        return summary, unread

    def snapshots(self) -> list[Snapshot]:
        """The newest first."""
        rows = json.loads(self._plain("snapshots", "--tag", TAG, "--json") or "[]")
        return sorted(map(Snapshot.of, rows or ()), key=lambda one: one.time, reverse=True)

    def find(self, name: str) -> Snapshot:
        """By the beginning of its id, or ``latest``. Raises BackupError."""
        known = self.snapshots()
        found = [one for one in known if name == "latest" or one.id.startswith(name)]
        if not found or (len(found) > 1 and name != "latest"):
            raise BackupError(
                f"there is no backup {name!r}" if known else "there is no backup yet",
                "see labcommons backup list" if known else "run labcommons backup create",
            )
        return found[0]

    def restore(self, snapshot: str, target: Path, told: Progress) -> None:
        """Lay down a snapshot with owners and times."""
        for row in self._follow(["restore", snapshot, "--target", str(target)], (0,)):
            if row.get("message_type") == "status":
                told(row)

    def list(self, snapshot: str, folder: str) -> Nodes:
        """What is in one folder of a snapshot, as restic's nodes; not in folders below it."""
        return [row for row in self.nodes(snapshot, folder) if row.get("path") != folder]

    def nodes(self, snapshot: str, *folders: str) -> Nodes:
        """These folders and what is in each."""
        said = self._plain("ls", "--json", snapshot, *folders)
        rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        return [row for row in rows if row.get("struct_type") == "node"]

    def dump(self, snapshot: str, path: str) -> Generator[bytes]:
        """A file's bytes, piece by piece; a folder's as a zip. Raises BackupError, later too."""
        words = ["restic", "--quiet", *self._options, "dump", "--archive", "zip", snapshot, path]
        with subprocess.Popen(
            words, env=self._env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout
            assert process.stderr
            try:
                while chunk := process.stdout.read(CHUNK):
                    yield chunk
                said = process.stderr.read(_MAX_LINE).decode("utf-8", "replace")
                if code := process.wait():
                    raise self._error(code, said)
            finally:
                process.kill()

    def forget(self, keep: Keep) -> int:
        """Take away what the site does not keep; how many snapshots went."""
        said = self._plain(
            "forget", "--json", "--tag", TAG, "--host", SITE_ID, "--group-by", "host",
            *(f"--keep-{kind}={count}" for kind, count in keep.model_dump().items() if count),
            "--prune", limit=LONG,
        )  # fmt: skip
        rows: list[Any] = next(
            (json.loads(line) for line in said.splitlines() if line.startswith("[")), []
        )
        return sum(len(row.get("remove") or ()) for row in rows)

    def check(self, share: str) -> None:
        """Raise BackupError where the repository is damaged; reads so much of the data itself."""
        words = ["check", *([f"--read-data-subset={share}"] if share else [])]
        self._plain(*words, limit=LONG)

    def _plain(self, *words: str, limit: float = SHORT) -> str:
        done = self._call(*words, limit=limit)
        if done.returncode:
            raise self._error(done.returncode, done.stderr or done.stdout)
        return done.stdout

    def _call(self, *words: str, limit: float = SHORT) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["restic", "--quiet", *self._options, *words], env=self._env, text=True,
                stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            # restic tries again and again, and says each time why.
            said = error.stderr or ""
            said = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
            raise self._error(1, said or f"it did not answer within {limit:g} s") from error

    def _follow(self, words: Sequence[str], good: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The lines of one of restic's commands, as they come."""
        with subprocess.Popen(
            ["restic", "--json", *self._options, *words], env=self._env, text=True,
            errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout
            assert process.stderr
            said: deque[str] = deque(maxlen=20)
            reader = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
            reader.start()
            clock = threading.Timer(LONG, process.kill)
            clock.start()
            try:
                while line := process.stdout.readline(_MAX_LINE):
                    if line.startswith("{") and isinstance(row := json.loads(line), dict):
                        yield row
                code = process.wait()
            finally:
                clock.cancel()
                process.kill()
            reader.join(5)
            if code not in good:
                raise self._error(code, "".join(said))

    def _error(self, code: int, said: str) -> BackupError:
        if code == WRONG_PASSWORD:
            return BackupError(
                f"{self.target} does not open with this password",
                "it is another site's, or of before the present key: point backup.target elsewhere",
            )
        if code == NO_REPOSITORY:
            return BackupError(
                f"there is no repository at {self.target}", "run labcommons backup init"
            )
        text = _words(said)
        low = text.lower()
        remedy = next((one for signs, one in _REMEDIES if any(s in low for s in signs)), "")
        return BackupError(f"{self.target}: {text}", remedy)


def _words(said: str) -> str:
    """restic's last complaint, in JSON one of its fields; or the last one of the ssh that it runs,
    which knows better than "unexpected EOF".
    """
    lines = said.strip().splitlines() or ["no reason was given"]
    lines = [line.removeprefix(_SSH) for line in lines if line.startswith(_SSH)] or lines
    lines = [_RETRY.sub("", line) for line in lines]
    for line in reversed(lines):
        if line.startswith("{"):
            row = json.loads(line)
            error = row.get("error") if isinstance(row.get("error"), dict) else row
            if found := error.get("message"):
                return str(found)[:500]
        elif line.strip():
            return line.strip()[:500]
    return lines[-1][:500]


def _logins(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in lines if line.strip() and not line.startswith("#"))
    found = {name.strip(): value.strip() for name, _, value in pairs}
    if wrong := sorted(name for name in found if not _LOGIN.fullmatch(name)):
        raise BackupError(f"{file}: {', '.join(wrong)[:200]} is no login of a target", "remove it")
    return found
