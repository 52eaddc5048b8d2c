"""Where the trail is sent to: syslog over TLS, Elasticsearch, Splunk.

``send`` returns when the target has what it was given, and raises ``NotSent`` where that is not
known; then the same lines are sent again. What a target does not take whatever one does comes back
as refused.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from commons.audit.chain import digest
from commons.site import AuditTarget

TIMEOUT = 30  # seconds for each step of a conversation
MAX_ANSWER = 8 * 2**20  # bytes
ACK_WITHIN, ACK_EVERY = 60.0, 1.0  # seconds
_MAX_WAIT = 600.0


class NotSent(Exception):
    """A target may not have what it was given; the message says why.

    Attributes:
        wait: seconds that it asks for, 0 where it does not say.
        of_these: the target does not take what it was given, whoever sends it.
    """

    def __init__(self, why: str, wait: float = 0.0, of_these: bool = False) -> None:
        super().__init__(why)
        self.wait, self.of_these = wait, of_these


@dataclass(frozen=True)
class Refused:
    """A line that a target does not take, and why."""

    line: bytes
    why: str


class Target(ABC):
    """Somewhere lines are sent to.

    Args:
        settings: of the site file.
        folder: where its secrets are.
    """

    def __init__(self, settings: AuditTarget, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        url = urlsplit(settings.url)
        self.host, self.port, self.path = url.hostname or "", url.port, url.path.rstrip("/")

    @abstractmethod
    def send(self, lines: Sequence[bytes]) -> list[Refused]:
        """Send lines, in order. Raises NotSent."""

    def secret(self, ending: str) -> Path | None:
        """The file with one of its secrets, if there is one."""
        path = self.folder / f"{self.settings.name}.{ending}"
        return path if path.is_file() else None

    def context(self) -> ssl.SSLContext:
        """Raises NotSent for files that are no certificates."""
        ca, crt, key = (self.secret(ending) for ending in ("ca.crt", "crt", "key"))
        try:
            context = ssl.create_default_context(cafile=ca)
            if crt and key:
                context.load_cert_chain(crt, key)
        except OSError as error:  # SSLError is one
            raise NotSent(
                f"{self.settings.name}: its certificates cannot be read: {error}"
            ) from error
        return context


class Syslog(Target):
    """RFC 5424 messages over TLS (RFC 5425), one connection for each batch.

    The protocol has no receipt. A connection that is closed by both sides, after all was sent, is
    one: a receiver that dies with something unread resets it instead.
    """

    HOSTNAME = re.sub(r"[^!-~]", "", socket.gethostname())[:255] or "-"

    def send(self, lines: Sequence[bytes]) -> list[Refused]:
        data = b"".join(b"%d %s" % (len(one), one) for one in map(self.message, lines))
        try:
            with (
                socket.create_connection((self.host, self.port or 6514), TIMEOUT) as plain,
                self.context().wrap_socket(plain, server_hostname=self.host) as secure,
            ):
                secure.sendall(data)
                self._close(secure)
        except OSError as error:
            raise NotSent(_words(error)) from error
        return []

    @staticmethod
    def _close(secure: ssl.SSLSocket) -> None:
        try:
            secure.unwrap()
        except ssl.SSLEOFError:
            pass  # closed without a word of TLS, after ours
        except ssl.SSLError as error:
            # "Application data after close notify": it says something first, and closes then.
            if "APPLICATION_DATA_AFTER_CLOSE_NOTIFY" not in str(error):
                raise

    def message(self, line: bytes) -> bytes:
        """One event: facility 13 (log audit), severity notice, or warning for a failure."""
        event = json.loads(line)
        failed = event["event"].get("outcome") == "failure"
        writer = re.sub(r"[^!-~]", "", event["labcommons"]["chain"]["writer"])[:48]
        words = (
            f"<{13 * 8 + (4 if failed else 5)}>1 {event['@timestamp']} {self.HOSTNAME} labcommons "
            f"{writer or '-'} audit - "
        )
        return words.encode("ascii", "replace") + line


class _Http(Target):
    """What is asked over HTTP."""

    def ask(self, path: str, body: bytes, headers: dict[str, str]) -> Any:
        """POST, and the JSON of the answer. Raises NotSent, also for another answer than 200."""
        secure = urlsplit(self.settings.url).scheme == "https"
        connection = (
            HTTPSConnection(self.host, self.port, timeout=TIMEOUT, context=self.context())
            if secure
            else HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        )
        try:
            connection.request("POST", self.path + path, body, headers)
            answer = connection.getresponse()
            said = answer.read(MAX_ANSWER + 1)
            if len(said) > MAX_ANSWER:
                raise NotSent("the answer is too long")
            if answer.status != 200:
                wait = _seconds(answer.getheader("Retry-After"))
                why = f"HTTP {answer.status}: {said[:200].decode('utf-8', 'replace')}"
                raise NotSent(why, wait, answer.status in (400, 413))
            return json.loads(said)
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            raise NotSent(_words(error)) from error
        finally:
            connection.close()

    def token(self) -> str:
        """Raises NotSent where there is none."""
        path = self.secret("token")
        text = path.read_text("utf-8").strip() if path else ""
        if not text or not text.isprintable():
            raise NotSent(f"its token is missing: data/shipping/{self.settings.name}.token")
        return text


class Elasticsearch(_Http):
    """The bulk API (``_bulk``): an event's id is the hash of its line, so twice is once."""

    def send(self, lines: Sequence[bytes]) -> list[Refused]:
        index = self.settings.index
        body = b"".join(
            json.dumps({"create": {"_index": index, "_id": digest(line)}}).encode()
            + b"\n" + line + b"\n"
            for line in lines
        )  # fmt: skip
        headers = {"Content-Type": "application/x-ndjson"}
        if self.secret("token"):
            headers["Authorization"] = f"ApiKey {self.token()}"
        answer = self.ask("/_bulk", body, headers)
        items = answer.get("items") if isinstance(answer, dict) else None
        if not isinstance(items, list) or len(items) != len(lines):
            raise NotSent("the answer does not tell what became of each event")
        refused, again = [], ""
        for line, item in zip(lines, items, strict=True):
            done = item.get("create") if isinstance(item, dict) else None
            status = done.get("status") if isinstance(done, dict) else None
            if not isinstance(done, dict) or not isinstance(status, int):
                raise NotSent("the answer does not tell what became of each event")
            if status in (200, 201, 409):  # 409: it has it
                continue
            why = f"{status}: {json.dumps(done.get('error'))[:300]}"
            if status in (400, 413):
                refused.append(Refused(line, why))
            else:
                again = why
        if again:
            raise NotSent(again)
        return refused


class Splunk(_Http):
    """The HTTP event collector; with the indexers' acknowledgement, unless the site says no."""

    def __init__(self, settings: AuditTarget, folder: Path) -> None:
        super().__init__(settings, folder)
        self._channel = str(uuid.uuid4())

    def send(self, lines: Sequence[bytes]) -> list[Refused]:
        headers = {
            "Authorization": f"Splunk {self.token()}",
            "Content-Type": "application/json",
            "X-Splunk-Request-Channel": self._channel,
        }
        body = b"\n".join(map(self._wrapped, lines))
        answer = self.ask("/services/collector/event", body, headers)
        if not isinstance(answer, dict) or answer.get("code") != 0:
            raise NotSent(f"it says {json.dumps(answer)[:200]}")
        if self.settings.acknowledged:
            number = answer.get("ackId")
            if not isinstance(number, int):
                raise NotSent("it gives no ackId: switch acknowledgement on for the token, or set "
                              "acknowledged: false")  # fmt: skip
            self._wait_for(number, headers)
        return []

    def _wait_for(self, number: int, headers: dict[str, str]) -> None:
        until = time.monotonic() + ACK_WITHIN
        body = json.dumps({"acks": [number]}).encode()
        while True:
            answer = self.ask(f"/services/collector/ack?channel={self._channel}", body, headers)
            with suppress(AttributeError):
                if answer.get("acks", {}).get(str(number)) is True:
                    return
            if time.monotonic() > until:
                raise NotSent("it took the events, and did not acknowledge them")
            time.sleep(ACK_EVERY)

    @staticmethod
    def _wrapped(line: bytes) -> bytes:
        event = json.loads(line)
        head = {
            "time": datetime.fromisoformat(event["@timestamp"]).timestamp(),
            "source": event["labcommons"]["chain"]["writer"],
            "sourcetype": "labcommons:audit",
        }
        return json.dumps(head).encode()[:-1] + b', "event": ' + line + b"}"


KINDS: dict[str, type[Target]] = {
    "syslog": Syslog,
    "elasticsearch": Elasticsearch,
    "splunk": Splunk,
}


def make(settings: AuditTarget, folder: Path) -> Target:
    """A target of the site file."""
    return KINDS[settings.kind](settings, folder)


def _seconds(said: str | None) -> float:
    """Of Retry-After in seconds; as a date, it is not read."""
    try:
        return min(_MAX_WAIT, max(0.0, float(said or 0)))
    except ValueError:
        return 0.0


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
