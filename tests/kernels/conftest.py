"""Environments to test with: hand-made prefixes, and one in which a kernel really runs."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

IPYKERNEL = {
    "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
    "metadata": {"debugger": True},
    "kernel_protocol_version": "5.5",
}

MakePrefix = Callable[..., Path]


def write_kernel(prefix: Path, document: Any = IPYKERNEL, own_name: str = "python3") -> Path:
    """A kernel.json in a prefix; bytes are written as they are."""
    folder = prefix / "share/jupyter/kernels" / own_name
    folder.mkdir(parents=True, exist_ok=True)
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    (folder / "kernel.json").write_bytes(raw)
    return folder


def write_program(prefix: Path, name: str = "python") -> Path:
    program = prefix / "bin" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    return program


def write_notes(prefix: Path, text: str) -> None:
    """What whoever built the environment says of it."""
    (prefix / "conda-meta/labcommons").mkdir()
    (prefix / "conda-meta/labcommons/version.json").write_text(text)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def roots() -> Iterator[Path]:
    """A folder that other users may enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory(prefix="labcommons-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def make_prefix(roots: Path) -> MakePrefix:
    """Make a conda prefix ``<root>/<name>`` with a program and a kernel that is never run."""

    def make(
        name: str, root: str = "envs", python: str = "3.13.5", kernel: Any = IPYKERNEL
    ) -> Path:
        prefix = roots / root / name
        (prefix / "conda-meta").mkdir(parents=True)
        (prefix / "conda-meta/history").touch()
        (prefix / f"conda-meta/python-{python}-h1234567_0_cp.json").touch()
        write_program(prefix)
        if kernel is not None:
            write_kernel(prefix, kernel)
        return prefix

    return make


@pytest.fixture(scope="session")
def live_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix in which kernels run: a virtual environment with conda's marks on it.

    It borrows ipykernel from the environment of the tests through a .pth file.
    """
    prefix = tmp_path_factory.mktemp("live") / "envs" / "lab-env"
    venv.create(prefix, symlinks=True, with_pip=False)
    packages = next(prefix.glob("lib/python3*/site-packages"))
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    version = ".".join(map(str, sys.version_info[:3]))
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/history").touch()
    (prefix / f"conda-meta/python-{version}-h1234567_0_cp.json").touch()
    write_kernel(prefix)
    return prefix


def age(folder: Path, seconds: float = 3600) -> None:
    """Make everything below a folder older than a file system's clock can be wrong about."""
    then = time.time() - seconds
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then), follow_symlinks=False)


class Mount:
    """A file system of its own in a folder, which can go and come back with what is in it."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder, self._image = folder, image
        folder.mkdir(parents=True, exist_ok=True)
        image.mkdir()

    def mount(self, *options: str) -> None:
        """Mount it; ``ro``, say, is an option."""
        _do("mount", "--bind", str(self._image), str(self.folder))
        if options:
            _do("mount", "-o", ",".join(("remount", "bind", *options)), str(self.folder))

    def unmount(self) -> None:
        _do("umount", str(self.folder))


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[Path], Mount]]:
    """``mounted(folder)``: a real file system there, or the test is skipped."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        _do("mount", "-t", "tmpfs", "labcommons-test", str(disk))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system may be mounted here: {getattr(error, 'stderr', error)}")
    made: list[Mount] = []

    def make(folder: Path) -> Mount:
        mount = Mount(folder, disk / str(len(made)))
        made.append(mount)
        mount.mount()
        return mount

    yield make
    for mount in made:
        subprocess.run(["umount", str(mount.folder)], capture_output=True, check=False)
    _do("umount", str(disk))


@pytest.fixture
def as_nobody() -> Callable[[], AbstractContextManager[None]]:
    """Act with the rights of a person who is not root, as far as files are concerned."""

    @contextmanager
    def act() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return act
