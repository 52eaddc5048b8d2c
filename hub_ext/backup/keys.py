"""The repository's password, and the recovery key, which alone opens the site's secrets."""

from __future__ import annotations

import os
import secrets
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO

from hub_ext.backup.databases import last_line
from hub_ext.backup.places import Room
from hub_ext.backup.trouble import BackupError

LIMIT = 300.0  # seconds for age
MAX_KEY = 64 * 1024  # bytes of a recovery key
_PASSWORD, _IDENTITY, _TARGET = "repository-password", "age-identity", "target"


@dataclass(frozen=True)
class RecoveryKey:
    """What a restore on a new machine needs: the file that an administrator keeps elsewhere."""

    password: str
    identity: str
    target: str

    def text(self, site: str) -> str:
        """As it is kept."""
        return (
            f"# Recovery key of the LabCommons site {site}, made {datetime.now(UTC):%Y-%m-%d}.\n"
            "# Keep it away from the site and from its backups: it opens everything in them.\n"
            "# On a new machine: labcommons backup restore --key THIS-FILE\n"
            f"{_TARGET}: {self.target}\n"
            f"{_PASSWORD}: {self.password}\n"
            f"{_IDENTITY}: {self.identity}\n"
        )

    @classmethod
    def read(cls, file: Path) -> RecoveryKey:
        """Raises BackupError for anything else."""
        try:
            with file.open("rb") as opened:
                text = opened.read(MAX_KEY).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BackupError(f"the recovery key {file} cannot be read: {error}") from error
        lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
        found = {name.strip(): value.strip() for name, colon, value in lines if colon}
        if not found.get(_PASSWORD) or not found.get(_IDENTITY, "").startswith("AGE-SECRET-KEY-"):
            raise BackupError(
                f"{file} is no recovery key",
                "it is what “labcommons backup init” printed: four lines of words and values",
            )
        return cls(found[_PASSWORD], found[_IDENTITY], found.get(_TARGET, ""))


def make(room: Room, target: str) -> RecoveryKey:
    """A new password and a new key; the password and the key's public half stay in ``room``.

    Raises BackupError where there are some already.
    """
    if room.password.exists():
        raise BackupError(
            f"{room.password} is there already",
            "backups go on with it; without its recovery key, remove it and point backup.target at "
            "another place: what is in the present one needs the present key",
        )
    made = _age(["age-keygen"])
    identity = next(line for line in made.splitlines() if line.startswith("AGE-SECRET-KEY-"))
    recipient = _age(["age-keygen", "-y"], identity).strip()
    key = RecoveryKey(secrets.token_hex(32), identity, target)
    write_room(room, key.password, recipient)
    return key


def write_room(room: Room, password: str, recipient: str) -> None:
    """The public half first: a password alone would look like both."""
    for file, text in ((room.recipient, recipient), (room.password, password)):
        descriptor, name = tempfile.mkstemp(dir=room.folder, prefix=".new-")
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(text + "\n")
            opened.flush()
            os.fsync(descriptor)
        os.replace(name, file)


def recipient_of(identity: str) -> str:
    """The public half of a key. Raises BackupError."""
    return _age(["age-keygen", "-y"], identity).strip()


def seal(data: Path, names: Iterable[str], more: Iterable[Path], room: Room, target: Path) -> None:
    """Write files below ``data``, and ``more`` of the checkout, where only the key opens them."""
    with target.open("wb") as out:
        process = subprocess.Popen(
            ["age", "--encrypt", "--recipients-file", str(room.recipient)],
            stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin
        try:
            with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
                for name in names:
                    if (data / name).exists():
                        archive.add(data / name, f"data/{name}")
                for file in more:
                    archive.add(file, f"checkout/{file.name}")
        except BrokenPipeError:
            pass  # age says why
        _, said = process.communicate(timeout=LIMIT)
    if process.returncode:
        raise BackupError(f"age: {last_line(said.decode('utf-8', 'replace'))}")


def unseal(sealed: Path, identity: str, target: Path) -> None:
    """Lay down what ``seal`` has written, with its owners. Raises BackupError."""
    with tempfile.NamedTemporaryFile("w", encoding="ascii") as key:
        key.write(identity + "\n")
        key.flush()
        with tempfile.TemporaryFile(dir=target) as clear:
            done = subprocess.run(
                ["age", "--decrypt", "--identity", key.name, str(sealed)],
                stdin=subprocess.DEVNULL, stdout=clear, stderr=subprocess.PIPE,
                timeout=LIMIT, check=False,
            )  # fmt: skip
            if done.returncode:
                said = last_line(done.stderr.decode("utf-8", "replace"))
                raise BackupError(
                    f"the secrets cannot be opened: {said}",
                    "this is the recovery key of another site, or of before “backup init”",
                )
            clear.seek(0)
            _extract(clear, target)


def _extract(clear: IO[bytes], target: Path) -> None:
    with tarfile.open(fileobj=clear, mode="r|") as archive:
        for member in archive:
            if PurePosixPath(member.name).parts[:1] not in (("data",), ("checkout",)):
                raise BackupError(f"{member.name!r} does not belong into the secrets")
            archive.extract(member, target, numeric_owner=True, filter="tar")


def _age(words: list[str], given: str | None = None) -> str:
    done = subprocess.run(
        words, input=given or "", capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if done.returncode:
        raise BackupError(f"{words[0]}: {last_line(done.stderr)}")
    return done.stdout
