"""`make test-bare`: the two commands of the README, in a container with almost nothing in it.

It has Debian 13, git, make and python3. Whatever a step forgets to install is missing there.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from deploy import base, engine, images
from deploy.engine import CACHE, Engine
from deploy.settings import ROOT
from deploy.shell import Failure
from deploy.steps import Progress

NAME = "labcommons-bare"
TIMEOUT = 7200  # seconds
CAP_SYS_RESOURCE = 24  # capabilities(7)

# The checkout and Docker's data are on a volume: one overlay file system cannot lie on another.
SCRIPT = """\
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q && apt-get install -y -q --no-install-recommends git make python3 >/dev/null
mkdir -p /volume/docker /var/lib/docker && mount --bind /volume/docker /var/lib/docker
git config --global --add safe.directory '*'
git clone -q /source /volume/labcommons
cd /volume/labcommons
run() {
    begin=$(date +%s)
    echo "== make $1"
    make "$1"
    echo "== make $1: $(($(date +%s) - begin)) s"
}
run up
run up
run down
run test
"""


def test_bare() -> None:
    """Clone HEAD into a bare container and run `make up` twice, `make down`, `make test`."""
    progress = Progress(4, CACHE / "log")
    with progress.step("Docker Engine") as step:
        docker = engine.ensure(step)
    with progress.step("Debian 13") as step:
        base.ensure_debian(docker, step)
    base.write_context(CACHE / "base")
    with progress.step(f"building {images.BASE.tag}") as step:
        images.ensure(images.BASE, docker, step)
    print("[4/4] in the container:", flush=True)
    _remove(docker)
    try:
        code = subprocess.run(
            [
                *("docker", "run", "--name", NAME, "--cgroupns=host", *_rights()),
                f"--volume={ROOT}:/source:ro",
                f"--volume={NAME}:/volume",
                *(f"--env={n}" for n in images.PASSED_ON + images.PROXIES if n in os.environ),
                *("labcommons/base", "bash", "-c", SCRIPT),
            ],
            timeout=TIMEOUT,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        raise Failure(f"not done within {TIMEOUT} s") from None
    finally:
        _remove(docker)
    if code:
        raise Failure(f"the bare machine ended with exit code {code}", "see its output above")
    print("From a bare machine to passed tests: all went well.")


def _rights() -> list[str]:
    """What lets a Docker Engine run inside.

    A machine that is itself a container may lack the right to raise limits. It cannot give
    it on then, and --privileged, which asks for it, fails.
    """
    status = Path("/proc/self/status").read_text()
    bounding = int(status.partition("CapBnd:")[2].split()[0], 16)
    if bounding >> CAP_SYS_RESOURCE & 1:
        return ["--privileged"]
    return [
        *("--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--device-cgroup-rule=a *:* rwm"),
        *("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
        *("--security-opt=systempaths=unconfined", "--volume=/sys/fs/cgroup:/sys/fs/cgroup"),
    ]


def _remove(docker: Engine) -> None:
    docker.docker("rm", "--force", "--volumes", NAME, timeout=120)
    docker.docker("volume", "rm", "--force", NAME, timeout=300)
