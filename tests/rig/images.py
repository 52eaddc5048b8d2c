"""Images of ours, built as `make up` builds them, and small ones: what an environment needs of the
server image, and no more.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from deploy.base import DEBIAN
from deploy.images import BASE, IMAGES

ROOT = Path(__file__).resolve().parents[2]
BUILD = """
import fcntl, sys
from deploy import base, engine, images
from deploy.engine import CACHE
from deploy.steps import Progress
docker = engine.find()
wanted = [images.BASE, *(image for image in images.IMAGES if image.name in sys.argv[1:])]
progress = Progress(len(wanted) + 1, CACHE / "log" / "tests")
def alone(name):
    lock = (CACHE / f"building-{name}").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock
with alone("debian"), progress.step("Debian") as step:
    base.ensure_debian(docker, step)
    base.write_context(CACHE / "base")
for image in wanted:
    with alone(image.name), progress.step(image.tag) as step:
        images.ensure(image, docker, step)
"""
OURS = "import sys; from rig.images import ours; ours(*sys.argv[1:])"
GLIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1")


@cache
def ours(*names: str) -> str:
    """The tag of the first of some images of ours, which are there afterwards.

    They are built in the Engine that LABCOMMONS_IMAGES_AT names, if any, and copied from there.
    """
    tags = [f"labcommons/{name}" for name in names]
    there = os.environ.get("LABCOMMONS_IMAGES_AT", "")
    if there and _answers(there):
        _build(names, there)
        # With what they begin with: without these names here, `make up` would build all of it anew.
        saved = [*tags, BASE.tag, DEBIAN]
        save = subprocess.Popen(["docker", "-H", there, "save", *saved], stdout=subprocess.PIPE)
        with save:
            subprocess.run(["docker", "load", "-q"], stdin=save.stdout, check=True, timeout=1800)
        assert save.returncode == 0
    else:
        _build(names, os.environ.get("DOCKER_HOST", ""))
    return tags[0]


def _build(names: Sequence[str], engine: str) -> None:
    """What is up to date costs a second."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, *names],
        cwd=ROOT,
        env={**os.environ, "DOCKER_HOST": engine} if engine else None,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def _answers(engine: str) -> bool:
    """Whether it does, or comes to: both are started at once."""
    deadline = time.monotonic() + 60
    while subprocess.run(["docker", "-H", engine, "info"], capture_output=True).returncode:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


@contextmanager
def built_beside(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """All images of a site, built while tests run; `ours` waits for one that is being built."""
    log.parent.mkdir(parents=True, exist_ok=True)
    code = OURS if os.environ.get("LABCOMMONS_IMAGES_AT") else BUILD
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *(image.name for image in IMAGES)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def imported(engine: Any, files: dict[str, tuple[bytes, int]], tag: str) -> str:
    """An image of nothing but some files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    engine.import_image_from_data(
        buffer.getvalue(),
        repository="lc-tests-base",
        tag=tag,
        changes=['ENTRYPOINT ["/start"]', 'CMD ["server"]', "ENV SERVER=1", "WORKDIR /opt"],
    )
    return f"lc-tests-base:{tag}"


def glibc() -> dict[str, tuple[bytes, int]]:
    """This machine's C library: all that Debian's Python needs of an image."""
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True)
    paths = {
        match[1]: match[2]
        for match in re.finditer(r"(\S+) \(libc6,x86-64[^)]*\) => (\S+)", cache.stdout)
    }
    files = {f"lib/x86_64-linux-gnu/{name}": paths[name] for name in GLIBC if name in paths}
    files["lib64/ld-linux-x86-64.so.2"] = "/lib64/ld-linux-x86-64.so.2"
    return {name: (Path(path).read_bytes(), 0o755) for name, path in files.items()}
