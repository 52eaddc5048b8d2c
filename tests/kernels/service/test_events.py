"""The stream of events: who gets what, coming back, and those who do not keep up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.store import Store
from kernels.service import stream as streams
from kernels.service.events import WAITING, EventLog, Listener
from tests.kernels.service.conftest import PREFIX, add

API = PREFIX + "api/v1/events"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """One engine is enough here: the SQL is tested on both, with the passes and the counts."""
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    yield store
    store.close()


def texts(listener: Listener) -> list[str]:
    got = []
    while not listener.queue.empty():
        item = listener.queue.get_nowait()
        got.append("END" if item is None else item.decode())
    return got


def kinds(listener: Listener) -> list[str]:
    return [text.split("event: ")[1].split("\n")[0] for text in texts(listener) if "event" in text]


async def test_a_listener_gets_what_he_may_see() -> None:
    log = EventLog()
    alice = log.listen("alice", lambda source: source == "shared", None)
    log.publish("added", {"n": 1}, "shared")
    log.publish("added", {"n": 2}, "team-x")
    log.publish("changed", {"n": 3})
    got = texts(alice)
    assert ["event: hello" in got[0], '"n": 1' in got[1], '"n": 3' in got[2]] == [True] * 3
    assert len(got) == 3


@given(st.integers(0, 30), st.integers(0, 30))
def test_coming_back_gives_what_was_missed_and_nothing_twice(before: int, missed: int) -> None:
    log = EventLog()
    for number in range(before):
        log.publish("added", {"n": number}, "shared")
    last = log.last_id
    for number in range(missed):
        log.publish("added", {"n": before + number}, "shared")
    came_back = log.listen("alice", lambda source: True, last)
    got = [json.loads(text.split("data: ")[1]) for text in texts(came_back) if "added" in text]
    assert [item["n"] for item in got] == list(range(before, before + missed))


@pytest.mark.parametrize(
    "last", ["x", "", "0-0", "deadbeef-3", "-", "life-99", "life--1", "life-²"]
)
async def test_an_id_that_is_not_known_begins_anew(last) -> None:
    log = EventLog()
    log.publish("added", {}, "shared")
    last = last.replace("life", log.last_id.partition("-")[0])
    assert kinds(log.listen("alice", lambda source: True, last or None)) == [
        "reset" if last else "hello"
    ]


async def test_more_than_may_wait_is_one_reset() -> None:
    log = EventLog()
    last = log.last_id
    for number in range(WAITING):
        log.publish("added", {"n": number}, "shared")
    assert kinds(log.listen("alice", lambda source: True, last)) == ["reset"]
    last = log.last_id
    log.reset()
    assert kinds(log.listen("alice", lambda source: True, last)) == ["reset"]


async def test_a_listener_who_does_not_keep_up_is_dropped_and_nobody_else() -> None:
    log = EventLog()
    slow = log.listen("slow", lambda source: True, None)
    quick = log.listen("quick", lambda source: True, None)
    for number in range(WAITING * 3):
        log.publish("added", {"n": number}, "shared")
        texts(quick)
    assert texts(slow) == ["END"]
    assert slow.dropped
    assert not quick.dropped


# Over HTTP -------------------------------------------------------------------------------------


class Stream:
    """A client of the stream that reads when it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def event(self) -> tuple[str, str, Any]:
        """The next one: id, kind, data."""
        found: dict[str, str] = {}
        async with asyncio.timeout(5):
            while True:
                line = (await self.reader.readline()).decode().rstrip("\n")
                if not line and "event" in found:
                    return found["id"], found["event"], json.loads(found["data"])
                name, _, value = line.partition(": ")
                found[name] = value


@contextlib.asynccontextmanager
async def stream(origin: str, token: str, last: str = "", buffer: int = 0) -> AsyncIterator[Stream]:
    url = urlsplit(origin)
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (url.hostname, url.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**20)
    head = f"GET {API} HTTP/1.0\r\nHost: x\r\nAuthorization: token {token}\r\n"
    writer.write((head + (f"Last-Event-ID: {last}\r\n" if last else "") + "\r\n").encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in answer, answer
    assert b"text/event-stream" in answer
    yield Stream(reader, writer)
    writer.close()


async def test_changes_are_told_to_those_who_may_see_them(origin, registrar, make_prefix) -> None:
    await registrar.refresh()
    async with stream(origin, "alice-token") as alice, stream(origin, "s01-token") as student:
        assert (await alice.event())[1] == (await student.event())[1] == "hello"
        make_prefix("torch", root="teams/vision/envs")
        await registrar.refresh()
        make_prefix("stats", root="shared/envs")
        await registrar.refresh()
        first, second = await alice.event(), await alice.event()
        assert [(kind, data["environment"]) for _, kind, data in (first, second)] == [
            ("added", "torch"),
            ("added", "stats"),
        ]
        assert first[2]["kernels"][0]["name"] == "conda-team-vision-torch-python3"
        _, kind, data = await student.event()
        assert (kind, data["environment"]) == ("added", "stats")


async def test_an_image_for_one_team_is_told_to_that_team_alone(origin, registrar, store) -> None:
    await registrar.refresh()
    async with stream(origin, "alice-token") as alice, stream(origin, "s01-token") as student:
        assert (await alice.event())[1] == (await student.event())[1] == "hello"
        add(store, "secret", access={"teams": ["vision"], "courses": []})
        await registrar.refresh()
        add(store, "open")
        await registrar.refresh()
        assert (await alice.event())[2]["environment"] == "secret"
        assert (await student.event())[2]["environment"] == "open"


async def test_a_stream_is_taken_up_where_it_ended(origin, registrar, store) -> None:
    await registrar.refresh()
    async with stream(origin, "alice-token") as alice:
        last, _, _ = await alice.event()
    add(store)
    await registrar.refresh()
    add(store, "more")
    await registrar.refresh()
    async with stream(origin, "alice-token", last) as alice:
        got = [await alice.event(), await alice.event()]
    assert [data["environment"] for _, _, data in got] == ["data", "more"]


async def test_very_many_changes_are_one_reset(origin, registrar, store) -> None:
    await registrar.refresh()
    async with stream(origin, "alice-token") as alice:
        await alice.event()
        for number in range(60):
            add(store, f"e{number}")
        await registrar.refresh()
        assert (await alice.event())[1] == "reset"


async def test_whoever_stops_reading_is_dropped(origin, registrar, monkeypatch) -> None:
    monkeypatch.setattr(streams, "SEND_TIMEOUT", 0.3)
    await registrar.refresh()
    async with stream(origin, "alice-token", buffer=4096):
        for _ in range(200):
            registrar.events.publish("changed", {"reason": "x" * 100_000}, "shared")
            await asyncio.sleep(0.01)
            if not registrar.events.listeners:
                break
        async with asyncio.timeout(5):
            while registrar.events.listeners:
                await asyncio.sleep(0.05)


async def test_whoever_leaves_is_forgotten(origin, registrar) -> None:
    async with stream(origin, "alice-token") as alice:
        await alice.event()
        assert len(registrar.events.listeners) == 1
    async with asyncio.timeout(5):
        while registrar.events.listeners:
            await asyncio.sleep(0.02)


async def test_silence_is_filled_with_keep_alives(origin, registrar) -> None:
    async with stream(origin, "alice-token") as alice:
        await alice.event()
        registrar.events.keep_alive()
        async with asyncio.timeout(5):
            assert await alice.reader.readline() == b": keep-alive\n"


async def test_one_person_may_not_hold_all_streams(origin, ask, monkeypatch) -> None:
    monkeypatch.setattr(streams, "LISTENERS_EACH", 2)
    async with stream(origin, "alice-token") as one, stream(origin, "alice-token") as two:
        await one.event()
        await two.event()
        refused = await ask(API, "alice-token")
        assert refused.code == 429
        assert refused.headers["Retry-After"]
        async with stream(origin, "bob-token") as other:
            assert (await other.event())[1] == "hello"


async def test_a_stream_ends_after_a_while_so_that_rights_are_asked_for_again(
    origin, registrar, monkeypatch
) -> None:
    monkeypatch.setattr(streams, "LISTEN_AT_MOST", 0.2)
    async with stream(origin, "alice-token") as alice, asyncio.timeout(5):
        await alice.reader.read()
