"""A channel of 5,000 packages: one more is uploaded, and one is withdrawn.

Beside it, what py-rattler's index_fs alone takes for the same folder as it is by default, and
without the compressed index that it writes.

Run by ``make bench``; writes tests/bench/results/channel.md.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]


from commons.site import Channels, Environments
from environments.channels import child
from environments.channels.shelf import Kept, Shelf, now
from rig.packages import conda, index, member

NAMES = int(os.environ.get("BENCH_NAMES", "1000"))
VERSIONS, RUNS = 5, 5
CHECKED = "checked (in a process of its own)"
ADDED = "taken on: indexed, and seen by all"


def package(folder: Path, name: str, version: str) -> Path:
    about = index(name, version, noarch="python", depends=["python >=3.9", "numpy"])
    return conda(folder / f"{name}-{version}-0.conda", about, [member(f"site-packages/{name}.py")])


def seeded(data: Path, made: Path) -> Shelf:
    """A channel with all packages, by one change."""
    one = Shelf(data, "site", child.index, Channels())
    notes, more = {}, {}
    for number in range(NAMES):
        for version in range(VERSIONS):
            path = package(made, f"lab-{number}", f"1.{version}")
            about = ("noarch", f"lab-{number}", f"1.{version}", "0")
            kept = Kept(path.name, *about, f"{number:064x}", path.stat().st_size, "bench", now())
            notes[kept.path], more[kept.path] = kept, path
    with one._alone():
        one._change(notes, more)
    return one


def timed(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def indexed(folder: Path, compressed: bool) -> None:
    """By index_fs alone, in a process of its own."""
    code = (
        "import asyncio, os, sys; from rattler.index import index_fs; "
        f"asyncio.run(index_fs(sys.argv[1], write_zst={compressed})); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def main() -> None:
    load = os.getloadavg()[0]
    rows: dict[str, list[float]] = {}

    def note(what: str, work: Callable[[], object]) -> None:
        rows.setdefault(what, []).append(timed(work))

    with tempfile.TemporaryDirectory(dir=HERE.parents[1]) as scratch:
        data, made = Path(scratch, "data"), Path(scratch, "made")
        one = seeded(data, made)
        channels, settings = Channels(), Environments()
        for run in range(RUNS):
            new = package(made, "new", f"2.{run}")
            found = child.check(new, new.name, channels, settings)
            note(CHECKED, partial(child.check, new, new.name, channels, settings))
            note(ADDED, partial(one.add, new, new.name, found, "bench"))
            note("withdrawn", partial(one.yank, f"noarch/{new.name}", "bench", "bench"))
        document = json.loads((one.folder / "current/noarch/repodata.json").read_bytes())
        assert len(document["packages.conda"]) == NAMES * VERSIONS, len(document["packages.conda"])
        sizes = {
            name: (one.folder / "current/noarch" / name).stat().st_size // 1024
            for name in ("repodata.json", "repodata.json.zst")
        }
        alone = Path(scratch, "alone")
        for run in range(RUNS):
            for compressed in (True, False):
                shutil.rmtree(alone, ignore_errors=True)
                shutil.copytree(one.folder / "current", alone, copy_function=os.link)
                before = alone / "noarch/repodata.json"
                before.unlink()
                shutil.copyfile(one.folder / "current/noarch/repodata.json", before)
                os.link(package(made, "alone", f"{run}"), alone / f"noarch/alone-{run}-0.conda")
                what = "as it is by default" if compressed else "without repodata.json.zst"
                note(f"index_fs alone, {what}", partial(indexed, alone, compressed))
    text = (
        f"# A channel of {NAMES * VERSIONS:,} packages, one more\n\n"
        f"{platform.platform()}, {os.cpu_count()} cores, load average {load:.1f} at the beginning, "
        f"{os.getloadavg()[0]:.1f} at the end. Seconds, {RUNS} times each. repodata.json has "
        f"{sizes['repodata.json']} kB, repodata.json.zst {sizes['repodata.json.zst']}.\n\n"
        "| | median | longest |\n|---|---|---|\n"
    )
    for what, taken in rows.items():
        text += f"| {what} | {statistics.median(taken):.2f} | {max(taken):.2f} |\n"
    print(text)
    if "BENCH_NAMES" not in os.environ:
        (HERE / "results" / "channel.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
