"""A person's server as its container starts it, of a hub that can go away and forget people."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

IMAGE = Path(__file__).parents[2] / "config/images/server"
TRIES = 600


def loaded(path: str) -> ModuleType:
    """A module of the image."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, IMAGE / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Running:
    hub: Any
    client: Any
    log: Path

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(TRIES):
            if condition():
                return
            time.sleep(0.05)
        raise AssertionError(self.said())


@contextmanager
def running(tmp_path: Path, *options: str, **more: str) -> Iterator[Running]:
    """With these options and variables, too."""
    tools = loaded("launch/compare.py")  # it has a stand-in of a hub, and who asks a server
    hub = tools.Hub()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.copytree(IMAGE / "etc", tmp_path / "etc")
    script, home = tmp_path / "labcommons-server", tmp_path / "home"
    home.mkdir()
    paths = [str(IMAGE.parents[2]), str(IMAGE / "launch"), str(IMAGE / "notices")]
    script.write_text(
        f"import sys\nsys.path[:0] = {paths}\n" + (IMAGE / "launch/labcommons-server").read_text()
    )
    hubs = f"http://127.0.0.1:{hub.port}"
    environment = {
        "HOME": str(home),
        "JUPYTER_CONFIG_PATH": str(tmp_path / "etc"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTERHUB_ACTIVITY_URL": f"{hubs}/hub/api/users/lab/activity",
        "JUPYTERHUB_ACTIVITY_INTERVAL": "1",
        "JUPYTERHUB_API_TOKEN": "its-own",
        "JUPYTERHUB_API_URL": f"{hubs}/hub/api",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-lab",
        "JUPYTERHUB_DISABLE_USER_CONFIG": "1",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:servers!server=lab/"]',
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/lab/oauth_callback",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/lab/",
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/lab/",
        "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
        "JUPYTERHUB_USER": "lab",
        "LABCOMMONS_CONSOLE_URL": f"{hubs}/services/labcommons",
    }
    log = tmp_path / "log"
    command = [sys.executable, "-I", str(script), "--allow-root", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=os.environ | environment | more, cwd=home, stdout=out, stderr=out
        )
    one = Running(hub, tools.Client(port), log)
    try:
        one.until(lambda: any("/activity" in line for line in hub.asked))
        yield one
    finally:
        process.terminate()
        process.wait(30)
        hub.close()
