"""How long the list of kernels takes, and how much later than a bare ipykernel ours is ready.

Ours beside nb_conda_kernels (whose ``conda info`` is answered by a stub at once, so that only
its own work counts) and beside jupyter_client's LocalProvisioner in the same prefix, in one
run, in turn. Run by ``make bench``; writes tests/bench/results/kernels.md.

nb_conda_kernels is on no index of Python packages: NB_CONDA_KERNELS names a checkout of its
repository; without it its rows are left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import site
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[1]
# This file's folder has a "kernels" of its own: itself.
sys.path[0] = str(TREE)
PEER = os.environ.get("NB_CONDA_KERNELS", "")
RUNS = int(os.environ.get("BENCH_RUNS", "9"))
STARTS = int(os.environ.get("BENCH_STARTS", "15"))
# Conda's records of an environment with numpy, pandas and their like.
RECORDS = 120
IPYKERNEL = {
    "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
    "metadata": {"debugger": True},
    "kernel_protocol_version": "5.5",
}

# Each measurement of a list is a process of its own: first without anything known, then 50 times
# after that, then what it holds in memory.
LIST = """
import gc, json, os, sys, time
which, root, cache = sys.argv[1:4]
def memory():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
if which == "ours":
    from kernels.manager import CondaKernelSpecManager
    source = {"id": "image", "pattern": root + "/*", "label": ""}
    options = {"sources": [source], "kernel_dirs": [], "cache_file": cache}
    forget = lambda manager: None
else:
    from nb_conda_kernels.manager import CondaKernelSpecManager
    options = {"kernel_dirs": [], "ensure_native_kernel": False}
    def forget(manager):  # as after its 60 seconds
        manager._conda_kernels_cache_expiry = None
import asyncio, jupyter_client.manager
before = memory()
began = time.perf_counter()
manager = CondaKernelSpecManager(**options)
count = len(manager.get_all_specs())
first = time.perf_counter() - began
took = []
for _ in range(50):
    forget(manager)
    began = time.perf_counter()
    manager.get_all_specs()
    took.append(time.perf_counter() - began)
    if which == "ours":
        time.sleep(0.002)
took.sort()
used = memory() - before
time.sleep(0.2)  # ours writes its cache
print(json.dumps([count, first * 1e3, took[25] * 1e3, used]))
"""


def put(source: str, target: str) -> None:
    """Records are only names; what is read is a file of its own."""
    if "conda-meta" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def make_prefixes(root: Path, count: int) -> None:
    """Prefixes as conda makes them, as far as a list of kernels looks at them."""
    template = root.parent / "template"
    (template / "conda-meta").mkdir(parents=True)
    (template / "conda-meta/history").touch()
    for index in range(RECORDS):
        (template / f"conda-meta/package{index}-1.{index}.0-h1234567_0.json").touch()
    (template / "conda-meta/python-3.11.9-h1234567_0_cp.json").touch()
    (template / "bin").mkdir()
    (template / "bin/python3.11").write_text("#!/bin/sh\n")
    (template / "bin/python3.11").chmod(0o755)
    (template / "bin/python").symlink_to("python3.11")
    folder = template / "share/jupyter/kernels/python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(IPYKERNEL))
    for logo in ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg"):
        (folder / logo).touch()
    for index in range(count):
        shutil.copytree(template, root / f"py311-lab{index}", symlinks=True, copy_function=put)
    old = time.time() - 3600
    for path in [root, *root.rglob("*")]:
        os.utime(path, (old, old), follow_symlinks=False)
    shutil.rmtree(template)


def stub_conda(folder: Path, root: Path) -> Path:
    """A ``conda`` that answers ``conda info --json`` at once."""
    envs = sorted(str(path) for path in root.iterdir())
    info = {"envs": envs, "conda_prefix": str(root.parent / "base"), "envs_dirs": [str(root)]}
    (folder / "info.json").write_text(json.dumps(info))
    program = folder / "conda"
    program.write_text(f"#!/bin/sh\ncat {folder}/info.json\n")
    program.chmod(0o755)
    return program


def listed(which: str, root: Path, cache: str, conda: Path) -> list[float]:
    path = str(TREE) if which == "ours" else PEER
    done = subprocess.run(
        [sys.executable, "-c", LIST, which, str(root), cache],
        env={**os.environ, "PYTHONPATH": path, "CONDA_EXE": str(conda)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    numbers: list[float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def measure_lists(work: Path) -> list[str]:
    lines = [
        "| environments | | first, ms | after that, ms (median of 50) | memory, MB |",
        "|---|---|---|---|---|",
    ]
    for count in (10, 100, 500):
        folder = work / str(count)
        root = folder / "envs"
        root.mkdir(parents=True)
        make_prefixes(root, count)
        conda = stub_conda(folder, root)
        cache = str(folder / "kernels.json")
        kinds: dict[str, tuple[str, str]] = {
            "LabCommons, nothing known": ("ours", ""),
            "LabCommons, a later server": ("ours", cache),
        }
        if PEER:
            kinds["nb_conda_kernels, `conda info` free of cost"] = ("peer", "")
        results: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
        listed("ours", root, cache, conda)  # writes the cache
        for _ in range(RUNS):
            for kind, (which, file) in kinds.items():
                results[kind].append(listed(which, root, file, conda))
        for kind, runs in results.items():
            assert all(run[0] == count for run in runs), runs
            first, later, used = (sorted(run[i] for run in runs) for i in (1, 2, 3))
            numbers = f"{middle(first)} | {middle(later)} | {statistics.median(used):.1f}"
            lines.append(f"| {count} | {kind} | {numbers} |")
    return lines


def middle(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({values[0]:.1f} - {values[-1]:.1f})"


def live_prefix(work: Path) -> Path:
    """A prefix in which ipykernel runs, borrowed from our own environment."""
    prefix = work / "live/envs/lab"
    venv.create(prefix, symlinks=True, with_pip=False)
    packages = next(prefix.glob("lib/python3*/site-packages"))
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/history").touch()
    folder = prefix / "share/jupyter/kernels/python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(IPYKERNEL))
    return prefix


async def measure_notice(root: Path, spare: Path) -> list[str]:
    """From an environment's arrival in its folder to the event that open pages get."""
    from kernels.list_watcher import watch
    from kernels.manager import CondaKernelSpecManager

    source = {"id": "personal", "pattern": f"{root}/*", "label": ""}
    manager = CondaKernelSpecManager(sources=[source], kernel_dirs=[], cache_file="")
    count = len(os.listdir(root))
    manager.get_all_specs()
    told = asyncio.Event()

    async def changed(_added: list[str], _removed: list[str]) -> None:
        told.set()

    watching = asyncio.create_task(watch(manager, changed))
    took = []
    for turn in range(2 * STARTS):
        await asyncio.sleep(0.37 + 0.013 * turn)  # not in step with the looks
        manager.get_all_specs()
        told.clear()
        began = time.perf_counter()
        here, there = (spare, root / "new") if turn % 2 == 0 else (root / "new", spare)
        here.rename(there)
        await told.wait()
        took.append(time.perf_counter() - began)
    watching.cancel()
    took.sort()
    return [
        f"Among {count} environments, one that comes or goes is told to open pages after "
        f"{statistics.median(took):.2f} s",
        f"({took[0]:.2f} - {took[-1]:.2f} s, {len(took)} times); the list itself has it at once.",
    ]


async def one_start(spec_manager: Any, name: str, transport: str) -> float:
    from jupyter_client.manager import AsyncKernelManager

    began = time.perf_counter()
    kernel = AsyncKernelManager(
        kernel_spec_manager=spec_manager, kernel_name=name, transport=transport
    )
    await kernel.start_kernel(stderr=subprocess.DEVNULL)
    client = kernel.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        return time.perf_counter() - began
    finally:
        client.stop_channels()
        await kernel.shutdown_kernel(now=True)


async def round_trips(spec_manager: Any, name: str, transport: str) -> float:
    """Milliseconds of an empty cell's round trip, median of 300."""
    from jupyter_client.manager import AsyncKernelManager

    kernel = AsyncKernelManager(
        kernel_spec_manager=spec_manager, kernel_name=name, transport=transport
    )
    await kernel.start_kernel(stderr=subprocess.DEVNULL)
    client = kernel.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        took = []
        for _ in range(300):
            began = time.perf_counter()
            await client.execute("", reply=True, timeout=60)
            took.append(time.perf_counter() - began)
        return statistics.median(took) * 1e3
    finally:
        client.stop_channels()
        await kernel.shutdown_kernel(now=True)


async def measure_starts(work: Path) -> list[str]:
    from jupyter_client.kernelspec import KernelSpecManager

    from kernels.manager import CondaKernelSpecManager

    prefix = live_prefix(work)
    bare_folder = work / "bare/lab"
    bare_folder.mkdir(parents=True)
    argv = [f"{prefix}/bin/python", *IPYKERNEL["argv"][1:]]
    (bare_folder / "kernel.json").write_text(json.dumps({**IPYKERNEL, "argv": argv}))
    bare = KernelSpecManager(kernel_dirs=[str(bare_folder.parent)], ensure_native_kernel=False)
    source = {"id": "image", "pattern": f"{prefix.parent}/*", "label": ""}
    ours = CondaKernelSpecManager(sources=[source], kernel_dirs=[], cache_file="")
    scripted = work / "scripted/envs/lab"
    shutil.copytree(prefix, scripted, symlinks=True)
    (scripted / "etc/conda/activate.d").mkdir(parents=True)
    (scripted / "etc/conda/activate.d/a.sh").write_text("export LAB_ROOT=$CONDA_PREFIX\n")
    source = {"id": "image", "pattern": f"{scripted.parent}/*", "label": ""}
    hooked = CondaKernelSpecManager(sources=[source], kernel_dirs=[], cache_file="")
    kinds: dict[str, tuple[Any, str, str]] = {
        "bare ipykernel (LocalProvisioner), tcp": (bare, "lab", "tcp"),
        "LabCommons, tcp": (ours, "conda-image-lab-python3", "tcp"),
        "bare ipykernel (LocalProvisioner), ipc": (bare, "lab", "ipc"),
        "LabCommons, ipc": (ours, "conda-image-lab-python3", "ipc"),
        "LabCommons, ipc, with an activation script": (hooked, "conda-image-lab-python3", "ipc"),
    }
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(STARTS + 1):
        for kind, (manager, name, transport) in kinds.items():
            seconds = await one_start(manager, name, transport)
            if turn:  # the first warms the disk's cache up
                took[kind].append(seconds)
    lines = [
        "| | ready after, ms: median | range | an empty cell, ms |",
        "|---|---|---|---|",
    ]
    for kind, (manager, name, transport) in kinds.items():
        values = sorted(value * 1e3 for value in took[kind])
        trip = await round_trips(manager, name, transport)
        median = statistics.median(values)
        lines.append(f"| {kind} | {median:.0f} | {values[0]:.0f} - {values[-1]:.0f} | {trip:.2f} |")
    later = [
        statistics.median(
            (ours_took - bare_took) * 1e3
            for ours_took, bare_took in zip(took[f"LabCommons, {transport}"], bare_all, strict=True)
        )
        for transport in ("tcp", "ipc")
        for bare_all in [took[f"bare ipykernel (LocalProvisioner), {transport}"]]
    ]
    lines += [
        "",
        f"Ours is ready {later[0]:+.0f} ms (tcp) and {later[1]:+.0f} ms (ipc) after bare",
        "ipykernel, median of pairs.",
    ]
    return lines


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def main() -> None:
    begun = load()
    # Not in /tmp alone: the paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="lcb-", dir="/tmp") as folder:
        work = Path(folder)
        os.environ["JUPYTER_RUNTIME_DIR"] = f"{folder}/rt"
        lists = measure_lists(work)
        root = work / "500/envs"
        (root / "py311-lab0").rename(work / "spare")
        notice = asyncio.run(measure_notice(root, work / "spare"))
        starts = asyncio.run(measure_starts(work))
    machine = (
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"jupyter_client {version('jupyter_client')}, ipykernel {version('ipykernel')}, "
        f"{datetime.now(UTC).date()}; load {begun} at the start, {load()} at the end"
    )
    text = "\n".join(
        [
            "# The list of kernels, and their start",
            "",
            "`get_all_specs` of environments with 120 packages and one kernel each, each run in a",
            f"process of its own, in turn, {RUNS} runs: median (range). *After that* looks at",
            "the disk each time; nb_conda_kernels does so once in 60 s, then after a `conda info`",
            "that here costs nothing.",
            f"{machine}.",
            "",
            *lists,
            "",
            *notice,
            "",
            "From the choice of a kernel until it has answered, in one prefix, in turn,",
            f"{STARTS} starts each.",
            "",
            *starts,
            "",
        ]
    )
    (HERE / "results/kernels.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
