"""The site's mirror: an install, again with the upstream cut, and forty who ask for one package.

A channel of PACKAGES packages of SIZE MB each, an upstream on this machine that takes PAUSE seconds
for each answer, real nginx with its configuration, and py-rattler as client, each time with an
empty cache of its own.

Run by ``make bench``; writes tests/bench/results/mirror.md.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[0] = str(HERE.parent)
sys.path.insert(0, str(ROOT))

from commons.site import Site
from rig.channel import TinyChannel
from rig.nginx_mirror import local_mirror, mirrored
from rig.upstream import upstream

PACKAGES = int(os.environ.get("BENCH_PACKAGES", "60"))
SIZE = int(os.environ.get("BENCH_SIZE", "1"))
PAUSE = float(os.environ.get("BENCH_PAUSE", "0.05"))
CLIENTS = 40
LARGE = 64  # MB
SITE = {
    "version": 1,
    "directory": {"servers": ["ldaps://l"], "users": {"base_dn": "dc=example,dc=org"}},
    "sizes": {"small": {"cpu": 1, "memory": "1G", "default": True}},
}
CODE = """
import asyncio, os, sys, time
from rattler import Channel, Gateway, install, solve
async def main(channel, folder):
    began = time.monotonic()
    records = await solve(sources=[Channel(channel)], specs=["all"], platforms=["noarch"],
                          gateway=Gateway(cache_dir=folder + "/gateway"))
    await install(records, target_prefix=folder + "/prefix", cache_dir=folder + "/packages")
    print(time.monotonic() - began, flush=True)
asyncio.run(main(*sys.argv[1:]))
os._exit(0)
"""


def install(channel: str) -> float:
    """Seconds of one install, with nothing in a cache of the client's."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", CODE, channel, folder],
            capture_output=True,
            text=True,
            check=True,
        )
        return float(done.stdout)


def channel(folder: Path) -> None:
    """PACKAGES that do not compress, one that needs them all, and a large one."""
    lab = TinyChannel(folder / "lab")
    for number in range(PACKAGES):
        data = hashlib.shake_256(str(number).encode()).digest(SIZE * 2**20)
        lab.add(f"p{number}", files={f"share/p{number}": data})
    lab.add("all", depends=tuple(f"p{number}" for number in range(PACKAGES)))
    lab.add("large", files={"share/large": hashlib.shake_256(b"l").digest(LARGE * 2**20)})
    lab.index()


def main() -> None:
    """Measure, print, and write the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        channel(folder / "upstream")
        with upstream(folder / "upstream") as there:
            there.pause = PAUSE
            site = mirrored(Site.model_validate(SITE), there)
            direct = install(f"{there.url}/lab")
            with local_mirror(site, folder / "data") as mirror:
                there.asked.clear()
                began = time.monotonic()
                with ThreadPoolExecutor(CLIENTS) as pool:
                    path = "/conda/lab/noarch/large-1.0-0.conda"
                    sizes = set(pool.map(lambda _: len(mirror.get(path).body), range(CLIENTS)))
                forty = time.monotonic() - began
                fetches = there.asked["/lab/noarch/large-1.0-0.conda"]
                assert len(sizes) == 1
                first = install(f"{mirror.url}/conda/lab")
                there.cut()
                second = min(install(f"{mirror.url}/conda/lab") for _ in range(3))
    rows = [
        ("direct from the upstream", f"{direct:.2f}", "1.00"),
        ("through the mirror, which has nothing yet", f"{first:.2f}", f"{first / direct:.2f}"),
        ("again, with the upstream cut", f"{second:.2f}", f"{second / direct:.2f}"),
    ]
    text = (
        f"""\
# The site's mirror

{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {PACKAGES} \
packages of {SIZE} MB, an upstream on the same machine that takes {PAUSE:g} s for each answer; \
py-rattler with an empty cache.

| install | seconds | to direct |
|---|---|---|
"""
        + "".join(f"| {what} | {seconds} | {ratio} |\n" for what, seconds, ratio in rows)
        + f"""
| {CLIENTS} clients that ask at once for one package of {LARGE} MB that the mirror does not have | |
|---|---|
| fetches from the upstream | {fetches} |
| seconds until all have it | {forty:.2f} |
"""
    )
    (HERE / "results" / "mirror.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
