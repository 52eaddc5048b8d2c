"""A person's server from a terminal: through the service, the proxy and the server, on the site."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from deployment import Deployment, wait_for

from rig.ssh_site import new_key

API = "/services/labcommons/api/v1/"
OPTIONS = {"environment": "py313-data", "size": "small"}
SHOW = (
    "echo $CONDA_DEFAULT_ENV; python -c 'import numpy; print(numpy.__name__)'; umask; "
    "git config user.name; pwd"
)


class Client:
    """OpenSSH's, with what the page says in its two files."""

    def __init__(self, site: Deployment, token: str, folder: Path) -> None:
        self.folder = folder
        line = new_key(folder / "key")
        status, key = site.api("POST", "ssh/keys", token, {"line": f"{line} test"}, of=API)
        assert status == 201, key
        self.key_id = key["id"]
        status, known = site.api("GET", "ssh/client", token, of=API)
        assert status == 200, known
        # The name of the demo is not in every machine's list.
        config = known["config"].replace("HostName lab.localhost", "HostName 127.0.0.1")
        config = config.replace("Port 2222", "Port 2222\n    HostKeyAlias lab.localhost")
        (folder / "known_hosts").write_text(
            known["known_hosts"].replace("[lab.localhost]:2222", "lab.localhost") + "\n"
        )
        more = f"IdentityFile {folder}/key\nIdentitiesOnly yes\nIdentityAgent none\nBatchMode yes\n"
        more += f"UserKnownHostsFile {folder}/known_hosts\nStrictHostKeyChecking yes\n"
        (folder / "config").write_text(f"{config}\nHost *\n{more}")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ssh", "-F", self.folder / "config", *words],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            stdin=subprocess.DEVNULL,
        )


def test_from_a_key_on_the_page_to_a_command_in_ones_server(
    clean: Deployment, admin: str, tmp_path: Path
) -> None:
    alice = clean.login_once("alice")
    client = Client(clean, alice, tmp_path)
    clean.start_server(admin, "alice", OPTIONS)
    done = client.run("alice.main", SHOW)
    assert done.returncode == 0, done.stderr
    environment, numpy, umask, name, home = done.stdout.splitlines()
    assert environment.endswith("py313-data")
    assert (numpy, umask, home) == ("numpy", "0027", "/home/alice")
    assert name
    # Nobody else's, by the same key; nor what else there is.
    for target in ("bob.main:22", "hub-control:8081", "169.254.169.254:80"):
        refused = client.run("-W", target, "labcommons")
        assert refused.returncode == 255
        assert "only your own servers can be reached" in refused.stderr
    # One that does not run is started with the last choice, and says so.
    clean.stop_all_servers(admin)
    done = client.run("alice.main", "echo started")
    assert done.stdout == "started\n", done.stderr
    assert "does not run" in done.stderr
    # Without the key it is over, for what is open as well.
    held = subprocess.Popen(
        ["ssh", "-F", tmp_path / "config", "alice.main", "sleep 600"],
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    time.sleep(3)
    assert held.poll() is None
    assert clean.api("DELETE", f"ssh/keys/{client.key_id}", alice, of=API)[0] == 200
    wait_for(lambda: held.poll() is not None, "the connection to be cut")
    assert held.stderr is not None
    assert "is not on your list any more" in held.stderr.read()
    assert "Permission denied (publickey)" in client.run("alice.main", "id").stderr
    found = clean.labcommons("audit", "show", "--action", "ssh-close")
    assert any(one["labcommons"]["sent"] > 0 for one in found)
