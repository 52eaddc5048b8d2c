"""How long locks, installations and builds of environments take.

Beside them, in the same run and in turn: ``python -m venv`` and ``pip install`` of the same
packages. Run by ``make bench`` on a Docker Engine; writes tests/bench/results/environments.md.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(ROOT)]

import docker

from commons.site import Environments
from commons.store import Store
from environments.build import Builder, Places
from environments.install import install
from environments.maker import Locked, Maker
from environments.solve import solve
from environments.spec import EnvironmentSpec, find_environments, parse_spec
from rig import agent
from rig.images import glibc, imported

RUNS = int(os.environ.get("BENCH_RUNS", "9"))
# Kept between runs: filling it fetches some 200 MB.
CACHE = ROOT / ".cache" / "bench" / "environments"
SETTINGS = Environments(offline_channel="always")
DEMO = ROOT / "config" / "environments"
SITE = """\
version: 1
directory: {servers: [ldaps://directory.example.org], users: {base_dn: "dc=example,dc=org"}}
sizes: {small: {cpu: 1, memory: 1G}}
environments: {offline_channel: always}
"""
# About thirty packages with what they need.
SPEC = """\
name: thirty
channels: [conda-forge]
dependencies: [python 3.11.*, ipykernel]
"""


class Bench:
    """Folders, a maker that keeps quiet, and the times."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.maker = Maker(SETTINGS, CACHE / "channel", CACHE / "cache", lambda _: None)
        self.times: dict[str, list[float]] = {}

    def measure(self, name: str, work: Callable[[], object], count: bool) -> None:
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        if count:
            self.times.setdefault(name, []).append(seconds)
        print(f"{name}: {seconds:.2f} s", flush=True)

    def lock_demo(self, locked: dict[str, tuple[EnvironmentSpec, Locked]]) -> None:
        for name, (spec, known) in locked.items():
            solve(spec, known.sources, self.folder / name / "pixi.lock", CACHE / "cache")

    def install(self, spec: EnvironmentSpec, known: Locked, to: str) -> None:
        prefix = self.folder / to
        install(spec, known.lock, known.sources, str(prefix), prefix, CACHE / "cache")

    def make(self, spec: EnvironmentSpec, known: Locked) -> None:
        self.maker.make_prefix(spec, known, self.folder / "made", source="personal")

    def make_cold(self, spec: EnvironmentSpec, known: Locked) -> None:
        """With no package unpacked and no bytecode compiled yet."""
        maker = Maker(SETTINGS, CACHE / "channel", self.folder / "cold", lambda _: None)
        maker.make_prefix(spec, known, self.folder / "made-cold", source="personal")

    def command(self, base: str) -> None:
        """What a person types: a process with all that it imports."""
        variables = {
            key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"
        }
        subprocess.run(
            [
                *(sys.executable, "-m", "hub_ext.cli", "env", "build", "thirty"),
                *("--environments", str(self.folder / "environments")),
                *("--data", str(self.folder / "data"), "--server-image", base),
            ],
            check=True,
            cwd=ROOT,
            env=variables
            | {
                "LABCOMMONS_DATABASE_URL": f"sqlite:///{self.folder}/labcommons.sqlite",
                "LABCOMMONS_SITE_FILE": str(self.folder / "site.yaml"),
                # Compiled in the first run, as everything in our images is.
                "PYTHONPYCACHEPREFIX": str(self.folder / "pycache"),
            },
            stdout=subprocess.DEVNULL,
        )


def fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def venv(folder: Path, requirements: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
    command += ["--cache-dir", str(CACHE / "pip"), "--only-binary", ":all:", *requirements]
    subprocess.run(command, check=True)


def machine(engine: str) -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Docker Engine {engine}, {datetime.now(UTC):%Y-%m-%d}; load before the run "
        f"{os.getloadavg()[0]:.1f}"
    )


def row(name: str, seconds: list[float]) -> str:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"| {name} | {low:.2f} | {middle:.2f} | {high:.2f} |"


def main() -> None:
    client = docker.from_env(timeout=120)
    where = machine(client.version()["Version"])
    CACHE.mkdir(parents=True, exist_ok=True)
    base = imported(client.api, glibc(), uuid.uuid4().hex)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=CACHE) as scratch:
        folder = Path(scratch)
        try:
            text = run(folder, base, where)
        finally:
            for image in client.images.list("labcommons/env-thirty"):
                client.images.remove(image.id, force=True)
            client.images.remove(base, force=True)
    (HERE / "results" / "environments.md").write_text(text, "utf-8")
    print(text)


def run(folder: Path, base: str, where: str) -> str:
    bench = Bench(folder)
    spec = parse_spec(SPEC, name=None)
    known = bench.maker.lock(spec, folder / "thirty.lock")
    demo = {}
    for name in find_environments(DEMO):
        # With a Python that runs on any machine: the newer one wants a newer C library.
        text = (
            (DEMO / name / "environment.yml").read_text().replace("python 3.13.*", "python 3.11.*")
        )
        one = parse_spec(text, name=name)
        demo[name] = (one, bench.maker.lock(one, folder / name / "pixi.lock"))
    # What pip would have to install for the same environment; Python it finds.
    requirements = [
        f"{package.name}=={package.version}"
        for package in known.lock.packages
        if package.name != "python"
    ]
    (folder / "environments" / "thirty").mkdir(parents=True)
    (folder / "environments" / "thirty" / "environment.yml").write_text(SPEC)
    (folder / "site.yaml").write_text(SITE)
    store = Store(f"sqlite:///{folder}/labcommons.sqlite")
    store.migrate()
    data = folder / "data"
    data.mkdir()
    for name in ("channel", "cache"):
        (data / name).symlink_to(CACHE / name)
    places = Places(folder / "environments", data)
    images = agent.images(base, CACHE)
    builder = Builder(SETTINGS, places, store, lambda _: None, base, images)
    builder.build("thirty")
    count = len(known.lock.packages)
    names = {
        "lock": f"lock the {len(demo)} demo environments, warm",
        "install": f"install {count} packages from a warm cache",
        "venv": f"`python -m venv` and `pip install` of the same {len(requirements)}, warm cache",
        "make": "the same installed, compiled, checked, with its bill of materials",
        "cold": "the same with empty caches of packages and bytecode",
        "build": "`env build` with nothing to do, as a call",
        "command": "`labcommons env build` with nothing to do, as a command",
    }
    for number in range(RUNS + 1):  # the first one warms up
        for prefix in ("a", "b", "made", "made-cold", "cold"):
            fresh(folder / prefix)
        bench.measure(names["lock"], lambda: bench.lock_demo(demo), number > 0)
        bench.measure(names["install"], lambda: bench.install(spec, known, "a"), number > 0)
        bench.measure(names["venv"], lambda: venv(folder / "b", requirements), number > 0)
        bench.measure(names["make"], lambda: bench.make(spec, known), number > 0)
        bench.measure(names["cold"], lambda: bench.make_cold(spec, known), number > 0)
        bench.measure(names["build"], lambda: builder.build("thirty"), number > 0)
        bench.measure(names["command"], lambda: bench.command(base), number > 0)
    ours, peer = bench.times[names["install"]], bench.times[names["venv"]]
    ratio = statistics.median(a / b for a, b in zip(ours, peer, strict=True))
    return "\n".join(
        [
            "# Environments",
            "",
            "Seconds, in turn in one run, on the offline channel. The packages are Python's and",
            "ipykernel's needs in the same versions for both; only LabCommons installs a Python",
            "as well (3.11, in the demo environments too). pip compiles what it installs, and",
            "`install` alone does not: the lines below venv's are whole environments.",
            "",
            f"{RUNS} runs each after one to warm up; {where}.",
            "",
            "| | min | median | max |",
            "|---|---|---|---|",
            *(row(name, seconds) for name, seconds in bench.times.items()),
            "",
            f"Ratio install / venv and pip, median of pairs: {ratio:.2f}",
            "",
        ]
    )


if __name__ == "__main__":
    main()
