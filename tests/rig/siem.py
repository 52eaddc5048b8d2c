"""Stand-ins for where the audit trail is sent to, by the documented APIs, and a real rsyslog.

Elasticsearch's ``_bulk`` and Splunk's event collector behave as they are told: each request takes
the next behaviour of a list, and works when the list is at its end.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RSYSLOG = shutil.which("rsyslogd") or "/usr/sbin/rsyslogd"


class Siem:
    """What a stand-in has, and how it is to behave.

    Attributes:
        events: by id (Elasticsearch), or in order (Splunk).
        behave: "503", "429", "drop" (200, and nothing is kept), "half" (of an answer), "close",
            "kept" (it has it, and the answer is lost), "mapping" (the first is refused for good),
            "busy" (429 for the first), "large" (413).
    """

    def __init__(self, *behave: str) -> None:
        self.behave = list(behave)
        self.events: dict[str, dict[str, Any]] = {}
        self.order: list[dict[str, Any]] = []
        self.asked: list[dict[str, str]] = []
        self._acks: dict[int, bool] = {}
        self.lock = threading.Lock()
        self.url = ""

    def next(self) -> str:
        with self.lock:
            return self.behave.pop(0) if self.behave else ""


def _handler(siem: Siem) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            siem.asked.append(dict(self.headers))
            if self.path.startswith("/services/collector/ack"):
                self.say({"acks": {str(n): self.acked(n) for n in json.loads(body)["acks"]}})
                return
            how = siem.next()
            if how in ("503", "429", "large"):
                status = {"large": 413}.get(how) or int(how)
                self.say({"text": "no"}, status, {"Retry-After": "0.01"})
            elif how == "close":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif self.path == "/_bulk":
                self.bulk(body, how)
            elif self.path == "/services/collector/event":
                self.collect(body, how)
            else:
                self.say({}, 404)

        def bulk(self, body: bytes, how: str) -> None:
            lines = body.splitlines()
            items = []
            for head, event in zip(lines[::2], lines[1::2], strict=True):
                name = json.loads(head)["create"]["_id"]
                status = 409 if name in siem.events else 201
                if how in ("mapping", "busy") and not items:
                    status = 400 if how == "mapping" else 429
                elif how != "drop":
                    siem.events.setdefault(name, json.loads(event))
                items.append({"create": {"_id": name, "status": status, "error": {"type": how}}})
            self.answer({"errors": bool(how), "items": items}, how)

        def collect(self, body: bytes, how: str) -> None:
            events = [json.loads(line)["event"] for line in body.splitlines()]
            with siem.lock:
                number = len(siem._acks)
                siem._acks[number] = how != "drop"
                siem.order += events if how != "drop" else []
            self.answer({"text": "Success", "code": 0, "ackId": number}, how)

        def acked(self, number: int) -> bool:
            return siem._acks.get(number, False)

        def answer(self, said: dict[str, Any], how: str) -> None:
            if how == "kept":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.say(said, half=how == "half")

        def say(
            self, said: object, status: int = 200, more: dict[str, str] | None = None,
            half: bool = False,
        ) -> None:  # fmt: skip
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in (more or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if half else data)
            self.close_connection = self.close_connection or half

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def answering(siem: Siem, port: int = 0) -> Iterator[Siem]:
    """A stand-in that is there."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(siem))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    siem.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield siem
    finally:
        server.shutdown()
        server.server_close()


class Rsyslog:
    """Debian's rsyslogd, which takes syslog over TLS and writes each message as it came."""

    def __init__(self, folder: Path, ca: Path, crt: Path, key: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.output = folder, folder / "messages"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.config = folder / "rsyslog.conf"
        self.config.write_text(
            f"""global(workDirectory="{folder}" maxMessageSize="128k"
  defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{crt}"
  defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
template(name="asis" type="string" string="%syslogseverity% %app-name% %procid% %msg%\\n")
input(type="imtcp" address="127.0.0.1" port="{self.port}")
action(type="omfile" file="{self.output}" template="asis")
"""
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it listens."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [RSYSLOG, "-n", "-f", str(self.config), "-i", str(self.folder / "pid")],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self, kill: bool = False) -> None:
        """End it, as a machine would, or as a power cut."""
        if self._process is not None:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(30)
            self._process = None
            (self.folder / "pid").unlink(missing_ok=True)

    def events(self) -> list[dict[str, Any]]:
        """What it has written."""
        try:
            lines = self.output.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line.split(" ", 3)[3].strip()) for line in lines]
