"""What the console answers, as a person in a server is told it; it may be anything."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kernels.console import Console, ConsoleError
from kernels.own_environments import derive, follow
from kernels.packages import Offer

BUILD = {"id": "a1", "name": "mine", "percent": 3, "message": "m", "sentence": None}


class Answers(BaseHTTPRequestHandler):
    """Gives what the test has put there, in turn, and remembers what was asked."""

    given: list[tuple[int, object]] = []  # noqa: RUF012
    asked: list[tuple[str, str, str]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        Answers.asked.append((self.command, self.path, self.headers["Authorization"]))
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        status, document = Answers.given.pop(0)
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def console() -> Iterator[Console]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Answers.given.clear()
    Answers.asked.clear()
    url = f"http://127.0.0.1:{server.server_port}/services/labcommons/"
    yield Console({"LABCOMMONS_CONSOLE_URL": url, "JUPYTERHUB_API_TOKEN": "t", "LANG": "en"})
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "document", "words"),
    [
        (403, {"error": {"code": "x", "message": "Not for you.", "reasons": []}}, "Not for you."),
        (404, {"status": 404, "message": "Not offered to servers."}, "Not offered to servers."),
        (503, {"error": {"message": "x"}}, "does not answer"),
        (500, b"<html>", "does not answer"),
        (409, [1], "does not answer"),
        (200, b"no JSON", "does not answer"),
        (200, b"[" * 100_000, "does not answer"),
        (202, {"build": "x"}, "does not answer"),
        (202, {"build": {"id": 1}}, "does not answer"),
    ],
)
def test_a_refusal_is_one_sentence(
    console: Console, status: int, document: object, words: str
) -> None:
    """Kind: whatever a console or what stands before it answers."""
    Answers.given.append((status, document))
    with pytest.raises(ConsoleError, match=words):
        console.derive("team-a/../x", "b c", {"pip": ["x"]})
    [(_, path, token)] = Answers.asked
    assert path == "/services/labcommons/api/v1/environments/team-a%2F..%2Fx/b%20c/derive"
    assert token == "token t"


def test_without_a_site_it_says_so() -> None:
    with pytest.raises(ConsoleError, match="LABCOMMONS_CONSOLE_URL"):
        Console({}).ask("GET", "builds")


def test_a_build_is_followed_over_a_restart_of_the_hub(console: Console) -> None:
    """Kind: the console goes away while somebody waits."""
    ended = {**BUILD, "state": "done", "version": "1"}
    Answers.given += [
        (200, {"build": {**BUILD, "state": "running"}}),
        (502, b""),
        (200, {"build": {**BUILD, "state": "running", "sentence": "去"}}),
        (200, {"build": ended}),
    ]
    shown: list[str] = []
    assert follow(console, BUILD, shown.append, lambda _: None) == ended
    assert shown == ["  3%  m", "  3%  去"]


def test_a_build_that_failed_says_why(console: Console) -> None:
    Answers.given.append((200, {"build": {**BUILD, "state": "failed", "message": "No such."}}))
    with pytest.raises(ConsoleError, match="No such"):
        follow(console, BUILD, print, lambda _: None)


def test_a_copy_that_has_it_already_is_the_answer(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind: the same first cell in a second notebook, when the copy has been made."""
    refusal = {"error": {"code": "edit_nothing_to_change", "message": "Nothing would change."}}
    wanted = Offer("shared", "lab", pip=("cowsay",))
    monkeypatch.setenv("HOME", str(tmp_path))
    Answers.given.append((400, refusal))
    with pytest.raises(ConsoleError, match="Nothing would change"):
        derive(console, wanted)
    for name, has in (("lab", "other"), ("lab-2", "cowsay")):
        prefix = tmp_path / ".conda/envs" / name
        (prefix / "conda-meta").mkdir(parents=True)
        folder = prefix / f"lib/python3.13/site-packages/{has}-6.1.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {has}\nVersion: 6.1\n")
    Answers.given.append((400, refusal))
    found = derive(console, wanted)
    assert (found["name"], follow(console, found, print)["state"]) == ("lab-2", "done")
