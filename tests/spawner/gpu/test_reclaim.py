"""Reclaim with real parts: a container with stand-in GPUs, a driver's library, a Jupyter server."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from docker.types import DeviceRequest
from sqlalchemy import select

from commons.leases import LeaseState, ServerKey
from commons.site import Gpus, GpuSharing, GpuWatching
from commons.site import Site as SiteFile
from commons.store import GpuNotice, GpuQuota, Lease, LeaseDevice, Store
from rig import agent
from spawner.gpu.ledger.usage import moment
from spawner.gpu.watch import monitor
from spawner.gpu.watch.monitor import Monitor
from spawner.gpu.watch.server_activity import Asker, Jupyter
from spawner.runtime import labels
from spawner.runtime.docker import driver as nvml_driver
from spawner.runtime.docker.runtime import DockerRuntime

pytestmark = pytest.mark.docker

SOURCE = Path(__file__).parents[2] / "rig" / "gpu" / "fake_nvml.c"
UUID = "GPU-51300000-0000-4000-8000-000000000000"  # of the test bed's stand-in GPUs
GPUS = Gpus(
    source="nvml",
    sharing=[GpuSharing(model="A100", method="time-slicing", slots=2)],
    watch=GpuWatching(interval=300, probe_interval=3600),
)
TOKEN = "of-the-server"


class Driver:
    """What the driver says, by its state file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.used_by(0)

    def used_by(self, pid: int) -> None:
        """Half of the GPU computes for somebody else, and for this process if it is one."""
        lines = [f"gpu {UUID} 85899345920 0 ok A100", "use 50", "proc 1 50"]
        self.file.write_text("\n".join([*lines, *([f"proc {pid} 80"] if pid else [])]) + "\n")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("FAKE_NVML_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(nvml_driver, "_stuck", [])
    # The stand-in lists all processes wherever it runs; these tests may run in a container.
    monkeypatch.setattr(nvml_driver, "HOST_NAMESPACE", os.readlink("/proc/self/ns/pid"))
    return Driver(tmp_path / "state")


@pytest.fixture
def container(runtime: DockerRuntime) -> Iterator[Container]:
    client = docker.from_env(timeout=60)
    container = client.containers.run(
        "labcommons/base",
        ["sleep", "600"],
        detach=True,
        user="1000:1000",
        labels={
            labels.SITE: runtime.settings.site_id,
            labels.USER: "alice",
            labels.SERVER: "",
        },
        device_requests=[DeviceRequest(driver="nvidia", device_ids=[UUID], capabilities=[["gpu"]])],
    )
    container.reload()
    yield container
    container.remove(force=True)


@pytest.fixture
def jupyter_url(tmp_path: Path) -> Iterator[str]:
    """A Jupyter server as people have them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    options = [f"--port={port}", f"--IdentityProvider.token={TOKEN}", "--allow-root"]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter_server", "--no-browser", *options],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not _answers(url):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(20)


def _answers(url: str) -> bool:
    try:
        return bool(_post(f"{url}api", method="GET"))
    except (urllib.error.URLError, ConnectionError):
        return False


def _post(url: str, body: bytes | None = None, method: str = "POST") -> bytes:
    request = urllib.request.Request(url, body, {"Authorization": f"token {TOKEN}"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


@pytest.fixture
async def runtime(site: SiteFile, tmp_path: Path) -> AsyncIterator[DockerRuntime]:
    settings = agent.settings(site, tmp_path / "data", "bridge", "lctest/tiny-server:latest")
    runtime = DockerRuntime(settings)
    await runtime.begin_watch()
    yield runtime
    await runtime.close()


class Site:
    """A watch over one lease; its clock is moved on by the test."""

    def __init__(
        self, store: Store, runtime: DockerRuntime, container: Container, url: str
    ) -> None:
        self.store, self.url, self.now = store, url, time.time()
        self.asker = Asker()
        self.watch = Monitor(
            store, runtime, GPUS, self._goes_on, logging.getLogger("test"), lambda: self.now
        )
        self.container = container

    async def _goes_on(self, _server: ServerKey) -> Jupyter:
        return await self.asker(self.url, TOKEN)

    async def begin(self) -> None:
        await self.watch.once()
        started = moment(self.now - 7200)

        def work(session: Any) -> None:
            session.merge(
                GpuQuota(subject="default", spec={"idle": {"after": "60m", "grace": "15m"}})
            )
            session.add(
                Lease(
                    id="lease",
                    username="alice",
                    account="user:alice",
                    state=LeaseState.ACTIVE,
                    requested_at=started,
                    held_at=started,
                    container_id=self.container.id,
                    devices=[LeaseDevice(device_id=UUID)],
                )
            )

        self.store.transact(work)

    async def minutes(self, count: int) -> None:
        """In looks as far apart as still count as one use."""
        while count > 0:
            self.now += 60 * (step := min(count, 10))
            count -= step
            await self.watch.once()

    def told(self) -> list[str]:
        query = select(GpuNotice.code).order_by(GpuNotice.id)
        return self.store.transact(lambda s: list(s.scalars(query)))

    def lease(self) -> Lease:
        return self.store.transact(lambda s: s.get_one(Lease, "lease"))


async def test_warned_back_to_life_warned_again_reclaimed(
    store: Store, runtime: DockerRuntime, driver: Driver, container: Container, jupyter_url: str
) -> None:
    site = Site(store, runtime, container, jupyter_url)
    await site.begin()
    await site.minutes(60)
    assert site.told() == ["idle_warning"], "another's half of the GPU is no use of this one's"
    driver.used_by(container.attrs["State"]["Pid"])
    await site.minutes(5)
    assert site.told() == ["idle_warning", "idle_resumed"]
    driver.used_by(0)
    await site.minutes(60)
    assert site.told()[2:] == ["idle_warning"]
    # A kernel that has just been started is somebody at work.
    _post(f"{jupyter_url}api/kernels", b"{}")
    site.now = time.time()
    await site.minutes(5)
    site.now = time.time()
    await site.watch.once()
    assert site.told()[3:] == ["idle_resumed"]
    _post(f"{jupyter_url}api/shutdown")
    await site.minutes(90)
    assert site.told()[4:] == [], "a server that does not answer is not idle"
    assert site.lease().stop_at is None


async def test_idle_to_the_end(
    store: Store, runtime: DockerRuntime, driver: Driver, container: Container, jupyter_url: str
) -> None:
    site = Site(store, runtime, container, jupyter_url)
    await site.begin()
    await site.minutes(80)
    assert site.told() == ["idle_warning", "idle"]
    assert site.lease().stop_reason == "idle"


async def test_a_container_that_lost_its_gpus_is_noticed(
    runtime: DockerRuntime, container: Container
) -> None:
    assert await runtime.probe_gpus(container.id) == 0
    # As after `systemctl daemon-reload`: the node is there and cannot be opened.
    container.exec_run(["chmod", "000", "/dev/nvidia0"], user="0")
    assert await runtime.probe_gpus(container.id) == monitor.OUT_OF_REACH
    container.exec_run(["rm", "/dev/nvidia0"], user="0")
    assert await runtime.probe_gpus(container.id) == monitor.OUT_OF_REACH
