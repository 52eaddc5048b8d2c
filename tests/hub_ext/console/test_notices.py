"""Notices by REST and in the notebook's server; metrics for Prometheus."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select
from tornado.httpclient import AsyncHTTPClient

from commons import notices
from commons.store import Lease
from hub_ext.console.app import PREFIX

from .conftest import PEOPLE, Console

EXTENSION = Path(__file__).parents[3] / "config" / "images" / "server" / "notices"


@pytest.fixture
def told(filled: Console) -> Console:
    """alice is told that her server's GPUs are idle, bob that his end soon."""

    def work(session: Any) -> None:
        for user, code, data in (
            ("alice", "idle_warning", {"idle_for": 2700, "stop_at": 1.8e9}),
            ("bob", "ends_soon", {"ends_at": 1.8e9}),
        ):
            lease = session.scalars(select(Lease).where(Lease.username == user)).first()
            notices.add(
                session, username=user, lease_id=lease.id, code=code, data=data, key=f"{user}"
            )

    filled.store.transact(work)
    return filled


async def test_everybody_gets_their_own_notices_and_leases(told: Console) -> None:
    found = await told.json("api/v1/notices", "alice-token")
    [notice] = found["notices"]
    assert (notice["code"], notice["level"], notice["actions"]) == (
        "idle_warning",
        "warning",
        ["keep"],
    )
    assert "for 45 min" in notice["sentence"]
    assert [lease["user"] for lease in found["leases"]] == ["alice"]
    assert notice["lease"] == found["leases"][0]["id"]


async def test_notices_are_in_the_readers_time_zone(told: Console) -> None:
    cookie = "labcommons-tz=Asia/Shanghai; labcommons-lang=en"
    found = await told.json("api/v1/notices", "alice-token", Cookie=cookie)
    assert "2027-01-15 16:00" in found["notices"][0]["sentence"]


async def test_only_ones_own_notices_can_be_marked_as_seen(told: Console) -> None:
    [notice] = (await told.json("api/v1/notices", "alice-token"))["notices"]
    body = json.dumps({"ids": [notice["id"]]})
    for user, changed in (("bob", 0), ("alice", 1)):
        answer = await told.send("POST", "api/v1/notices/seen", f"{user}-token", body)
        assert json.loads(answer.body) == {"changed": changed}
    assert (await told.json("api/v1/notices", "alice-token"))["notices"][0]["seen"]


@pytest.mark.parametrize("ids", ["x", ["1"], [-1], [2**40], {"a": 1}])
async def test_what_is_no_list_of_numbers_is_refused(told: Console, ids: Any) -> None:
    body = json.dumps({"ids": ids})
    answer = await told.send("POST", "api/v1/notices/seen", "alice-token", body)
    assert answer.code == 400


async def test_metrics_are_for_administrators_and_the_scope(
    filled: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await filled.get("metrics")).code == 401
    assert (await filled.get("metrics", "alice-token")).code == 403
    assert (await filled.get("metrics", "carol-token")).code == 200
    scopes = [*PEOPLE["bob-token"]["scopes"], "read:metrics"]
    monkeypatch.setitem(PEOPLE["bob-token"], "scopes", scopes)
    answer = await filled.get("metrics", "bob-token")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {"labcommons_gpu_slots", "labcommons_gpu_leases_ended"} <= names


@dataclass
class Notebook:
    """A person's server with the extension in it."""

    url: str

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        answer = await AsyncHTTPClient().fetch(
            f"{self.url}{path}",
            headers={"Authorization": "token own"},
            raise_error=False,
            **options,
        )
        return answer.code, json.loads(answer.body)


@asynccontextmanager
async def notebook(folder: Path, console_url: str) -> AsyncIterator[Notebook]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"),
            *(f"--port={port}", "--IdentityProvider.token=own"),
            "--ServerApp.jpserver_extensions={'labcommons_notices': True}",
        ],
        cwd=folder,
        env={
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(EXTENSION),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LABCOMMONS_CONSOLE_URL": console_url,
            "JUPYTERHUB_API_TOKEN": "alice-server-token",
            "JUPYTERHUB_SERVER_NAME": "",
        },
    )
    found = Notebook(f"http://127.0.0.1:{port}/")
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None
            assert time.monotonic() < deadline
            try:
                await found.get("api/status")
                break
            except OSError:
                await asyncio.sleep(0.2)
        yield found
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait(20)


async def test_the_notebook_shows_and_hands_on(told: Console, tmp_path: Path) -> None:
    async with notebook(tmp_path, f"{told.origin}{PREFIX}") as server:
        before = (await server.get("api/status"))[1]["last_activity"]
        status, found = await server.get("labcommons/notices?zone=Asia/Shanghai&lang=zh-CN")
        assert status == 200
        [notice] = found["notices"]
        assert "16:00" in notice["sentence"]
        assert found["server"] == ""
        assert (await server.get("api/status"))[1]["last_activity"] == before, (
            "a tab that polls must not keep an idle server alive"
        )
        body = json.dumps({"ids": [notice["id"]]})
        status, answer = await server.get("labcommons/notices/seen", method="POST", body=body)
        assert (status, answer) == (200, {"changed": 1})
        assert (await server.get("labcommons/notices"))[1]["notices"][0]["seen"]
        status, _ = await server.get(f"labcommons/leases/{'0' * 32}/keep", method="POST", body="{}")
        assert status == 404, "the console's refusal is the notebook's"
        hostile = "labcommons/notices?zone=x%0d%0aCookie:%20a&lang=%0a"
        assert (await server.get(hostile))[0] == 200


async def test_a_console_that_is_away_slows_nothing(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)  # takes connections and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        async with notebook(tmp_path, url) as server:
            asking = asyncio.create_task(server.get("labcommons/notices"))
            assert (await server.get("api/kernels"))[0] == 200
            assert not asking.done()
            assert (await asking)[0] == 503
            silent.close()
            status, answer = await server.get("labcommons/notices")
            assert status == 503, "and for a while it is not asked again"
            assert "console" in answer["message"]


def test_a_server_outside_a_site_has_no_extension() -> None:
    code = (
        "import labcommons_notices as e\n"
        "e._load_jupyter_server_extension(None)\n"
        "print(e._jupyter_server_extension_points())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(EXTENSION), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "labcommons_notices" in done.stdout


def test_the_labextension_is_what_jupyterlab_loads() -> None:
    package = json.loads((EXTENSION / "labextension" / "package.json").read_text())
    entry = EXTENSION / "labextension" / package["jupyterlab"]["_build"]["load"]
    text = entry.read_text()
    assert f'const NAME = "{package["name"]}"' in text
    assert f'"{package["jupyterlab"]["_build"]["extension"]}"' in text
