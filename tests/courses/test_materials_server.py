"""Materials in a person's server: at its start, by a link, and what JupyterLab is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from spawner.runtime.docker.material_task import STORE, Fetch

EXTENSION = Path(__file__).parents[2] / "config/images/server/materials"
# The extension, where courses are elsewhere.
HERE = """
import labcommons_materials as there
from pathlib import Path
there.ROOT = Path({root!r})
def _jupyter_server_extension_points():
    return [{{"module": "materials_here"}}]
_load_jupyter_server_extension = there._load_jupyter_server_extension
_start_jupyter_server_extension = there._start_jupyter_server_extension
"""


class Server:
    """A person's, in the course ml101."""

    def __init__(self, folder: Path) -> None:
        self.home, self.courses = folder / "home", folder / "courses"
        self.given = folder / "given"
        for one in (self.home, self.courses / "ml101" / "materials", self.given):
            one.mkdir(parents=True)
        (folder / "materials_here.py").write_text(HERE.format(root=str(self.courses)))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}/"

    def give(self, name: str, text: str) -> None:
        (self.given / name).parent.mkdir(exist_ok=True)
        (self.given / name).write_text(text)
        fetch = Fetch(self.courses / "ml101" / "materials")
        fetch.folder(self.given)
        fetch.clear()

    async def get(self, path: str, token: str = "own", **options: Any) -> HTTPResponse:
        return await AsyncHTTPClient().fetch(
            f"{self.url}{path}",
            headers={"Authorization": f"token {token}"},
            raise_error=False,
            follow_redirects=False,
            request_timeout=60,
            **options,
        )

    async def opened(self, path: str) -> str:
        """Where a link leads."""
        answer = await self.get(f"labcommons/course/{path}")
        assert answer.code == 302
        return answer.headers["Location"]

    async def update(self, lang: str = "en") -> list[str]:
        """What JupyterLab is told of an update that somebody has asked for."""
        answer = await self.get(f"labcommons/materials?lang={lang}", method="POST", body="{}")
        [course] = json.loads(answer.body)["courses"]
        return [one["sentence"] for one in course["news"]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    found = Server(tmp_path)
    found.give("lessons/first.ipynb", "{}")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"),
            *(f"--port={found.url.rpartition(':')[2][:-1]}", "--IdentityProvider.token=own"),
            "--ServerApp.jpserver_extensions={'materials_here': True}",
        ],
        cwd=found.home,
        env={
            "HOME": str(found.home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{EXTENSION}:{tmp_path}:{Path(__file__).parents[2]}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    try:
        while True:
            assert process.poll() is None
            with suppress(OSError):
                if (await found.get("api/status")).code == 200:
                    break
        yield found
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)


async def test_a_link_opens_a_file_of_the_materials_as_they_are_now(server: Server) -> None:
    first = server.home / "courses/ml101/lessons/first.ipynb"
    assert (
        await server.opened("ml101/lessons/first.ipynb")
        == "/lab/tree/courses/ml101/lessons/first.ipynb"
    )
    assert first.read_text() == "{}"
    first.write_text('{"mine": 1}')
    server.give("lessons/第二.ipynb", "{}")
    where = "/lab/tree/courses/ml101/lessons/%E7%AC%AC%E4%BA%8C.ipynb"
    assert await server.opened("ml101/lessons/%E7%AC%AC%E4%BA%8C.ipynb") == where
    assert first.read_text() == '{"mine": 1}'
    assert await server.opened("ml101/gone.ipynb") == "/lab/tree/courses/ml101"
    assert await server.opened("ml101/") == "/lab/tree/courses/ml101"
    assert await server.opened("other/x.ipynb") == "/lab"
    assert (await server.get("labcommons/course/ml101/../../x")).code == 404
    assert (await server.get("labcommons/course/ml101/", token="wrong")).code in (302, 403)

    assert await server.update() == []
    (server.home / "courses/ml101/new.md").write_text("mine")
    server.give("new.md", "theirs")
    [kept] = await server.update()
    assert kept.startswith("Materials of ml101: new files took the places of yours")
    assert "new__" in kept
    shutil.move(server.home / "courses/ml101", server.home / "courses/own")
    (server.home / "courses/ml101").write_text("")
    assert await server.opened("ml101/x.ipynb") == "/lab/tree/courses/ml101"
    [wrong] = await server.update("zh-CN")
    assert "请将其改名" in wrong
    status = json.loads((await server.get("labcommons/materials")).body)
    assert status["words"]["command"] == "Update course materials"


async def test_who_has_no_course_has_nothing_to_wait_for(server: Server) -> None:
    shutil.rmtree(server.courses / "ml101" / "materials" / STORE)
    found = json.loads((await server.get("labcommons/materials")).body)
    assert found["courses"] == []
