"""A whole site out of a backup, where nothing is left of it but the checkout and the key.

The last of these tests by its name: the site that the others share ends here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployment import ROOT, Deployment, copy_checkout

LIMITS = "version: 1\ngroups: {vision: {grp_gpus: 2}}\n"


def command(site: Deployment, *words: str) -> subprocess.CompletedProcess[str]:
    """``bin/labcommons …`` as an administrator types it."""
    return subprocess.run(
        ["bin/labcommons", *words], cwd=site.root, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


def said(site: Deployment, *words: str) -> str:
    done = command(site, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def other(deployment: Deployment, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """The checkout anew, and nothing else."""
    root = ROOT / ".cache" / "e2e-restored"
    shutil.rmtree(root, ignore_errors=True)
    copy_checkout(root)
    # docker compose, where it came from PyPI; else `make up` gets it again.
    if (deployment.root / ".cache" / "bin").is_dir():
        shutil.copytree(deployment.root / ".cache" / "bin", root / ".cache" / "bin")
    site = Deployment(root)
    yield site
    if (root / "data").exists():
        site.down()
    shutil.rmtree(root, ignore_errors=True)
    if request.session.items[-1] is not request.node:
        deployment.up()


def facts(site: Deployment, token: str) -> dict[str, Any]:
    """What people would miss."""
    status, users = site.api("GET", "users", token)
    assert status == 200, users
    return {
        "people": {user["name"]: (user["admin"], sorted(user["groups"])) for user in users},
        "quotas": site.labcommons("quota", "show"),
        "reservations": site.labcommons("reservation", "list"),
        "environments": json.loads(said(site, "env", "list", "--json")),
    }


def test_a_site_is_restored_into_an_empty_folder(
    deployment: Deployment, admin: str, other: Deployment, tmp_path: Path
) -> None:
    deployment.stop_all_servers(admin)
    key = tmp_path / "recovery.key"
    key.write_text(said(deployment, "backup", "init"))
    hub = ("docker", "exec", deployment.container("hub"), "sh", "-c")
    deployment.run(*hub, f"echo '{LIMITS}' | labcommons quota apply -f -")
    alice = deployment.login_once("alice")
    options = {"environment": "py313-data", "size": "small", "gpus": 1}
    deployment.start_server(alice, "alice", options)
    home = deployment.root / "data" / "homes" / "alice"
    (home / "before.txt").write_text("kept")
    (home / "after.txt").unlink(missing_ok=True)  # of an earlier run
    made = json.loads(said(deployment, "backup", "create", "--json"))
    assert made["unread"] == []
    (home / "after.txt").write_text("lost")
    before = facts(deployment, admin)
    assert json.loads(said(deployment, "backup", "verify", "--json"))["moment"] == made["moment"]
    secret = (deployment.root / "data" / "secrets" / "cookie-secret").read_bytes().strip()
    stored = [file.read_bytes() for file in deployment.backups.rglob("*") if file.is_file()]
    assert not any(secret in one for one in stored)

    here = "/services/labcommons/"
    status, page = deployment.api("GET", "files", alice, of=here)
    assert status == 200
    assert "before.txt" in page
    assert "after.txt" not in page
    where = f"files/download?backup={made['snapshot']}&path="
    assert deployment.api("GET", f"{where}before.txt", alice, of=here) == (200, "kept")
    for path in ("after.txt", "../bob/.bashrc", "/etc/passwd"):
        assert deployment.api("GET", f"{where}{path}", alice, of=here)[0] == 404, path

    refused = command(deployment, "backup", "restore", "--key", str(key))
    assert refused.returncode == 1
    assert "runs: a backup is not restored over it" in refused.stderr

    deployment.down()
    deployment.docker("volume", "rm", "--force", "labcommons_db")  # PostgreSQL's, where it is used
    found = json.loads(
        said(other, "backup", "restore", "--key", str(key), "--json").splitlines()[-1]
    )
    assert found["moment"] == made["moment"]
    again = command(other, "backup", "restore", "--key", str(key))
    assert "empty one" in again.stderr
    # As the restore says: what was set stays set, such as where the databases are.
    shutil.copy(other.root / ".env.restored", other.root / ".env")
    other.up()
    # The token of before is known, and so is who may what.
    assert facts(other, admin) == before
    _, user = other.api("GET", "users/alice", admin)
    assert not user["servers"], "her server ran elsewhere"
    assert [lease["state"] for lease in other.leases()] == []
    assert other.login_once("alice")
    home = other.root / "data" / "homes" / "alice"
    assert (home / "before.txt").read_text() == "kept"
    assert not (home / "after.txt").exists()
    assert home.stat().st_uid == (deployment.root / "data" / "homes" / "alice").stat().st_uid
    other.start_server(alice, "alice", options)
    assert other.answers("alice")
    assert said(other, "audit", "verify")
    # And it goes on from there.
    assert json.loads(said(other, "backup", "create", "--json"))["snapshot"]
