"""What goes wrong in the middle: a clear word, nothing half-made, and the next try heals."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commons.site import Environments
from environments.channel import canonical_url
from environments.errors import BuildError, ChannelError
from environments.install import remove
from environments.maker import Maker
from environments.progress import Progress
from environments.spec import EnvironmentSpec
from environments.stamp import read_stamp
from rig.channel import TinyChannel
from rig.web import web

WriteSpec = Callable[..., EnvironmentSpec]
KERNEL = json.dumps({"argv": ["R", "--args", "{connection_file}"], "language": "R"}).encode()


@pytest.fixture
def r_channel(tmp_path: Path) -> TinyChannel:
    """What an R environment is made of: no Python anywhere."""
    tiny = TinyChannel(tmp_path / "r")
    tiny.add(
        "r-base", "4.4.1", files={"bin/R": b"#!/bin/sh\necho R\n", "lib/R/big": b"x" * 3_000_000}
    )
    files = {"share/jupyter/kernels/ir/kernel.json": KERNEL}
    tiny.add("r-irkernel", "1.3.2", depends=("r-base",), files=files)
    for number in range(20):
        tiny.add(f"r-part{number}", files={f"lib/R/part{number}": os.urandom(100_000)})
    return tiny.index()


PARTS = tuple(f"r-part{number}" for number in range(20))


def maker(tmp_path: Path, report: Any = lambda _: None, **settings: Any) -> Maker:
    return Maker(Environments(**settings), tmp_path / "none", tmp_path / "cache", report)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_an_environment_without_python_is_as_good_as_any(
    write_spec: WriteSpec, r_channel: TinyChannel, tmp_path: Path
) -> None:
    spec = write_spec("r-irkernel", channels=str(r_channel.folder), name="stats")
    made_by = maker(tmp_path)
    prefix = tmp_path / "envs" / "v1"
    made = made_by.make_prefix(
        spec, made_by.lock(spec, tmp_path / "pixi.lock"), prefix, source="shared"
    )
    assert made.staged.python is None
    assert list(made.staged.kernelspecs) == ["ir"]
    assert subprocess.run([prefix / "bin/R"], capture_output=True, check=True).stdout == b"R\n"
    stamp = read_stamp(prefix)
    assert stamp is not None
    assert stamp.python is None


def test_a_kernel_whose_program_is_not_there_is_refused(
    write_spec: WriteSpec, tmp_path: Path
) -> None:
    tiny = TinyChannel(tmp_path / "broken")
    tiny.add("r-irkernel", files={"share/jupyter/kernels/ir/kernel.json": KERNEL})
    spec = write_spec("r-irkernel", channels=str(tiny.index().folder))
    made_by = maker(tmp_path)
    locked = made_by.lock(spec, tmp_path / "pixi.lock")
    with pytest.raises(BuildError, match="the kernel ir starts 'R', which is not in"):
        made_by.make_prefix(spec, locked, tmp_path / "envs/v1", source="shared")
    assert files(tmp_path / "envs") == {".v1.lock"}


# Killed --------------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from commons.site import Environments
from environments.maker import Maker
from environments.spec import load_spec
folder, until, spec = Path(sys.argv[1]), int(sys.argv[2]), load_spec(Path(sys.argv[3]))
def report(progress):
    print(progress.step, progress.percent, flush=True)
    if until and progress.step == until:
        time.sleep(60)  # to be killed here
maker = Maker(Environments(), folder / "none", folder / "cache", report)
locked = maker.lock(spec, folder / "pixi.lock")
maker.make_prefix(spec, locked, folder / "envs" / "v1", source="shared")
"""


def child(tmp_path: Path, spec: EnvironmentSpec, until: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), str(until), str(spec.folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_killed_at_any_step_nothing_is_offered_and_the_next_try_heals(
    write_spec: WriteSpec, r_channel: TinyChannel, tmp_path: Path, step: int
) -> None:
    spec = write_spec("r-irkernel", *PARTS, channels=str(r_channel.folder), name="stats")
    process = child(tmp_path, spec, step)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"{step} "):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    prefix = tmp_path / "envs" / "v1"
    assert not prefix.exists()
    made_by = maker(tmp_path)
    made_by.make_prefix(spec, made_by.lock(spec, tmp_path / "pixi.lock"), prefix, source="shared")
    assert files(prefix.parent) == {".v1.lock", "v1"}
    assert (prefix / "lib/R/part19").stat().st_size == 100_000


def test_killed_in_the_middle_of_an_installation_the_next_try_heals(
    write_spec: WriteSpec, r_channel: TinyChannel, tmp_path: Path
) -> None:
    spec = write_spec("r-irkernel", *PARTS, channels=str(r_channel.folder), name="stats")
    prefix = tmp_path / "envs" / "v1"
    process = child(tmp_path, spec, 0)
    staging = prefix.with_name(".making-v1")
    while not (staging / "conda-meta").is_dir() and process.poll() is None:
        threading.Event().wait(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    made_by = maker(tmp_path)
    made_by.make_prefix(spec, made_by.lock(spec, tmp_path / "pixi.lock"), prefix, source="shared")
    assert len(list((prefix / "lib/R").glob("part*"))) == 20


def test_what_a_killed_process_had_at_work_ends_with_it(
    write_spec: WriteSpec, r_channel: TinyChannel, tmp_path: Path
) -> None:
    """A child that outlives its parent writes into what the next try has taken over.

    The kind: any process that we start to write into a folder that is being made.
    """
    spec = write_spec("r-irkernel", *PARTS, channels=str(r_channel.folder), name="stats")
    process = child(tmp_path, spec, 0)
    children: list[int] = []
    while not (children := _children(process.pid)) and process.poll() is None:
        threading.Event().wait(0.005)
    ends = os.pidfd_open(children[0])
    os.kill(process.pid, signal.SIGKILL)
    assert select.select([ends], [], [], 10)[0], "it went on"


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def test_a_folder_that_grows_while_it_is_removed_is_removed_in_the_end(tmp_path: Path) -> None:
    """A process that was killed may be in its last write; a folder of somebody else is said."""
    folder = tmp_path / "growing"
    program = """
import os, sys, time
folder, end = sys.argv[1], time.monotonic() + 0.5
while time.monotonic() < end:
    os.makedirs(f"{folder}/{time.monotonic_ns()}/a/b", exist_ok=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", program, str(folder)])
    while not folder.exists():
        threading.Event().wait(0.005)
    while writer.poll() is None:
        remove(folder)
    remove(folder)
    assert not folder.exists()


def test_two_makers_of_one_prefix_wait_for_each_other(
    write_spec: WriteSpec, r_channel: TinyChannel, tmp_path: Path
) -> None:
    spec = write_spec("r-irkernel", *PARTS, channels=str(r_channel.folder), name="stats")
    # One lock, as two requests for the same build have.
    maker(tmp_path).lock(spec, tmp_path / "pixi.lock")
    both = [child(tmp_path, spec, 0), child(tmp_path, spec, 0)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    installed = [words for words in said if "\n3 " in words]
    assert len(installed) == 1, "one makes it, the other finds it"
    assert files(tmp_path / "envs") == {".v1.lock", "v1"}


# The network and the disk ----------------------------------------------------------------------


def test_a_channel_that_goes_down_in_mid_download_leaves_nothing_and_heals(
    write_spec: WriteSpec, r_channel: TinyChannel, tmp_path: Path
) -> None:
    spec = write_spec("r-irkernel", channels="lab", name="stats")
    prefix = tmp_path / "envs" / "v1"
    with web(r_channel.folder, fails_after=1000) as url:
        made_by = maker(tmp_path, mirrors={"lab": [url]})
        locked = made_by.lock(spec, tmp_path / "pixi.lock")
        with pytest.raises(BuildError, match="the packages cannot be installed"):
            made_by.make_prefix(spec, locked, prefix, source="shared")
    assert files(prefix.parent) == {".v1.lock"}
    with web(r_channel.folder) as url:
        made_by = maker(tmp_path, mirrors={"lab": [url]})
        locked = made_by.lock(spec, tmp_path / "pixi.lock")
        assert locked.lock.channels == (canonical_url("lab"),)
        made_by.make_prefix(spec, locked, prefix, source="shared")
    assert (prefix / "conda-meta/history").is_file()


@pytest.mark.parametrize("kind", ["token", "password"])
def test_a_private_channel_is_asked_with_its_login_and_nobody_else_learns_it(
    write_spec: WriteSpec, r_channel: TinyChannel, tmp_path: Path, kind: str
) -> None:
    secret = "s3cret-of-the-channel"
    (tmp_path / "secret").write_text(f"{secret}\n")
    file = str(tmp_path / "secret")
    credential = {"token_file": file}
    login = f"Bearer {secret}"
    if kind == "password":
        credential = {"username": "lab", "password_file": file}
        login = "Basic " + b64encode(f"lab:{secret}".encode()).decode()
    spec = write_spec("r-irkernel", channels="lab", name="stats")
    said: list[Progress] = []
    with web(r_channel.folder, login=login) as url:
        host = url.removeprefix("http://")
        with pytest.raises(ChannelError, match=r"401; set environments\.credentials"):
            maker(tmp_path, mirrors={"lab": [url]}).lock(spec, tmp_path / "pixi.lock")
        made_by = maker(
            tmp_path, said.append, mirrors={"lab": [url]}, credentials={host: credential}
        )
        locked = made_by.lock(spec, tmp_path / "pixi.lock")
        prefix = tmp_path / "envs" / "v1"
        made_by.make_prefix(spec, locked, prefix, source="shared")
    assert secret not in (tmp_path / "pixi.lock").read_text()
    assert secret not in str(said)
    assert secret not in repr(made_by.credentials)
    kept = [path for path in prefix.rglob("*") if path.is_file() and path.stat().st_size < 10**6]
    assert kept
    assert not any(secret.encode() in path.read_bytes() for path in kept)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing(
    write_spec: WriteSpec, r_channel: TinyChannel, tmp_path: Path, small_disk: Path
) -> None:
    spec = write_spec("r-irkernel", *PARTS, channels=str(r_channel.folder), name="stats")
    made_by = maker(tmp_path)
    locked = made_by.lock(spec, tmp_path / "pixi.lock")
    prefix = small_disk / "envs" / "v1"
    with pytest.raises(BuildError, match=r"(?i)no space|is full"):
        made_by.make_prefix(spec, locked, prefix, source="shared")
    assert files(prefix.parent) == {".v1.lock"}
    made_by.make_prefix(spec, locked, tmp_path / "envs" / "v1", source="shared")


def test_a_cache_on_a_full_disk_is_said(
    write_spec: WriteSpec, r_channel: TinyChannel, tmp_path: Path, small_disk: Path
) -> None:
    spec = write_spec("r-irkernel", *PARTS, channels=str(r_channel.folder), name="stats")
    made_by = Maker(Environments(), tmp_path / "none", small_disk / "cache", lambda _: None)
    locked = made_by.lock(spec, tmp_path / "pixi.lock")
    with pytest.raises(BuildError, match=r"(?i)no space|is full"):
        made_by.make_prefix(spec, locked, tmp_path / "envs" / "v1", source="shared")
    assert files(tmp_path / "envs") == {".v1.lock"}
