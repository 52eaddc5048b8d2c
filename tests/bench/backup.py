"""A backup of 10 GB of homes, then a second one with one file in a hundred changed; beside it, what
labs write by hand: tar and zstd of the same folders.

Run by ``make bench``; writes tests/bench/results/backup.md. BACKUP_GB=10 says how much.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from rig.backup_box import Box
from rig.images import ours

RESULTS = Path(__file__).parent / "results" / "backup.md"
GB = float(os.environ.get("BACKUP_GB", "10"))
PEOPLE, EACH, CHANGED = 100, 100, 0.01
LIMIT = 3600.0  # seconds


def fill(homes: Path) -> list[Path]:
    """Files of 0.2 to 2 times the mean, of which half can be compressed."""
    dice = random.Random(7)
    mean = GB * 2**30 / PEOPLE / EACH
    files = []
    for person in range(PEOPLE):
        (homes / f"p{person}").mkdir(parents=True)
        for number in range(EACH):
            size = int(mean * dice.uniform(0.2, 1.8))
            file = homes / f"p{person}" / f"{number}.dat"
            file.write_bytes(dice.randbytes(size // 2) + b"0.12345 " * (size // 16))
            files.append(file)
    return files


def change(files: list[Path]) -> None:
    """One in a hundred is written anew."""
    dice = random.Random(time.time())
    for file in dice.sample(files, int(len(files) * CHANGED)):
        file.write_bytes(dice.randbytes(file.stat().st_size))


def created(box: Box) -> tuple[float, dict[str, int]]:
    """Seconds with the container's start, and what it said."""
    began = time.monotonic()
    made = json.loads(box.good("create", "--json", timeout=LIMIT))
    return time.monotonic() - began, made


def packed(box: Box, file: Path) -> float:
    """Seconds of the hand-made one."""
    began = time.monotonic()
    with file.open("wb") as out:
        tar = subprocess.Popen(["tar", "-C", box.data, "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(["zstd", "-q", "-T0"], stdin=tar.stdout, stdout=out, check=True)
        tar.wait()
    return time.monotonic() - began


def main() -> None:
    """Measure, and write it down."""
    ours("hub")
    image = ours("backup")
    with tempfile.TemporaryDirectory(dir=os.environ.get("BACKUP_DIR")) as folder:
        box = Box(Path(folder), image)
        files = fill(box.data / "homes")
        size = sum(file.stat().st_size for file in files)
        box.key()
        rows = []
        first, made = created(box)
        rows.append(("LabCommons, first", first, made["added"]))
        change(files)
        second, made = created(box)
        rows.append(("LabCommons, 1 % changed", second, made["added"]))
        began = time.monotonic()
        box.good("verify", timeout=LIMIT)
        verified = time.monotonic() - began
        by_hand = Path(folder) / "by-hand.tar.zst"
        rows.append(("tar and zstd, each time", packed(box, by_hand), by_hand.stat().st_size))
        by_hand.unlink()
        shutil.rmtree(box.data / "homes")
        other = Path(folder) / "restored"
        other.mkdir()
        began = time.monotonic()
        box.good("restore", "--key", "/keys/key", data=other, timeout=LIMIT)
        restored = time.monotonic() - began
        assert sum(1 for one in (other / "homes").rglob("*.dat")) == len(files)
    lines = [
        "# Backups",
        "",
        f"{len(files)} files, {size / 2**30:.1f} GiB in {PEOPLE} homes; on one disk.",
        "Seconds include the start of the container; after each run old snapshots are taken away.",
        "",
        f"{date.today()}: {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}.",
        "",
        "| | seconds | written, GiB |",
        "|---|---|---|",
        *(f"| {name} | {seconds:.1f} | {added / 2**30:.2f} |" for name, seconds, added in rows),
        f"| LabCommons, verify | {verified:.1f} | |",
        f"| LabCommons, restore of all | {restored:.1f} | {size / 2**30:.2f} |",
    ]
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
