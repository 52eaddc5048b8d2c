"""The site's mirror on this machine: real nginx with its own configuration, and the fetcher."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commons.site import Site
from environments.mirror.conf import Rooms, nginx
from environments.mirror.fetch import Limits
from environments.mirror.service import Service
from rig.upstream import Upstream

LIMITS = Limits(connect=2, silence=1, headers=3, patience=1, slowest=4096)


def mirrored(site: Site, *there: Upstream, **more: object) -> Site:
    """A site that asks these, the nearest first, for the channel ``lab`` and for wheels."""
    said = {
        "conda": [f"{one.url}/{{channel}}" for one in there],
        "pypi": [f"{one.url}/simple" for one in there],
        "channels": ["lab"],
        "free": "1M",
        **more,
    }
    return Site.model_validate({**site.model_dump(exclude={"mirror"}), "mirror": said})


@dataclass
class Got:
    """An answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def cache(self) -> str:
        return self.headers.get("X-Cache", "")


@dataclass
class LocalMirror:
    """Asked at ``url``; ``control`` is the port of our own services."""

    site: Site
    folder: Path
    url: str
    control: str
    service: Service
    process: subprocess.Popen[bytes]

    def get(self, path: str, control: bool = False, **headers: str) -> Got:
        """An answer, whatever its status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.control if control else self.url}{path}",
                                         headers=named)  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Got(response.status, response.read(), dict(response.headers))
        except urllib.error.HTTPError as error:
            return Got(error.code, error.read(), dict(error.headers))

    def known(self) -> dict[str, Any]:
        """What is written for doctor, now."""
        self.service.write()
        text = (self.folder.parent / "health" / "mirror.json").read_text()
        return dict(json.loads(text))


def program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def free_port() -> int:
    """Of this machine, at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def local_mirror(
    site: Site, data: Path, limits: Limits | None = None, changed: Mapping[str, str] | None = None
) -> Iterator[LocalMirror]:
    """Below ``data``, until the end of the block. ``changed``: texts of the configuration."""
    assert site.mirror is not None
    folder, port, control = data / "mirror", free_port(), free_port()
    (data / "health").mkdir(parents=True, exist_ok=True)
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    # Sockets have short names alone.
    with tempfile.TemporaryDirectory(prefix="lc-mirror-") as short:
        run = Path(short)
        (folder / "run").unlink(missing_ok=True)
        (folder / "run").symlink_to(run)
        rooms = Rooms(
            str(folder / "cache"), str(run), str(run), f"127.0.0.1:{port}",
            f"127.0.0.1:{control}", f"user {_user()};\n",
        )  # fmt: skip
        text = nginx(site.mirror, rooms)
        for old, new in (changed or {}).items():
            assert old in text
            text = text.replace(old, new)
        (run / "nginx.conf").write_text(text)
        service = Service(site, folder, data / "health", limits)
        service.start()
        process = subprocess.Popen(
            [str(program()), "-c", str(run / "nginx.conf"), "-g", "daemon off;"],
            stderr=(data / "nginx.log").open("ab"),
        )
        url = f"http://127.0.0.1:{port}"
        mirror = LocalMirror(
            site, folder, url, f"http://127.0.0.1:{control}", service, process
        )  # fmt: skip
        try:
            _wait(port, process, data / "nginx.log")
            yield mirror
        finally:
            process.terminate()
            process.wait(20)
            service.stop()


def _user() -> str:
    return "root" if os.geteuid() == 0 else str(os.environ.get("USER", "nobody"))


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nginx does not answer: {log.read_text()[-2000:]}")
