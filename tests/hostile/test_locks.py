"""What a person's server or build has mounted holds no lock that a build of others waits for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from environments.channel import Source
from environments.files import BYTECODE
from environments.install import install
from environments.maker import alone
from environments.solve import solve
from environments.spec import parse_spec
from rig.channel import TinyChannel

# Locks all that it can open below some folders, says how many files it can read, and stays.
LOCK = """
import fcntl, os, sys
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
held, read = [], 0
for root in sys.argv[1:]:
    for folder, folders, files in os.walk(root):
        for name in [".", *files]:
            try:
                held.append(os.open(os.path.join(folder, name), os.O_RDONLY))
                read += name != "."
                fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                pass
print(read, flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs another user's number")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that others can enter, as they can what is mounted for them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_who_locks_all_that_they_can_open_delays_no_installation(place: Path) -> None:
    channel = TinyChannel(place / "tiny")
    channel.add("alpha", "2.0")
    channel.index()
    spec = parse_spec("name: x\nchannels: [tiny]\ndependencies: [alpha]\n", name=None)
    sources = [Source("tiny", "https://tiny.invalid/", str(channel.folder))]
    cache = place / "cache"
    lock = solve(spec, sources, place / "pixi.lock", cache)
    # As a build of before left it.
    (cache / "packages").mkdir()
    for name in (".cache", "alpha-2.0-0"):
        (cache / "packages" / f"{name}.lock").touch(0o644)
    install(spec, lock, sources, "/x", place / "one", cache)

    # What servers and builds of people have mounted, read-only.
    mounted = [str(cache / "packages"), str(cache / BYTECODE), str(channel.folder)]
    with subprocess.Popen(
        [sys.executable, "-I", "-c", LOCK, *mounted],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as stranger:  # fmt: skip
        assert stranger.stdout is not None
        assert int(stranger.stdout.readline()) > 5, "the packages are theirs to read"
        done = threading.Event()

        def again() -> None:
            install(spec, lock, sources, "/x", place / "two", cache)
            done.set()

        threading.Thread(target=again, daemon=True).start()
        try:
            assert done.wait(60), "the installation waits for a stranger's lock"
            with alone(place / "cache" / ".channel.lock"):
                pass
            assert (cache / ".channel.lock").stat().st_mode & 0o077 == 0
        finally:
            stranger.kill()
