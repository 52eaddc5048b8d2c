"""A target on another machine: OpenSSH's own server, asked by the image's restic."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rig.acme import free_ports, wait_for
from rig.backup_box import Box
from rig.images import ours

pytestmark = pytest.mark.docker


def key(file: Path) -> str:
    """A new key without a passphrase; its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    return file.with_suffix(".pub").read_text()


@contextmanager
def sftp_server(folder: Path, address: str) -> Iterator[int]:
    """One that lets in who has the key ``id`` of the folder; its port."""
    key(folder / "host")
    (folder / "authorized").write_text(key(folder / "id"))
    port = free_ports(1)[0]
    Path("/run/sshd").mkdir(exist_ok=True)
    Path("/run/sshd").chmod(0o755)  # whatever the umask is here
    options = (
        f"ListenAddress={address}:{port}", f"HostKey={folder / 'host'}", "UsePAM=no",
        f"AuthorizedKeysFile={folder / 'authorized'}", "StrictModes=no", "PidFile=none",
        "PasswordAuthentication=no", "Subsystem=sftp internal-sftp",
    )  # fmt: skip
    words = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *(f"-o{one}" for one in options)]
    with (folder / "sshd.log").open("wb") as log, subprocess.Popen(words, stderr=log) as server:
        try:
            wait_for(address, port)
            yield port
        finally:
            server.terminate()


def test_a_site_goes_to_another_machine_by_sftp_and_comes_back(tmp_path: Path) -> None:
    ours("hub")
    image = ours("backup")
    inspect = ["docker", "network", "inspect", "bridge"]
    bridge = json.loads(subprocess.run(inspect, capture_output=True, check=True).stdout)
    address = bridge[0]["IPAM"]["Config"][0]["Gateway"]
    there = tmp_path / "there"
    there.mkdir()
    with sftp_server(there, address) as port:
        box = Box(tmp_path, image, f"sftp://root@{address}:{port}/{there}/repository")
        login = box.data / "backup" / "ssh"
        login.mkdir()
        (login / "id").write_bytes((there / "id").read_bytes())
        (login / "id").chmod(0o600)
        # Nobody is believed whose key is not known.
        (login / "known_hosts").touch()
        refused = box.run("init")
        assert refused.returncode == 1
        assert "put the target's key into data/backup/ssh/known_hosts" in refused.stderr
        host = (there / "host.pub").read_text()
        (login / "known_hosts").write_text(f"[{address}]:{port} {host}")
        box.key()
        (box.data / "homes" / "alice" / "mine").write_text("x")
        made = json.loads(box.good("create", "--json"))
        assert made["unread"] == []
        box.good("verify")
        assert (there / "repository" / "config").exists()
        other = tmp_path / "other"
        (other / "backup").mkdir(parents=True)
        login.rename(other / "backup" / "ssh")
        box.good("restore", "--key", "/keys/key", data=other)
        assert (other / "homes" / "alice" / "mine").read_text() == "x"
    away = box.run("list", data=other)
    assert away.returncode == 1
    assert "see that the target runs and can be reached" in away.stderr
