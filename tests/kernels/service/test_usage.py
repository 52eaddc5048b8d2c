"""Counts of started kernels: in the store, and from the server that reports them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager

from commons.store.usage import KEPT, Started, add_starts, forget, last_used, uses
from kernels import usage
from kernels.manager import CondaKernelSpecManager

TORCH = Started("conda-shared-torch-python3", "shared", "torch", "1", 1)
NOON = datetime(2026, 11, 21, 12)


def test_starts_add_up_by_day_and_person(store) -> None:
    def work(session: Any) -> Any:
        add_starts(session, "alice", [TORCH, TORCH], NOON)
        add_starts(session, "alice", [TORCH], NOON + timedelta(days=1))
        add_starts(session, "bob", [TORCH], NOON)
        session.flush()
        return (
            uses(session, date(2026, 11, 21)),
            uses(session, date(2026, 11, 22)),
            uses(session, date(2026, 11, 1), "bob"),
        )

    both, second_day, bobs = store.transact(work)
    assert [(use.starts, use.people) for use in both] == [(4, 2)]
    assert [(use.starts, use.people) for use in second_day] == [(1, 1)]
    assert [(use.starts, use.people) for use in bobs] == [(1, 1)]
    assert both[0].last_used == NOON + timedelta(days=1)


def test_the_last_use_of_a_version_is_known_for_whoever_prunes(store) -> None:
    newer = Started(TORCH.kernel, "shared", "torch", "2", 1)

    def work(session: Any) -> Any:
        add_starts(session, "alice", [TORCH], NOON)
        add_starts(session, "bob", [newer], NOON + timedelta(hours=1))
        # A clock that was set back does not make a use older.
        add_starts(session, "bob", [newer], NOON + timedelta(minutes=1))
        session.flush()
        return last_used(session), last_used(session, "image")

    known, image = store.transact(work)
    assert known == {
        ("shared", "torch", "1"): NOON,
        ("shared", "torch", "2"): NOON + timedelta(hours=1),
    }
    assert image == {}


def test_what_is_older_than_a_year_is_forgotten(store) -> None:
    def work(session: Any) -> Any:
        add_starts(session, "alice", [TORCH], NOON)
        add_starts(session, "bob", [TORCH], NOON + KEPT)
        session.flush()
        forget(session, NOON + KEPT + timedelta(days=1))
        return uses(session, date(2020, 1, 1))

    assert [use.people for use in store.transact(work)] == [1]


class Service:
    """Takes reports, and answers with a status that can be changed."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[str, bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.got.append((self.headers["Authorization"], self.rfile.read(length)))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/kernels/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def service():
    service = Service()
    yield service
    service.server.shutdown()
    service.server.server_close()


PLACE = {"source": "shared", "environment": "torch", "version": None, "prefix": "/x"}


def test_starts_are_gathered_into_one_report(service) -> None:
    reporter = usage.Reporter(service.url, "a-token", gather=0.2)
    for _ in range(3):
        reporter.started("conda-shared-torch-python3", PLACE)
    deadline = time.monotonic() + 5
    while not service.got and time.monotonic() < deadline:
        time.sleep(0.02)
    ((authorization, raw),) = service.got
    assert authorization == "token a-token"
    assert b'"count": 3' in raw


def test_what_could_not_be_sent_goes_with_the_next_report(service) -> None:
    reporter = usage.Reporter(service.url, "a-token", gather=3600)
    service.status = 503
    reporter.started("k", PLACE)
    assert not reporter.send()
    service.status = 200
    reporter.started("k", PLACE)
    assert reporter.send()
    assert b'"count": 2' in service.got[-1][1]
    assert reporter.send()
    assert len(service.got) == 2


def test_a_report_never_grows_beyond_what_the_service_takes() -> None:
    reporter = usage.Reporter("http://127.0.0.1:1/", "a-token", gather=3600)
    for number in range(200):
        reporter.started(f"k{number}", PLACE)
    for _ in range(500):
        reporter.started("k0", PLACE)
    assert len(reporter._starts) == usage.MAX_ITEMS
    assert max(reporter._starts.values()) == usage.MAX_STARTS
    assert not reporter.send()
    assert len(reporter._starts) == usage.MAX_ITEMS


@pytest.mark.parametrize("place", [None, {}, {"source": "personal"}, "text"])
def test_what_is_no_matter_of_the_registry_is_not_reported(monkeypatch, place) -> None:
    monkeypatch.setattr(usage, "_reporter", None)
    monkeypatch.setenv("LABCOMMONS_KERNELS_URL", "http://127.0.0.1:1/")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "a-token")
    usage.started("k", place)
    assert usage._reporter is None


def test_a_server_that_was_started_otherwise_reports_nothing(monkeypatch) -> None:
    monkeypatch.setattr(usage, "_reporter", None)
    monkeypatch.delenv("LABCOMMONS_KERNELS_URL", raising=False)
    usage.started("k", PLACE)
    assert usage._reporter is None


def test_who_is_about_to_become_a_kernel_reports_it_by_another_process(
    monkeypatch, service
) -> None:
    monkeypatch.setenv("LABCOMMONS_KERNELS_URL", service.url)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "a-token")
    usage.report_apart("conda-personal-x-python3", {"source": "personal"})
    usage.report_apart("conda-shared-x-python3", {"source": "shared", "environment": "x"})
    deadline = time.monotonic() + 20
    while not service.got:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    [(authorization, raw)] = service.got
    assert authorization == "token a-token"
    assert [item["kernel"] for item in json.loads(raw)["starts"]] == ["conda-shared-x-python3"]


async def test_a_kernel_that_starts_in_a_server_is_reported(
    service, live_prefix, monkeypatch
) -> None:
    monkeypatch.setattr(usage, "_reporter", None)
    monkeypatch.setattr(usage, "GATHER", 0.1)
    monkeypatch.setenv("LABCOMMONS_KERNELS_URL", service.url)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "alices-server")
    source = {"id": "shared", "pattern": f"{live_prefix.parent}/*", "label": "shared"}
    manager = CondaKernelSpecManager(sources=[source])
    kernel = AsyncKernelManager(
        kernel_spec_manager=manager, kernel_name="conda-shared-lab-env-python3"
    )
    await kernel.start_kernel()
    try:
        async with asyncio.timeout(20):
            while not service.got:
                await asyncio.sleep(0.05)
    finally:
        await kernel.shutdown_kernel(now=True)
    ((authorization, raw),) = service.got
    assert authorization == "token alices-server"
    (start,) = json.loads(raw)["starts"]
    assert (start["kernel"], start["source"], start["environment"], start["count"]) == (
        "conda-shared-lab-env-python3",
        "shared",
        "lab-env",
        1,
    )
