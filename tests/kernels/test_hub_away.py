"""A person's server while hub and console are started anew: one line in its log, not one a try."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from tornado.httpclient import HTTPRequest, HTTPResponse

from rig.persons_server import Running, loaded, running

WARNS = re.compile(r"^\[[WEC] |Traceback|\b(WARNING|ERROR|CRITICAL)\b", re.MULTILINE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as one:
        yield one


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


def test_who_is_at_work_goes_on_while_the_hub_is_away(tmp_path: Path) -> None:
    """Kind: a notebook that is saved while the hub restarts (Lab's "File Save Error")."""
    with running(tmp_path, "--HubAuth.cache_max_age=1") as server:
        hub, client = server.hub, server.client

        def answers(token: str) -> int:
            time.sleep(1.1)  # as long as an answer is given without a question
            return int(client.ask(API, token)[0])

        assert answers("good") == 200
        hub.close()
        assert [answers("good"), answers("new")] == [200, 500]
        hub.open()
        hub.broken = True
        assert [answers("good"), answers("new")] == [200, 502]
        # The hub's word is the last, also where it goes away right after.
        hub.broken, hub.good = False, set()
        assert answers("good") == 403
        hub.broken = True
        assert answers("good") == 502


def test_what_is_known_of_people_goes_on_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "labcommons_away", loaded("notices/labcommons_away.py"))
    fetch = loaded("launch/labcommons_fetch.py")
    clock = [0.0]
    monkeypatch.setattr(fetch.time, "monotonic", lambda: clock[0])
    known = fetch.Known()

    def asked(path: str, token: str = "a", method: str = "GET") -> HTTPRequest:
        return HTTPRequest(f"http://hub/hub/api/{path}", method, {"Authorization": token})

    def said(code: int) -> object:
        return fetch.Response(HTTPResponse(asked("user"), code, buffer=BytesIO()))

    answer = said(200)
    for request in (asked("user"), asked("user", method="POST"), asked("users/a/activity")):
        known.keep(request, answer)
    assert known.find(asked("user")) is answer
    assert not any(map(known.find, (asked("user", "b"), asked("users/a/activity"))))
    clock[0] = fetch.GOES_ON
    assert known.find(asked("user")) is None
    for ends in (lambda: known.keep(asked("user"), said(403)), known.forget):
        known.keep(asked("user"), answer)
        assert known.find(asked("user")) is answer
        ends()
        assert known.find(asked("user")) is None
    for number in range(fetch.MOST + 9):
        known.keep(asked("user", str(number)), answer)
    assert known.find(asked("user", "8")) is None
    assert known.find(asked("user", "9")) is answer


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
