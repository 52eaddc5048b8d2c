"""The folders under data/ and the secrets in them.

Runs as root in a container (`python3 datadir.py /data 990`), so that owners can be set by
whoever may use Docker; imports nothing of this package for that reason.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

# Folder -> mode. homes and kernels are entered by users' servers, tls by whoever needs ca.crt.
FOLDERS = {
    "cache": 0o755,
    "channel": 0o755,
    "homes": 0o755,
    "hub": 0o700,
    "store": 0o700,
    "kernels": 0o755,
    # Logins of package channels, put there by an administrator: only builders see them.
    "logins": 0o700,
    "locks": 0o755,
    "secrets": 0o700,
    "tls": 0o755,
}
# The hub wants its cookie secret and its crypt key as 32 bytes in hex; the others are opaque.
SECRETS = (
    "console-token",
    "cookie-secret",
    "crypt-key",
    "directory-password",
    "kernels-token",
    "postgres-password",
    "proxy-token",
)


def prepare(data: Path, owner: int) -> list[str]:
    """Make what is missing, mend owners and modes, and return the names of new secrets.

    A secret that is there is never replaced. Raises ValueError for an empty one.
    """
    for name, mode in FOLDERS.items():
        folder = data / name
        folder.mkdir(parents=True, exist_ok=True)
        _own(folder, owner, mode)
    vault = data / "secrets"
    for leftover in vault.glob(".new-*"):
        leftover.unlink(missing_ok=True)
    made = [name for name in SECRETS if _make_secret(vault / name)]
    # What PostgreSQL's clients read; it only repeats the secret before it.
    password = (vault / "postgres-password").read_text("ascii").strip()
    _make_secret(vault / "pgpass", f"db:5432:*:labcommons:{password}\n")
    for name in (*SECRETS, "pgpass"):
        if (vault / name).stat().st_size == 0:
            raise ValueError(f"secret {name} is empty: delete the file to have a new one made")
        _own(vault / name, owner, 0o600)
    return made


def _make_secret(path: Path, text: str = "") -> bool:
    """Write a new secret unless there is one. A link, unlike a rename, never replaces."""
    if path.exists():
        return False
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text or secrets.token_hex(32))
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(name, path)
            return True
        return False
    finally:
        os.unlink(name)


def _own(path: Path, owner: int, mode: int) -> None:
    # Not through a link: the folders are writable by a service that is less than root.
    if path.is_symlink():
        raise ValueError(f"{path} is a link: put a real file or folder there")
    status = path.stat()
    if (status.st_uid, status.st_gid) != (owner, owner):
        os.chown(path, owner, owner, follow_symlinks=False)
    if status.st_mode & 0o7777 != mode:
        path.chmod(mode)


if __name__ == "__main__":
    try:
        new = prepare(Path(sys.argv[1]), int(sys.argv[2]))
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    print("\n".join(new))
