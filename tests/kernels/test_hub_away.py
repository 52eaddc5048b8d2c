"""A person's server while hub and console are started anew: one line in its log, not one a try."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

IMAGE = Path(__file__).parents[2] / "config/images/server"
TRIES = 600
WARNS = re.compile(r"^\[[WEC] |Traceback|\b(WARNING|ERROR|CRITICAL)\b", re.MULTILINE)


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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """A server as its container starts it, of a hub that can go away."""
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
    command = [sys.executable, "-I", str(script), "--allow-root"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=os.environ | environment, cwd=home, stdout=out, stderr=out
        )
    one = Running(hub, tools.Client(port), log)
    try:
        one.until(lambda: any("/activity" in line for line in hub.asked))
        yield one
    finally:
        process.terminate()
        process.wait(30)
        hub.close()


API = "api/contents?content=0"


def without_hub(server: Running, away: Callable[[], None], back: Callable[[], None]) -> None:
    """A hub goes away and comes back, and is asked for meanwhile by all that ask."""
    hub, client = server.hub, server.client
    away()
    token = f"new-{len(hub.good)}"
    hub.good.add(token)
    assert client.ask(API, token)[0] >= 500
    for _ in "ab":  # who asks again within a while is answered without a question
        assert client.ask(f"labcommons/notices?zone={token}", "good")[0] == 503
    asked = len(hub.asked)
    server.until(lambda: not hub.broken or "/activity" in str(hub.asked[asked:]))
    back()
    server.until(lambda: client.ask(API, token)[0] == 200)


def test_a_hub_that_is_away_for_seconds_is_told_once_and_when_it_is_back(server: Running) -> None:
    """Kind: lines at warning level that mean nothing: pages, scripts, notices and the server's own
    reports while hub and console are restarted, behind a gate and without one.
    """
    hub = server.hub
    assert server.client.ask(API, "good")[0] == 200
    assert server.client.ask("labcommons/notices", "good")[0] == 200
    began = len(server.said())
    without_hub(server, hub.close, hub.open)
    without_hub(server, lambda: setattr(hub, "broken", True), lambda: setattr(hub, "broken", False))
    said = server.said()[began:]
    assert [line for line in said.splitlines() if WARNS.search(line)] == []
    assert said.count("The hub does not answer, and is asked again") == 2
    assert said.count("The hub answers again") == 2
    assert said.count("The console does not answer, and is asked again") == 1
    # What else goes wrong in the same server is told as ever.
    assert server.client.ask("api/contents/none", "good")[0] == 404
    server.until(lambda: WARNS.search(server.said()[began + len(said) :]))


def test_a_hub_that_stays_away_is_a_warning_after_a_minute_and_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Kind: an outage that is no restart; whoever reads warnings alone learns of it."""
    away = loaded("notices/labcommons_away.py")
    caplog.set_level("INFO")
    clock = iter([100.0, 101.0, 159.0, 161.0, 162.0, 200.0, 201.0])
    monkeypatch.setattr(away.time, "monotonic", lambda: next(clock))
    hub = away.Answering("hub")
    hub.asked()
    for _ in range(4):
        hub.asked("refused")
    assert all(map(away._tells_more, caplog.records))
    hub.asked()
    hub.asked()
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("INFO", "The hub does not answer, and is asked again: refused"),
        ("WARNING", "The hub has not answered for 61 s: refused"),
        ("INFO", "The hub answers again, after 99 s"),
    ]
    assert not away.in_vain.get()
