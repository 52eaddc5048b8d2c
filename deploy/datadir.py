"""The folders under data/ and the secrets in them.

Runs as root in a container (`python3 datadir.py /data 990`), so that owners can be set by
whoever may use Docker; imports nothing of this package for that reason.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

# Folder -> mode. Users' servers see homes, teams, courses, shared, kernels and the packages in
# cache, each only what is mounted; tls is entered by whoever needs ca.crt.
FOLDERS = {
    # What gets a certificate by ACME: the account, secrets that an administrator puts there; and
    # what was got, which the service certificates reads.
    "acme": 0o700,
    "acme/issued": 0o700,
    # What the agent lays down for tasks, and the certificates of who may ask it.
    "agent": 0o700,
    "agent-tls": 0o755,
    # OSV documents that an administrator puts there, for builders to read.
    "advisories": 0o755,
    # Of courses, when their term is over: signed, and written by a task of the agent's.
    "archives": 0o700,
    # The audit trail: each writer sees its own chain.
    "audit": 0o755,
    "audit/audit": 0o700,
    "audit/before": 0o700,
    "audit/command": 0o700,
    "audit/console": 0o700,
    "audit/hub": 0o700,
    "audit/kernels": 0o700,
    "audit/targets": 0o700,
    # The repository's password, logins of its target, and what a backup is made of meanwhile.
    "backup": 0o700,
    # In its place where the target is no folder of this machine.
    "backup/none": 0o700,
    "builds": 0o750,
    "cache": 0o755,
    "cache/bytecode": 0o755,
    "channel": 0o755,
    # The site's own channels of packages: a team's is nobody else's.
    "channels": 0o700,
    "courses": 0o755,
    # What our services know of their own state, for doctor: nothing secret.
    "health": 0o755,
    "homes": 0o755,
    "hub": 0o700,
    "jobs": 0o750,
    "store": 0o700,
    "kernels": 0o755,
    # The mirror's: what it keeps, and the sockets between its two parts.
    "mirror": 0o700,
    "mirror/cache": 0o700,
    "mirror/images": 0o700,
    "mirror/run": 0o700,
    # Logins of package channels, put there by an administrator: only builders see them.
    "logins": 0o700,
    "locks": 0o755,
    "logs": 0o755,
    "secrets": 0o700,
    "shared": 0o755,
    # Tokens and certificates of where the audit trail is sent to, put there by an administrator.
    "shipping": 0o700,
    # What everybody may know of the site's authority for SSH; its key is a secret.
    "ssh": 0o755,
    # The public half of the key that images are signed with; its private half is a secret.
    "signing": 0o755,
    "teams": 0o755,
    "tls": 0o755,
    # What nginx has of it: certificate and key in one file.
    "tls/served": 0o700,
    "versions": 0o755,
}
# The hub wants its cookie secret and its crypt key as 32 bytes in hex; the others are opaque.
SECRETS = (
    # Signs the audit trail's checkpoints: an Ed25519 key, as its 32 bytes.
    "audit-key",
    "backup-token",
    "console-token",
    "cookie-secret",
    "crypt-key",
    "directory-password",
    "kernels-token",
    # Servers' containers are named by it, so that no name tells whose it is.
    "names-key",
    "postgres-password",
    "proxy-token",
    # Signs receipts of hand-ins, as the audit-key does the trail.
    "receipt-key",
    # Signs what images of environments were made of, as the audit-key does the trail.
    "signing-key",
    # Of the service ssh: its authority and its own host key, each Ed25519 as its 32 bytes.
    "ssh-authority-key",
    "ssh-host-key",
    "ssh-token",
)
# What this machine's builders need to know (proxies, package indexes), for the hub: an address
# may have a password in it, so it is a secret, too. Written anew each time.
BUILD_ENVIRONMENT = "build-environment"
BUILD_SETTINGS = "LABCOMMONS_BUILD_SETTINGS"
NOT_PROXIED = "mirror,mirror-control"


def prepare(data: Path, owner: int) -> list[str]:
    """Make what is missing, mend owners and modes, and return the names of new secrets.

    A secret that is there is never replaced. Raises ValueError for an empty one.
    """
    for name, mode in FOLDERS.items():
        folder = data / name
        folder.mkdir(parents=True, exist_ok=True)
        _own(folder, owner, mode)
    _move_trails(data, owner)
    vault = data / "secrets"
    for leftover in vault.glob(".new-*"):
        leftover.unlink(missing_ok=True)
    made = [name for name in SECRETS if _make_secret(vault / name)]
    # What PostgreSQL's clients read; it only repeats the secret before it.
    password = (vault / "postgres-password").read_text("ascii").strip()
    _make_secret(vault / "pgpass", f"db:5432:*:labcommons:{password}\n")
    _replace(vault / BUILD_ENVIRONMENT, json.dumps(_build_settings()))
    for name in (*SECRETS, "pgpass", BUILD_ENVIRONMENT):
        if (vault / name).stat().st_size == 0:
            raise ValueError(f"secret {name} is empty: delete the file to have a new one made")
        _own(vault / name, owner, 0o600)
    return made


def _move_trails(data: Path, owner: int) -> None:
    """What was written before there were chains is kept beside them."""
    for writer, former in (("hub", "hub/audit.jsonl"), ("command", "logs/audit.jsonl")):
        old = data / former
        if old.is_symlink() or not old.is_file():
            continue
        number = 1
        while (new := data / "audit" / "before" / f"{writer}-{number}.jsonl").exists():
            number += 1
        old.rename(new)
        _own(new, owner, 0o600)


def _build_settings() -> dict[str, str]:
    """The variables whose names are listed in BUILD_SETTINGS, as far as there are such."""
    names = os.environ.get(BUILD_SETTINGS, "").split()
    found = {name: os.environ[name] for name in names if os.environ.get(name)}
    if any(name.lower() in ("http_proxy", "https_proxy") for name in found):
        # The site's own services are not behind the machine's proxy.
        for name in ("no_proxy", "NO_PROXY"):
            known = found.get(name) or found.get(name.swapcase(), "")
            found[name] = ",".join(filter(None, (known, NOT_PROXIED)))
    return found


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(name, path)


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
