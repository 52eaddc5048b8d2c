"""A Docker Engine of a test's own, which the test may end, and an image with next to nothing."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

TRIES = 300


class OwnEngine:
    """dockerd without a network, in one folder, and a containerd that outlives it, as systemd's.

    In a network namespace of its own: it would take away the bridge docker0 of the tests' Engine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, f"unix://{folder}/docker.sock"
        (folder / "containerd.toml").write_text(
            f'version = 2\nroot = "{folder}/c"\nstate = "{folder}/s"\n'
            f'[grpc]\naddress = "{folder}/containerd.sock"\n'
        )
        self._containerd = _begin("containerd", "--config", folder / "containerd.toml")
        self._process: Any = None

    def begin(self) -> None:
        folder = self.folder
        self._process = _begin(
            "unshare", "--net", "dockerd", "--data-root", folder / "data",
            "--exec-root", folder / "exec",
            "--pidfile", folder / "pid", "--host", self.url, "--bridge", "none",
            "--iptables=false", "--ip6tables=false", "--containerd", folder / "containerd.sock",
        )  # fmt: skip
        for _ in range(TRIES):
            assert self._process.poll() is None, "dockerd did not start"
            try:
                return docker.DockerClient(self.url, timeout=10).close()
            except DockerException:
                time.sleep(0.1)
        raise AssertionError("dockerd does not answer")

    def end(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)
        self._process.wait(60)

    def close(self) -> None:
        if self._process.poll() is not None:  # a test failed in between
            self.begin()
        client = docker.DockerClient(self.url, timeout=30)
        for container in client.containers.list(all=True):
            container.remove(force=True)
        client.close()
        self.end()
        self._containerd.terminate()
        self._containerd.wait(60)
        # It is a mount of its own where dockerd was killed.
        subprocess.run(["umount", "--lazy", self.folder / "data"], check=False, capture_output=True)


def _begin(*words: str | Path) -> subprocess.Popen[bytes]:
    none = subprocess.DEVNULL
    return subprocess.Popen(words, stdin=none, stdout=none, stderr=none)


def sleeper(*more: str) -> bytes:
    """An image with /bin/sleep, and other programs of this machine, and what they need."""
    programs = ("/bin/sleep", *more)
    needed = set(re.findall(r"/\S+", subprocess.check_output(["ldd", *programs], text=True)))
    needed = {path for path in needed if not path.endswith(":")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in (*programs, *sorted(needed - set(programs))):
            tar.add(os.path.realpath(path), path)
    return buffer.getvalue()
