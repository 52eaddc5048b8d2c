"""What a person writes is not run by their server's own process, however it is started."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from .conftest import StandInHub

IMAGE = Path(__file__).parents[2] / "config/images/server"
MODULES = [str(IMAGE / "launch"), str(IMAGE / "notices")]
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
TEMPLATE = "{{{{ cycler.__init__.__globals__.os.mkdir({place!r}) }}}}"
CODE = "import os; os.makedirs({place!r}, exist_ok=True)\n"
# Everywhere in the home, the working directory and /tmp that something may be taken from.
TRAPS = {
    "lab/index.html.j2": TEMPLATE,
    "lab/base.html.j2": TEMPLATE,
    "../tmp/nbconvert/templates/lab/index.html.j2": TEMPLATE,
    ".local/share/jupyter/nbconvert/templates/lab/index.html.j2": TEMPLATE,
    ".jupyter/jupyter_server_config.py": CODE,
    ".jupyter/jupyter_config.py": CODE,
    ".jupyter/jupyter_nbconvert_config.py": CODE,
    "../tmp/jupyter_server_config.py": CODE,
    "jupyter_server_config.py": CODE,
    "jupyterhub_config.py": CODE,
    "jupyterhub.py": CODE,
    "nbconvert.py": CODE,
    "sitecustomize.py": CODE,
    f".local/lib/{VERSION}/site-packages/usercustomize.py": CODE,
    f".local/lib/{VERSION}/site-packages/x.pth": CODE,
    ".ipython/profile_default/startup/x.py": CODE,
    ".ipython/profile_default/ipython_config.py": CODE,
    ".local/share/jupyter/kernels/x/kernel.json": '{"argv": ["true"], "display_name": "X"}',
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, (name, text) in enumerate(TRAPS.items()):
        trap = tmp_path / "home" / name
        trap.parent.mkdir(parents=True, exist_ok=True)
        place = str(tmp_path / f"trapped-{number}-{trap.name}")
        trap.write_text(text.format(place=place) if "place" in text else text)
    notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "home/x.ipynb").write_text(json.dumps(notebook))
    return tmp_path / "home"


@pytest.fixture
def server(hub: StandInHub, home: Path) -> Iterator[str]:
    """A server as its container starts it, in the place of alice's stand-in."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    etc, bin_ = home.parent / "etc", Path(sys.executable).parent
    shutil.copytree(IMAGE / "etc", etc)
    config = etc / "jupyter_server_config.py"
    # The launcher of the image, whose modules are not among those of the tests' Python.
    launch, script = IMAGE / "launch", home.parent / "labcommons-server"
    path = f"import sys\nsys.path += {MODULES!r}\n"
    script.write_text(path + (launch / "labcommons-server").read_text())
    start = (IMAGE / "start").read_text()
    start = start.replace("/opt/labcommons/server/bin/labcommons-server", str(script))
    start = start.replace("/opt/labcommons/server/bin", str(bin_))
    there = str(home.parent / "tmp")
    config.write_text(config.read_text().replace("/tmp/labcommons", there))
    env = hub.record("alice")[0]["environment"] | {
        "HOME": str(home),
        "PYTHONUSERBASE": str(home / ".local"),
        "PYTHONPATH": str(home),
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/alice/",
        "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
        "JUPYTER_CONFIG_PATH": str(etc),
        "JUPYTER_PATH": str(home.parent / "registry"),
        "JUPYTER_RUNTIME_DIR": str(home.parent / "runtime"),
    }
    with (home.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", start.replace("/tmp/labcommons", there), "start", "--allow-root"],
            env=env, cwd=home, stdout=log, stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/user/alice/"
    try:
        deadline = time.monotonic() + 90
        while not answers(url):
            assert process.poll() is None, (home.parent / "log").read_text()
            assert time.monotonic() < deadline, (home.parent / "log").read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}api", timeout=10).ok
    except requests.ConnectionError:
        return False


def test_nothing_that_a_person_wrote_is_run_by_their_servers_process(
    hub: StandInHub, server: str, home: Path
) -> None:
    mine = {"Authorization": f"token {hub.server_token('alice')}"}
    page = requests.get(f"{server}nbconvert/html/x.ipynb", headers=mine, timeout=60)
    assert page.status_code == 200, page.text
    assert requests.get(f"{server}api/kernelspecs", headers=mine, timeout=60).ok
    assert sorted(path.name for path in home.parent.glob("trapped-*")) == []


def test_terminals_and_kernels_see_the_list_that_their_server_keeps() -> None:
    """What was taken from the server's own search path is on theirs."""
    environment = {**os.environ, "JUPYTER_PATH": "/opt/labcommons/registry/image"}
    code = f"""
from traitlets.config import Config
c = Config()
exec(open({str(IMAGE / "etc/jupyter_server_config.py")!r}).read(), {{"get_config": lambda: c}})
print(c.CondaProvisioner.variables["JUPYTER_PATH"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "/tmp/labcommons:/opt/labcommons/registry/image"


def in_python(code: str) -> subprocess.CompletedProcess[str]:
    """What code prints that has the launcher at hand."""
    begin = f"import sys; sys.path += {MODULES!r}; import labcommons_launch\n"
    return subprocess.run(
        [sys.executable, "-c", begin + code], capture_output=True, text=True, check=True
    )


def test_a_launcher_that_does_not_fit_starts_the_plain_server_and_says_so() -> None:
    """A module of another version is in the way, as a stand-in would be."""
    done = in_python("""
from types import ModuleType
usual = labcommons_launch.stand_ins
def stand_ins():
    usual()
    sys.modules["jupyterhub.log"] = ModuleType("jupyterhub.log")
labcommons_launch.stand_ins = stand_ins
main = labcommons_launch.server()
import jupyterhub.log, jupyterhub.orm, jupyterhub.singleuser
print(main == jupyterhub.singleuser.main, jupyterhub.orm.User.__tablename__)
""")
    assert done.stdout.split() == ["True", "users"]
    assert "starting without stand-ins: ImportError" in done.stderr


def test_what_has_no_stand_in_is_the_real_one() -> None:
    done = in_python("""
labcommons_launch.server()
import aiohttp, jupyterhub.orm
print("sqlalchemy.orm" in sys.modules)
print(jupyterhub.orm.User.__tablename__, aiohttp.ClientSession.__module__)
from sqlalchemy.exc import SQLAlchemyError
print(SQLAlchemyError.__module__, "sqlalchemy.orm" in sys.modules)
""")
    assert done.stdout.split() == [
        "False", "users", "aiohttp.client", "sqlalchemy.exc", "True",
    ]  # fmt: skip


def test_garbage_is_looked_for_again_once_the_server_has_started() -> None:
    done = in_python("""
import asyncio, gc
usual = gc.get_threshold()
labcommons_launch.server = lambda: lambda: print(gc.get_threshold()[0] > 100 * usual[0])
try:
    labcommons_launch.main()
except SystemExit:
    import labcommons_light
asyncio.run(labcommons_light._start_jupyter_server_extension(None))
print(gc.get_threshold() == usual, gc.get_freeze_count() > 0)
""")
    assert done.stdout.split() == ["True", "True", "True"]
