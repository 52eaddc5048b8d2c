"""What people type in a terminal out of habit, in a server as anybody gets it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from deployment import ROOT, Deployment

# What is typed, and what has to be in the answer.
TYPED = (
    ("whoami", "alice"),
    ("echo ~alice", "/home/alice"),
    ("python3 -c 'import os, pwd; print(pwd.getpwuid(os.getuid()).pw_dir)'", "/home/alice"),
    ("python3 -c 'from pathlib import Path; print(Path.home().owner())'", "alice"),
    ("id -Gn", "vision"),
    ("getent passwd bob || echo nobody else", "nobody else"),
    ("git config user.name", "Alice"),
    ("git config user.email", "alice@"),
    (
        "cd $(mktemp -d) && git init -q && git commit -q --allow-empty -m x && git log",
        "Author: Alice",
    ),
    ("ssh -V 2>&1", "OpenSSH"),
    ("ssh -G git@host | head -1", "host"),
    *((f"{tool} --version 2>&1 | head -1", tool) for tool in ("curl", "nano", "rsync", "Make")),
    *((f"command -v {tool}", f"/{tool}") for tool in ("wget", "unzip", "zip", "vim", "vi", "make")),
    ("tmux -V", "tmux"),
    ("TERM=xterm git var GIT_EDITOR", "editor"),
)


def test_habits_of_the_first_hour_work(clean: Deployment, admin: str) -> None:
    """Kind: tools and facts that tutorials take for granted."""
    clean.login_once("alice")
    clean.start_server(admin, "alice", {"environment": "py313-data"})
    [server] = clean.containers("alice")
    wrong = []
    for typed, wanted in TYPED:
        said = clean.docker("exec", server, "bash", "-c", typed.replace("Make", "make"))
        if wanted not in said:
            wrong.append(f"{typed}: {said.strip()[-300:]!r}, not {wanted!r}")
    assert not wrong, "\n".join(wrong)
    # What cannot work here is not offered.
    token = "Authorization: token $JUPYTERHUB_API_TOKEN"
    ask = f'curl -s -H "{token}" localhost:8888/user/alice/api/nbconvert'
    exporters = set(json.loads(clean.docker("exec", server, "bash", "-c", ask)))
    assert {"html", "latex", "notebook"} <= exporters
    assert not {"pdf", "webpdf", "qtpdf", "qtpng"} & exporters
    # What it never uses it does not import: told by another that is started beside it.
    python = "/opt/labcommons/server/bin/python"
    imported = set(clean.docker("exec", server, python, "-I", "-c", IMPORTED).split())
    assert {"jupyterhub", "tornado"} <= imported
    assert not {"sqlalchemy", "aiohttp", "requests", "httpx", "arrow"} & imported


IMPORTED = """
import os, re, subprocess, sys
url = os.environ["JUPYTERHUB_SERVICE_URL"].replace(":8888", ":8889")
words = ["-I", "-X", "importtime", sys.prefix + "/bin/labcommons-server"]
server = subprocess.Popen(
    [sys.executable, *words], env=os.environ | {"JUPYTERHUB_SERVICE_URL": url},
    stderr=subprocess.PIPE, text=True,
)
for line in server.stderr:
    if found := re.match(r"import time: .*[|] +([a-z_0-9]+)", line):
        print(found[1])
    elif "is running at" in line:
        break
server.kill()
"""


def test_the_doctor_asks_the_agent_which_engine_there_is(deployment: Deployment) -> None:
    done = subprocess.run(
        ["bin/labcommons", "env", "doctor", "--json"],
        cwd=deployment.root, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    [found] = [one for one in json.loads(done.stdout) if one["what"] == "Engine"]
    version = deployment.docker("version", "-f", "{{.Server.Version}}").strip()
    assert version in found["message"]
    assert (found["level"] == "warn") is (int(version.partition(".")[0]) < 28)


# A JupyterHub of tomorrow: what changes in it, and what of that is told.
NEXT = {
    "one more name": (
        "log.py",
        "from .metrics import prometheus_log_method",
        "from .metrics import TOTAL_USERS, prometheus_log_method",
        "imported, and need not be",
    ),
    "another use of the client": (
        "services/auth.py",
        "await r.text()",
        "await r.text(errors='strict')",
        "a good token",
    ),
}


@pytest.mark.parametrize("change", NEXT)
def test_a_jupyterhub_that_the_launcher_does_not_fit_stops_the_images_build(
    deployment: Deployment, tmp_path: Path, change: str
) -> None:
    name, old, new, told = NEXT[change]
    inside = f"/opt/labcommons/server/lib/python3.13/site-packages/jupyterhub/{name}"
    folder, _, file = inside.rpartition("/")
    compiled = f"{folder}/__pycache__/{file.removesuffix('.py')}.cpython-313.pyc"
    run = ("run", "--rm", "--network", "none", "--tmpfs", "/tmp")
    text = deployment.docker(*run, "labcommons/server", "cat", inside)
    assert old in text
    (tmp_path / "changed").write_text(text.replace(old, new))
    (tmp_path / "nothing").touch()
    mounts = [
        word
        for here, there in (
            (ROOT / "config/images/server/launch", "/launch"),
            (tmp_path / "changed", inside),
            (tmp_path / "nothing", compiled),
        )
        for word in ("-v", f"{here}:{there}:ro")
    ]
    words = ("/opt/labcommons/server/bin/python", "/launch/compare.py")
    done = subprocess.run(
        ["docker", *run, *mounts, "labcommons/server", *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert told in done.stderr
