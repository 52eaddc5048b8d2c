"""Run a benchmark with the hub's own Python and packages, as they are in its image.

    python in_hub.py gpu_policy.py [ARGUMENT …]

What the hub does is measured so, whatever Python the tests have. The code is this checkout's,
compiled once in the container; ``BENCH_…`` and ``PARTS`` are handed on. In a test bed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from rig.images import ours

TIMEOUT = 3600  # seconds


def main(name: str, *arguments: str) -> int:
    """The benchmark's exit code."""
    bench = Path("/src/tests/bench")
    given = [one for one in os.environ if one.startswith("BENCH_") or one == "PARTS"]
    command = [
        *("docker", "run", "--rm", "--network=none", "--user=0:0", "--tmpfs=/tmp"),
        f"--volume={ROOT}:/src:ro",
        f"--volume={ROOT / 'tests/bench/results'}:{bench / 'results'}",
        *(f"--env={one}" for one in ("PYTHONPYCACHEPREFIX=/tmp/compiled", *given)),
        "--entrypoint=/opt/labcommons/hub/bin/python3",
        ours("hub"),
        str(bench / name),
        *arguments,
    ]
    return subprocess.run(command, timeout=TIMEOUT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
