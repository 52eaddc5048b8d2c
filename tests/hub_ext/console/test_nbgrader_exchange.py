"""nbgrader's own exchange by our folders and hand-ins: the real nbgrader, and a real console."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from traitlets.config import Config

from commons.store.models import HandedIn
from courses.handins import State

from . import conftest
from .conftest import ACCESS, PREFIX, Console
from .test_handin_pages import ml  # noqa: F401  (a fixture)

SERVER = Path(__file__).parents[3] / "config" / "images" / "server"
NOTEBOOK = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
Exchange = Callable[..., Any]


@pytest.fixture
def exchange(ml: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Exchange:  # noqa: F811
    """Do one of the exchange's things, as somebody in a server of theirs; what was logged."""
    from nbgrader.auth import Authenticator
    from nbgrader.coursedir import CourseDirectory

    path = SERVER / "lib" / "labcommons_nbgrader.py"
    made = importlib.util.spec_from_file_location("labcommons_nbgrader", path)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    monkeypatch.setitem(sys.modules, "labcommons_nbgrader", module)
    made.loader.exec_module(module)
    for name in ("s01", "s02"):
        scopes = [ACCESS, f"access:servers!server={name}/", f"read:users!user={name}"]
        model = {"name": name, "admin": False, "scopes": scopes, "groups": []}
        monkeypatch.setitem(conftest.PEOPLE, f"{name}-server", model)
    monkeypatch.setenv("LABCOMMONS_CONSOLE_URL", f"{ml.origin}{PREFIX}")
    (ml.data / "courses/ml101").mkdir(parents=True)

    def do(what: str, user: str, assignment: str = "hw1", **settings: Any) -> Any:
        home = tmp_path / "homes" / user
        home.mkdir(parents=True, exist_ok=True)
        for key, value in {"HOME": home, "JUPYTERHUB_USER": user,
                           "JUPYTERHUB_API_TOKEN": f"{user}-server"}.items():  # fmt: skip
            monkeypatch.setenv(key, str(value))
        monkeypatch.chdir(home)
        config = Config(
            Exchange={"root": str(ml.data / "courses"), "assignment_dir": str(home)},
            CourseDirectory={"root": str(home), "course_id": "ml101"},
        )
        coursedir = CourseDirectory(config=config)
        coursedir.assignment_id = assignment
        kind = getattr(module, f"Exchange{what}")
        return kind(
            coursedir=coursedir, authenticator=Authenticator(), config=config, **settings
        ).start()

    return do


async def test_an_assignment_goes_out_comes_in_and_back(
    ml: Console,  # noqa: F811
    exchange: Exchange,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from nbgrader.exchange import ExchangeError

    caplog.set_level(logging.INFO)
    course = ml.data / "courses" / "ml101"
    release = tmp_path / "homes" / "dan" / "release" / "hw1"
    release.mkdir(parents=True)
    (release / "first.ipynb").write_text(json.dumps(NOTEBOOK))
    (release / "data.csv").write_text("1,2")
    exchange("ReleaseAssignment", "dan")
    with pytest.raises(ExchangeError, match="released already"):
        exchange("ReleaseAssignment", "dan")
    exchange("ReleaseAssignment", "dan", force=True)
    assert [one["status"] for one in exchange("List", "s01")] == ["released"]

    exchange("FetchAssignment", "s01")
    mine = tmp_path / "homes" / "s01" / "hw1" / "first.ipynb"
    mine.write_text(json.dumps({**NOTEBOOK, "metadata": {"mine": True}}))
    exchange("FetchAssignment", "s01", replace_missing_files=True)
    assert json.loads(mine.read_text())["metadata"] == {"mine": True}
    assert [one["status"] for one in exchange("List", "s01")] == ["fetched"]

    async def kept() -> None:
        """What the hub's keeper does."""
        waits = HandedIn.state == State.ASKED
        while not await asyncio.to_thread(
            ml.store.transact,
            lambda s: s.execute(update(HandedIn).where(waits).values(state=State.KEPT)).rowcount,
        ):
            await asyncio.sleep(0.05)

    keeping = asyncio.create_task(kept())
    await asyncio.to_thread(exchange, "Submit", "s01")
    await keeping
    assert "Handed in as: ml101 hw1" in caplog.text
    [row] = (await ml.json("api/v1/courses/ml101/handins", "s01-token"))["handins"][0]["handed_in"]
    assert (row["username"], row["path"]) == ("s01", "hw1")
    [own] = await asyncio.to_thread(exchange, "List", "s01", cached=True)
    assert [one["timestamp"] for one in own["submissions"]] == [row["asked_at"]]
    with pytest.raises(ExchangeError, match="due"):
        await asyncio.to_thread(_old, exchange, tmp_path)

    for at, text in (("2031-01-01T10-00-00Z-a", "first"), ("2031-01-02T10-00-00Z-b", "second")):
        place = course / "handins" / "hw1" / "@p1" / at
        (place / "files").mkdir(parents=True)
        (place / "files" / "first.ipynb").write_text(text)
        said = {"members": ["s01", "s02"], "handin": "hw1", "asked_at": at[:10]}
        (place / "receipt.json").write_text(json.dumps({"receipt": said}))
    exchange("Collect", "dan")
    submitted = tmp_path / "homes" / "dan" / "submitted"
    assert {path.parts[-3]: path.read_text() for path in submitted.glob("*/hw1/first.ipynb")} == {
        "s01": "second", "s02": "second",
    }  # fmt: skip
    assert len(exchange("List", "dan", inbound=True)) == 2

    back = tmp_path / "homes" / "dan" / "feedback" / "s01" / "hw1"
    back.mkdir(parents=True)
    (back / "first.html").write_text("well done")
    exchange("ReleaseFeedback", "dan")
    given = tmp_path / "homes" / "dan" / "feedback-ml101-hw1" / "s01" / "first.html"
    assert given.read_text() == "well done"
    with pytest.raises(ExchangeError, match="no feedback"):
        exchange("FetchFeedback", "s01")
    laid = course / "feedback" / "s01" / "hw1" / "files"
    laid.mkdir(parents=True)
    (laid / "first.html").write_text("well done")
    exchange("FetchFeedback", "s01")
    assert (tmp_path / "homes/s01/hw1/feedback/first.html").read_text() == "well done"


def _old(exchange: Exchange, tmp_path: Path) -> None:
    (tmp_path / "homes" / "s01" / "old").mkdir()
    exchange("Submit", "s01", "old")


async def test_what_lies_outside_the_home_or_in_no_course_is_refused(
    exchange: Exchange, tmp_path: Path
) -> None:
    from nbgrader.exchange import ExchangeError

    (tmp_path / "hw1").mkdir()
    with pytest.raises(ExchangeError, match="not in your home"):
        exchange("Submit", "s01", assignment_dir=str(tmp_path))
    with pytest.raises(ExchangeError, match="There is no folder"):
        exchange("Submit", "s01", "gone")
    with pytest.raises(ExchangeError, match="is not released"):
        exchange("FetchAssignment", "s02")


def test_the_command_of_an_environment_uses_it(tmp_path: Path) -> None:
    """As /opt/labcommons/etc/nbgrader_config.py says, wherever it is started."""
    released = tmp_path / "courses" / "ml101" / "files" / "assignments" / "hw1"
    released.mkdir(parents=True)
    (released / "first.ipynb").write_text(json.dumps(NOTEBOOK))
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", "list", "--course=ml101",
         f"--Exchange.root={tmp_path / 'courses'}"],
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(SERVER / "lib"),
             "JUPYTER_CONFIG_PATH": str(SERVER / "etc")},
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "ml101 hw1" in done.stderr
