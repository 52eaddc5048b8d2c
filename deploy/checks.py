"""`make test`: what the tests need, then lint, types, floors and tests, one line for each."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from deploy import apt
from deploy.engine import CACHE
from deploy.files import write_atomically
from deploy.settings import ROOT
from deploy.shell import CommandFailed, Failure, output
from deploy.steps import Progress, Step

VENV = ROOT / ".venv"
LOCK = ROOT / "tests" / "requirements.lock"  # made by `make locks`
FIREFOX, _DRIVER = CACHE / "firefox", ROOT / "tests" / "rig" / "firefox"
# More failures in a lane than this are no accident of what ran beside them.
_FEW = 4
_PYTEST: list[str | Path] = [str(VENV / "bin" / "python"), "-m", "pytest", "--durations=20"]
PACKAGES = (
    "age",
    "chromium",
    "docker-registry",
    "docker.io",
    "firefox-esr",
    "fonts-noto-cjk",
    "gcc",
    "git",
    "iproute2",
    "iptables",
    "knot",
    "ldap-utils",
    "lego",
    "libc6-dev",
    "libfaketime",
    "libnss3-tools",
    "mmdebstrap",
    "nginx-light",
    "openssh-server",
    "openssl",
    "pebble",
    "postgresql",
    "procps",
    "rsync",
    "rsyslog",
    "rsyslog-gnutls",
    "python3-venv",
    "slapd",
    "systemd",
    "zstd",
)
# What Debian 13 has in packages of its own, and 12 does not.
IF_OFFERED = ("docker-cli",)


def prepare(progress: Progress) -> None:
    """Install packages and the virtual environment that the tests need."""
    with progress.step("packages for the tests") as step:
        wanted = [*PACKAGES, *(name for name in IF_OFFERED if apt.candidate(name))]
        # Node's own packages have npm in them, and conflict with Debian's.
        wanted += [] if shutil.which("npm") else ["nodejs", "npm"]
        if not apt.missing(wanted):
            step.result = "up to date"
        apt.install(wanted, step, start_services=False)
    with progress.step("Python packages") as step:
        prepare_python(step)
    with progress.step("Firefox for the tests") as step:
        _firefox(step)


def tools() -> None:
    """Only what the tests need."""
    prepare(Progress(3, CACHE / "log"))


def test() -> None:
    """All checks and tests. Raises Failure at the first that fails."""
    if os.geteuid() != 0:
        raise Failure(
            "the tests need root: they run a Docker Engine of their own, in a network of its own",
            "run make test as root",
        )
    progress = Progress(8, CACHE / "log")
    prepare(progress)
    bin_ = VENV / "bin"
    rooms = [
        "commons",
        "courses",
        "environments",
        "hub_ext",
        "jobs",
        "jump",
        "kernels",
        "perimeter",
        "spawner",
    ]
    python_files = [*rooms, "deploy", "tests", "config"]
    checks: tuple[tuple[str, list[str | Path]], ...] = (
        ("lint", [bin_ / "ruff", "check", *python_files]),
        ("format", [bin_ / "ruff", "format", "--check", *python_files]),
        ("types", [bin_ / "mypy"]),
        ("floors", [bin_ / "lint-imports", "--no-cache"]),
    )
    for title, command in checks:
        with progress.step(title) as step:
            step.run(command, timeout=600, cwd=ROOT)
    # pytest shows its own progress, so it gets the terminal.
    print(f"[{progress.total}/{progress.total}] tests", flush=True)
    arguments = os.environ.get("PYTEST_ARGS", "").split()
    if arguments:
        command = [*_in_bed(), *_PYTEST, *arguments]
        failed = subprocess.run(command, cwd=ROOT, check=False).returncode
    else:
        failed = _pytest_in_lanes()
    if failed:
        raise Failure(f"tests failed (exit code {failed})", "see pytest's report above")


@dataclass(frozen=True)
class _Lane:
    """Tests that run one after another, beside those of other lanes.

    Attributes:
        name: in its report's and its cache's names.
        bed: what runs pytest with a Docker Engine of its own; empty: without one.
        chosen: the tests' marks, as pytest takes them.
    """

    name: str
    bed: Sequence[str | Path]
    chosen: str

    @property
    def report(self) -> Path:
        return CACHE / "log" / f"tests-{self.name}.log"

    @property
    def cache(self) -> Path:
        """pytest's own: lanes would take each other's."""
        return CACHE / "pytest" / self.name

    def command(self, *more: str) -> list[str | Path]:
        marks = ["-m", self.chosen, "-o", f"cache_dir={self.cache}"]
        return [*self.bed, *_PYTEST, *marks, *more]

    def failed(self) -> list[str]:
        """Names of the tests that failed in the last run."""
        found = self.cache / "v" / "cache" / "lastfailed"
        return sorted(json.loads(found.read_text())) if found.exists() else []


def _in_bed(*options: str | Path) -> list[str | Path]:
    """What runs a command with a Docker Engine of its own."""
    return [sys.executable, ROOT / "tests" / "rig" / "testbed.py", "exec", *options, "--"]


def _pytest_in_lanes() -> int:
    """All tests, side by side in three rows of lanes; the exit code of one that failed.

    Those that need an Engine, but not the whole deployment, have one of their own, with the images
    that are built for the first; behind them, in it, a second site has the tests that break one,
    while the first has the others. All get the same share of the processor: what gives way to
    others meets its own time-outs.
    """
    second = _in_bed("--data", CACHE / "testbed-2", "--images-of", CACHE / "testbed")
    whole = _Lane("e2e", _in_bed(), "e2e and not breaks")
    beside = (
        (_Lane("docker", second, "docker and not e2e"), _Lane("breaks", second, "breaks")),
        (_Lane("rest", [], "not docker and not e2e"),),
    )
    at_work: dict[str, subprocess.Popen[bytes]] = {}
    ended: dict[str, float] = {}
    stopped, began = Event(), time.monotonic()

    def row(lanes: Sequence[_Lane]) -> list[tuple[_Lane, int]]:
        codes = []
        for lane in lanes:
            if not stopped.is_set():
                with lane.report.open("wb") as file:
                    at_work[lane.name] = process = subprocess.Popen(
                        lane.command("--cache-clear"),
                        cwd=ROOT,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                codes.append((lane, process.wait()))
                ended[lane.name] = time.monotonic()
        return codes

    with ThreadPoolExecutor() as pool:
        try:
            rows = [pool.submit(row, lanes) for lanes in beside]
            done = subprocess.run(whole.command("--cache-clear"), cwd=ROOT, check=False)
            ended[whole.name] = time.monotonic()
            codes = [(whole, done.returncode)]
            for one in rows:
                codes += one.result()
        finally:
            stopped.set()
            for process in at_work.values():
                process.terminate()  # a test bed takes down what it has
    minutes = ", ".join(f"{name} {(at - began) / 60:.0f} min" for name, at in ended.items())
    print(f"lanes ended after: {minutes}", flush=True)
    for lane, _ in codes[1:]:
        print(f"{lane.name} (it ran meanwhile):", flush=True)
        print(lane.report.read_text("utf-8", "replace"), flush=True)
    left = [_alone(lane, code) for lane, code in codes if code]
    return next((code for code in left if code), 0)


def _alone(lane: _Lane, code: int) -> int:
    """Run again, with nothing beside them, the few tests of a lane that failed; the exit code.

    A test that passes alone is at fault all the same, or what it tests: it is named.
    """
    failed = lane.failed()
    if code != 1 or not 0 < len(failed) <= _FEW:
        return code
    print(f"{lane.name}: {len(failed)} failed beside other tests; now alone", flush=True)
    code = subprocess.run(lane.command("--last-failed"), cwd=ROOT, check=False).returncode
    for name in failed:
        if name not in lane.failed():
            print(f"UNSTEADY: {name} failed beside other tests and passed alone", flush=True)
    return code


def prepare_python(step: Step) -> None:
    """Make .venv, unless it was made of this pyproject.toml and this lock by this Python."""
    stamp = VENV / ".made-of"
    project, lock = (path.read_text("utf-8") for path in (ROOT / "pyproject.toml", LOCK))
    inputs = hashlib.sha256(f"{project}{lock}{sys.version}{ROOT}".encode()).hexdigest()
    python = VENV / "bin" / "python"
    if _text(stamp) == inputs and output([python, "-c", "import hub_ext, pytest"]) is not None:
        step.result = "up to date"
        return
    if output([python, "-m", "pip", "--version"]) is None:
        step.run([sys.executable, "-m", "venv", "--clear", VENV], timeout=120)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    try:
        step.run(
            [*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", LOCK],
            timeout=1800,
        )
        # setuptools is in the lock: nothing is fetched for the building.
        step.run([*pip, "--no-index", "--no-build-isolation", "--editable", ROOT], timeout=300)
    except CommandFailed as error:
        error.remedy = "is a package index reachable? PIP_INDEX_URL names another"
        raise
    # nbgrader's pages, which no test uses: whatever server a test starts would load them.
    pages = VENV / "etc" / "jupyter" / "jupyter_server_config.d" / "nbgrader.json"
    pages.unlink(missing_ok=True)
    write_atomically(stamp, inputs, 0o644)


def _firefox(step: Step) -> None:
    """Put what drives the browsers of the hostile tests into .cache, unless it is there."""
    stamp, lock = FIREFOX / ".made-of", _DRIVER / "package-lock.json"
    inputs = hashlib.sha256(lock.read_bytes()).hexdigest()
    if _text(stamp) == inputs:
        step.result = "up to date"
        return
    FIREFOX.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_DRIVER / name, FIREFOX)
    try:
        step.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], timeout=600, cwd=FIREFOX
        )
    except CommandFailed as error:
        error.remedy = "is npm's registry reachable? npm_config_registry names another"
        raise
    write_atomically(stamp, inputs, 0o644)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""
