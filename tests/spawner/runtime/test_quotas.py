"""Limits that the file system keeps. No kernel of a test machine has project quotas, so one stands
in at the two system calls, by their bytes; that there are none is shown with the real kernel."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from commons.errors import RuntimeRefused
from commons.site import Site
from commons.site.storage import Storage
from rig import agent, profile
from spawner.runtime.docker import projects, quotas
from spawner.runtime.docker.places import Places
from spawner.runtime.docker.quotas import Quotas
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.docker.settings import AgentSettings
from spawner.runtime.spec import MakeHome

GIB = 2**30


class Kernel:
    """A stand-in: ext4 with project quotas, as quotactl_fd(2) and ioctl_xfs_fsgetxattr(2) have it.

    Attributes:
        files: (flags, project) by inode.
        limits: KiB by project.
        flags: of fs_quota_statv: 0x30, projects are counted and limited.
        calls: of quotactl, in order.
    """

    def __init__(self) -> None:
        self.files: dict[int, tuple[int, int]] = {}
        self.limits: dict[int, int] = {}
        self.calls: list[tuple[int, int]] = []
        self.flags = 0x30

    def syscall(self, number: int, fd: int, word: Any, project: Any, buffer: Any) -> int:
        assert number == 443
        command, kind = word.value >> 8, word.value & 0xFF
        assert kind == 2
        os.fstat(fd)
        self.calls.append((command, project.value))
        if command == 0x5808:
            assert buffer.raw[0] == 1
            struct.pack_into("=H", buffer, 2, self.flags)
        elif command == 0x800007:
            if project.value not in self.limits:
                ctypes.set_errno(errno.ENOENT)
                return -1
            struct.pack_into("=8QI", buffer, 0, self.limits[project.value], *(0,) * 8)
        else:
            assert command == 0x800008
            blocks, *_, valid = struct.unpack_from("=8QI", buffer.raw)
            assert valid == 1
            self.limits[project.value] = blocks
        return 0

    def ioctl(self, fd: int, request: int, raw: bytes) -> bytes:
        inode = os.fstat(fd).st_ino
        if request == 0x801C581F:
            flags, project = self.files.get(inode, (0, 0))
            return struct.pack("=5I8x", flags, 0, 0, project, 0)
        assert request == 0x401C5820
        flags, _, _, project, _ = struct.unpack("=5I8x", raw)
        self.files[inode] = (flags, project)
        return raw

    def project(self, path: Path) -> int:
        return self.files.get(path.lstat().st_ino, (0, 0))[1]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    one = Kernel()
    monkeypatch.setattr(projects, "_libc", one)
    monkeypatch.setattr(fcntl, "ioctl", one.ioctl)
    return one


class Machine:
    """A data folder, and an agent's quotas whose containers run as functions."""

    def __init__(self, site: Site, data: Path) -> None:
        self.site, self.data = site, data
        for name in ("alice", "bob"):
            (data / "homes" / name).mkdir(parents=True)
        (data / "teams" / "vision").mkdir(parents=True)
        (data / "agent").mkdir()
        self.asked: list[list[str]] = []
        self.begin(Storage(homes="1G", teams="2G"))

    def begin(self, storage: Storage) -> Quotas:
        """As after another start of the agent, with this site file."""
        site = self.site.model_copy(update={"storage": storage})
        settings = AgentSettings(site, "here", self.data, self.data, "none")
        self.quotas = Quotas(settings, Places(settings), self.run)
        return self.quotas

    async def run(self, _name: str, body: dict[str, Any], _seconds: float) -> tuple[bytes, int]:
        words = body["Cmd"][4:]
        self.asked.append(words)
        [mount] = body["HostConfig"]["Mounts"]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            projects.main(words, mount["Source"])
        return said.getvalue().encode(), 0

    def ids(self) -> dict[str, int]:
        known = json.loads((self.data / "agent" / "projects.json").read_text())
        return {name: one["id"] for name, one in known.items()}


@pytest.fixture
def machine(site: Site, tmp_path: Path) -> Machine:
    return Machine(site, tmp_path)


async def test_each_folder_is_a_project_of_its_own_with_its_limit(
    kernel: Kernel, machine: Machine
) -> None:
    home = machine.data / "homes" / "alice"
    (home / "a" / "b").mkdir(parents=True)
    (home / "a" / "b" / "file").write_text("x")
    (machine.data / "other").write_text("x")
    (home / "link").symlink_to(machine.data / "other")
    (home / "folder").symlink_to(machine.data)
    os.mkfifo(home / "pipe")
    await machine.quotas.round()
    ids = machine.ids()
    assert len(set(ids.values())) == 3
    alice = ids["homes/alice"]
    for path in (home, home / "a", home / "a" / "b", home / "a" / "b" / "file"):
        assert kernel.project(path) == alice
    assert kernel.files[(home / "a").stat().st_ino][0] & 0x200  # what is made in it is, too
    assert kernel.project(machine.data / "other") == 0
    assert kernel.project(machine.data / "teams") == 0
    assert kernel.limits == {
        alice: 2**20,
        ids["homes/bob"]: 2**20,
        ids["teams/vision"]: 2 * 2**20,
    }
    said = {one.area: (one.refusal, one.folders) for one in machine.quotas.limits()}
    assert said == {"homes": ("", 2), "teams": ("", 1)}


async def test_numbers_stay_and_a_limit_that_changes_is_set(
    kernel: Kernel, machine: Machine
) -> None:
    await machine.quotas.round()
    ids, asked = machine.ids(), len(machine.asked)
    await machine.begin(Storage(homes="1G", teams="2G")).round()
    assert machine.asked[asked:] == [["state"], ["state"]]
    await machine.begin(Storage(homes="3G")).round()
    assert machine.ids() == ids
    assert kernel.limits[ids["homes/alice"]] == 3 * 2**20
    assert kernel.limits[ids["teams/vision"]] == 0  # any number again
    # What its owner has taken out is given again at the next look through it.
    home = machine.data / "homes" / "alice"
    kernel.files[home.stat().st_ino] = (0, ids["homes/bob"])
    quota = machine.begin(Storage(homes="3G"))
    quota._note("homes", "alice", quota._projects()["homes/alice"].model_copy(update={"due": 0.0}))
    await quota.round()
    assert kernel.project(home) == ids["homes/alice"]


async def test_one_folder_may_have_a_limit_of_its_own(kernel: Kernel, machine: Machine) -> None:
    """Also where all others of its kind have none, and after another start of the agent."""
    for name in ("ml101", "art7"):
        (machine.data / "courses" / name).mkdir(parents=True)
    await machine.quotas.limit_folder("courses", "ml101", 5 * GIB)
    ml101 = machine.ids()["courses/ml101"]
    assert kernel.limits == {ml101: 5 * 2**20}
    quota = machine.begin(Storage(courses="1G"))
    await quota.round()
    assert kernel.limits == {ml101: 5 * 2**20, machine.ids()["courses/art7"]: 2**20}
    assert [(one.area, one.folders) for one in quota.limits()] == [("courses", 2)]
    asked = len(machine.asked)
    await quota.limit_folder("courses", "ml101", 5 * GIB)
    assert len(machine.asked) == asked
    await quota.limit_folder("courses", "ml101", 0)
    assert kernel.limits[ml101] == 2**20
    await quota.limit_folder("courses", "none", GIB)  # made later, it has its limit then
    (machine.data / "courses" / "none").mkdir()
    await quota.keep("courses", "none")
    assert kernel.limits[machine.ids()["courses/none"]] == 2**20


async def test_a_number_that_somebody_else_has_is_left_alone(
    kernel: Kernel, machine: Machine
) -> None:
    first = machine.quotas._next()
    kernel.limits = {first: 7, first + 1: 8}
    await machine.quotas.round()
    assert first not in machine.ids().values()
    assert (kernel.limits[first], kernel.limits[first + 1]) == (7, 8)
    assert len(set(machine.ids().values())) == 3


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_an_agent_that_is_killed_goes_on_with_the_same_numbers(
    kernel: Kernel, machine: Machine, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before a folder's container, in it, and after it."""
    calls = 0

    async def killed(name: str, body: dict[str, Any], seconds: float) -> tuple[bytes, int]:
        nonlocal calls
        calls += body["Cmd"][4] == "limit"
        if calls == at:
            raise KeyboardInterrupt
        said = await machine.run(name, body, seconds)
        if calls + 1 == at and body["Cmd"][4] == "limit":
            raise KeyboardInterrupt
        return said

    machine.quotas._run = killed
    with contextlib.suppress(KeyboardInterrupt):
        await machine.quotas.round()
    before = machine.ids()
    await machine.begin(Storage(homes="1G", teams="2G")).round()
    assert before.items() <= machine.ids().items()
    assert sorted(kernel.limits) == sorted(machine.ids().values())


async def test_a_file_system_without_them_is_said_by_the_real_kernel(machine: Machine) -> None:
    await machine.quotas.round()
    assert machine.asked == [["state"], ["state"]]
    refusals = {one.area: one.refusal for one in machine.quotas.limits()}
    assert set(refusals) == {"homes", "teams"}
    assert all(refusals.values())
    await machine.quotas.keep("homes", "alice")
    assert not (machine.data / "agent" / "projects.json").exists()


async def test_quotas_that_count_and_do_not_limit_are_none(
    kernel: Kernel, machine: Machine
) -> None:
    kernel.flags = 0x10
    await machine.quotas.round()
    assert [one.refusal for one in machine.quotas.limits()] == ["off", "off"]


async def test_one_folder_that_cannot_be_limited_holds_up_no_other(
    kernel: Kernel, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(name: str, body: dict[str, Any], seconds: float) -> tuple[bytes, int]:
        if body["HostConfig"]["Mounts"][0]["Source"].endswith("alice"):
            return b"OSError: Input/output error", 1
        return await machine.run(name, body, seconds)

    machine.quotas._run = run
    await machine.quotas.round()
    assert {one.area: one.folders for one in machine.quotas.limits()} == {"homes": 1, "teams": 1}


async def test_numbers_that_cannot_be_read_are_not_begun_anew(
    kernel: Kernel, machine: Machine
) -> None:
    (machine.data / "agent" / "projects.json").write_text("{")
    with pytest.raises(RuntimeRefused, match=r"projects\.json"):
        await machine.quotas.round()
    assert kernel.limits == {}


def test_a_folder_as_deep_as_anybody_makes_it_is_told_as_not_whole(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects, "DEPTH", 10)
    deep = tmp_path.joinpath(*("d" for _ in range(12)))
    deep.mkdir(parents=True)
    files = len(os.listdir("/proc/self/fd"))
    assert projects.give_all(str(tmp_path), 5) is False
    assert projects.give_all(str(tmp_path / "d" / "d" / "d" / "d"), 5) is True
    assert projects.give_all(str(tmp_path), 5, seconds=0) is False
    assert len(os.listdir("/proc/self/fd")) == files


def test_its_container_has_one_folder_no_network_and_three_rights(
    site: Site, tmp_path: Path
) -> None:
    settings = agent.settings(site, tmp_path, "none", "lctest/none")
    body = quotas.body(settings, f"{tmp_path}/homes/alice", ["limit", "5", "7"])
    profile.check(body, settings)
    assert set(body["HostConfig"]["CapAdd"]) == {"DAC_READ_SEARCH", "FOWNER", "SYS_ADMIN"}


@pytest.mark.docker
async def test_a_new_home_has_its_limit_before_it_is_used(
    kernel: Kernel, base_image: str, site: Site, tmp_path: Path
) -> None:
    """The home by the Engine, its limit at the stand-in."""
    site = site.model_copy(update={"storage": Storage(homes="1G")})
    settings = agent.settings(site, tmp_path, "none", "lctest/none")
    machine = Machine.__new__(Machine)
    machine.data, machine.asked = tmp_path, []
    runtime = DockerRuntime(settings)
    runtime.quotas._run = machine.run
    try:
        await runtime.quotas.round()
        await runtime.run_task(MakeHome(user="carol", uid=20009, gid=20000))
        assert list(kernel.limits.values()) == [2**20]
        asked = len(machine.asked)
        await runtime.run_task(MakeHome(user="carol", uid=20009, gid=20000))
        assert len(machine.asked) == asked  # nothing is paid for a home that has it
    finally:
        await runtime.close()
