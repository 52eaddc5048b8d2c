"""``labcommons server`` and ``labcommons user`` on the machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from commons.store import Store, blocks
from commons.store.models import AnnouncedStop
from hub_ext.server_cli import server
from hub_ext.user_cli import user

from .console.conftest import runs
from .console.test_people import came

SAID = {
    "servers": [runs("alice", memory=5 * 10**8, cpu=0.5), runs("bob", "train", gpus=1)],
    "seen": {"alice": "2026-11-29T08:30:00Z"},
}


class _Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        right = self.headers["Authorization"] == "token of-the-console"
        self.send_response(200 if right and self.path == "/hub/api/live" else 403)
        self.end_headers()
        self.wfile.write(json.dumps(SAID).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    hub = HTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("LABCOMMONS_HUB_URL", f"http://127.0.0.1:{hub.server_port}")
    monkeypatch.setenv("LABCOMMONS_SECRETS", str(tmp_path))
    monkeypatch.setenv("LABCOMMONS_DATA", str(tmp_path))
    (tmp_path / "console-token").write_text("of-the-console\n")
    url = f"sqlite:///{tmp_path / 'labcommons.sqlite'}"
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", url)
    store = Store(url)
    store.migrate()
    store.transact(came)
    yield store
    store.close()
    hub.shutdown()
    hub.server_close()


def call(command: object, *words: str, input: str = "") -> Result:
    return CliRunner().invoke(command, list(words), input=input)  # type: ignore[arg-type]


def test_servers_are_listed_shown_stopped_and_written_to(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:

    found = json.loads(call(server, "list", "--sort", "memory", "--json").stdout)
    assert [one["who"] for one in found] == ["alice", "bob/train"]
    assert "476.8 MB" in call(server, "list", "ali").stdout
    assert json.loads(call(server, "show", "alice", "--json").stdout)["cpu"] == 0.5
    assert call(server, "show", "zoe").exit_code == 1
    assert call(server, "stop", "alice", input="n\n").exit_code == 1
    asked = select(AnnouncedStop.username, AnnouncedStop.message)
    assert store.transact(lambda s: s.execute(asked).all()) == []
    done = call(server, "stop", "alice", "zoe", "-m", "Service.", "--yes")
    assert (done.exit_code, "Being stopped: alice" in done.stdout) == (1, True)
    assert store.transact(lambda s: s.execute(asked).all()) == [("alice", "Service.")]
    assert call(server, "message", "bob/train", "-m", "Save, please").exit_code == 0
    assert call(server, "extend", "bob/train", "--by", "2h").exit_code == 1, "it has no end"
    assert call(server, "stop", "alice", "--in", "never", "--yes").exit_code == 1
    assert call(server, "warm", "list").exit_code == 0
    monkeypatch.setenv("LABCOMMONS_HUB_URL", "http://127.0.0.1:1")
    assert "the hub does not say what runs" in call(server, "list").output


def test_people_are_listed_shown_blocked_and_let_in_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json.loads(call(user, "list", "--group", "group:vision", "--json").stdout)
    assert [one["name"] for one in found] == ["alice", "bob"]
    assert found[0]["servers"] == ["alice"]
    assert json.loads(call(user, "show", "alice", "--json").stdout)["home_bytes"] == 3 * 2**30
    assert call(user, "show", "zoe").exit_code == 1
    words = ("block", "alice", "--reason", "Ask carol", "--until", "7d")
    assert call(user, *words, input="n\n").exit_code == 1
    assert store.transact(lambda s: blocks.standing(s)) == {}
    assert call(user, *words, "--yes").exit_code == 0
    assert "blocked" in call(user, "list", "--state", "blocked").stdout
    monkeypatch.setenv("LABCOMMONS_HUB_URL", "http://127.0.0.1:1")
    without = call(user, "show", "alice")
    assert (without.exit_code, "servers are not known" in without.output) == (0, True)
    assert call(user, "unblock", "alice").exit_code == 0
    assert call(user, "unblock", "alice").exit_code == 1
    assert call(user, "block", "zoe", "--reason", "x", "--yes").exit_code == 1
