"""A server that was started before its owner comes has behind it what a browser asks first."""

from __future__ import annotations

import json
from pathlib import Path

from rig.persons_server import running

LAST = "asked ahead"
LOUD = ("--ServerApp.log_level=DEBUG",)


def test_it_asks_itself_first_and_that_is_no_use_of_it(tmp_path: Path) -> None:
    with running(tmp_path, *LOUD, LABCOMMONS_AHEAD="1", JUPYTERHUB_API_TOKEN="good") as one:
        one.until(lambda: LAST in one.said())
        for path in ("api/kernelspecs", "api/me", "api/contents?content=1"):
            [line] = [x for x in one.said().splitlines() if f"GET /user/lab/{path}" in x]
            assert " 200 GET " in line
        status, _, text = one.client.ask("api/status?no_track_activity=1", "good")
        found = json.loads(text)
        assert (status, found["last_activity"]) == (200, found["started"]), one.said()


def test_one_whose_owner_waits_asks_nothing(tmp_path: Path) -> None:
    with running(tmp_path, *LOUD) as one:
        assert one.client.ask("api/me", "good")[0] == 200
        assert "no_track" not in one.said()
