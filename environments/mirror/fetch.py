"""One answer from outside: the nearest place that has it, redirects followed, checked as it comes.

Whatever an upstream does ends here: a page in the place of a package, a circle of redirects, an
answer that is cut off, or that never ends. What is not whole is ended without its last bytes, which
nginx then does not keep.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from environments.mirror import simple
from environments.mirror.routes import NOT_KEPT, NOT_THERE, Wanted

CHUNK = 256 * 1024  # bytes
BEGIN = 16  # bytes that tell what it is
MOST = 40 * 2**30  # bytes of one file
MOST_OF_PAGE = 64 * 2**20  # bytes of a page of links
REDIRECTS = 5
LONGEST_PAUSE = 60.0  # seconds in which a place that always fails is not asked
BAD = 600.0  # seconds in which a file with other bytes is not asked of its place again
_AGENT = "labcommons-mirror"
_PASSED_BACK = ("ETag", "Last-Modified")
_REDIRECT = (301, 302, 303, 307, 308)


class Trouble(Exception):
    """A place is of no use for this; says why in one line."""


class Cut(Exception):
    """What was begun cannot be ended; says why in one line."""


@dataclass(frozen=True)
class Limits:
    """Seconds, and bytes a second."""

    connect: float = 5
    silence: float = 20  # between two pieces
    headers: float = 60
    patience: float = 60  # after which an answer has to have been faster than ``slowest``
    slowest: float = 4096


@dataclass
class Place:
    """What is known of one host."""

    failed: int = 0  # times, one after another
    failed_at: float = 0
    problem: str = ""
    answered_at: float = 0
    took: float = 0  # seconds to its last answer's beginning
    bytes: int = 0
    answers: int = 0

    def rests(self, now: float) -> bool:
        """Whether it failed so often that it is not asked just now."""
        return self.failed > 1 and now < self.failed_at + min(LONGEST_PAUSE, 2.0 * self.failed)


@dataclass
class Answer:
    """For nginx. ``chunks`` raises Cut where the rest must not be believed."""

    status: int
    keep: int
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Iterable[bytes] = ()
    length: int | None = 0  # bytes; None: not known


class Fetcher:
    """Fetches for many threads at once."""

    def __init__(self, limits: Limits | None = None, indexes: tuple[str, ...] = ()) -> None:
        self.limits = limits or Limits()
        self.indexes = indexes
        self.places: dict[str, Place] = {}
        self._bad: dict[str, float] = {}
        self._lock = threading.Lock()
        self._tls = ssl.create_default_context()

    def fetch(
        self, wanted: Wanted, asked: Mapping[str, str] | None = None, sha256: str = ""
    ) -> Answer:
        """The first good answer.

        Args:
            asked: conditions of nginx: ``If-None-Match``, ``If-Modified-Since``.
            sha256: what the file has to be, where who asks knows it.
        """
        now, missing, problems = time.time(), False, []
        with self._lock:
            resting = {url for url in wanted.urls if self._of(url).rests(now)}
            bad = {url for url in wanted.urls if self._bad.get(url, 0) > now}
        # One that has just failed comes last, and where all rest nobody waits for them.
        for url in sorted(wanted.urls, key=lambda one: one in resting):
            host = urlsplit(url).netloc
            if url in bad:
                problems.append(f"{host}: had other bytes than it should")
                continue
            if url in resting and (missing or len(resting) == len(wanted.urls)):
                problems.append(f"{host}: {self._of(url).problem}; asked again soon")
                continue
            begin = time.monotonic()
            try:
                answer = self._from(url, wanted, asked or {}, sha256)
            except Trouble as trouble:
                self._note(url, str(trouble))
                problems.append(f"{host}: {trouble}")
                continue
            if answer is not None:
                self._note(url, "", time.monotonic() - begin)
                return answer
            self._note(url, "", time.monotonic() - begin)
            missing = True
        if missing:
            return said(404, NOT_THERE, "no upstream of the mirror has it")
        return said(502, NOT_KEPT, "; ".join(problems) or "there is no upstream")

    def _of(self, url: str) -> Place:
        return self.places.setdefault(urlsplit(url).netloc, Place())

    def _note(self, url: str, problem: str, took: float = 0) -> None:
        with self._lock:
            place = self._of(url)
            if problem:
                place.failed, place.failed_at, place.problem = (
                    place.failed + 1, time.time(), problem[:300],
                )  # fmt: skip
            else:
                place.failed, place.problem = 0, ""
                place.answered_at, place.took = time.time(), took
                place.answers += 1

    def _from(
        self, url: str, wanted: Wanted, asked: Mapping[str, str], sha256: str
    ) -> Answer | None:
        """From one place; None where it does not have it. Raises Trouble."""
        with _as_trouble():
            end, connection, response = self._open(url, asked)
        done = False
        try:
            if response.status == 304 and asked:
                return Answer(304, wanted.keep, _kept_of(response))
            if response.status in (404, 410):
                return None
            if response.status != 200:
                raise Trouble(f"answers with status {response.status}")
            length = _length(response)
            if wanted.page:
                return self._page(url, end, wanted, response)
            if (length or 0) > MOST:
                raise Trouble(f"a file of {length} bytes is more than the mirror takes")
            first = self._first(response)
            _look(first, wanted, response.headers.get("Content-Type", ""))
            chunks = self._rest(url, wanted, sha256, connection, response, first, length)
            done = True
            headers = {
                "Content-Type": response.headers.get("Content-Type", "application/octet-stream")
            }
            return Answer(200, wanted.keep, headers | _kept_of(response), chunks, length)
        finally:
            if not done:
                connection.close()

    def _page(
        self, url: str, end: str, wanted: Wanted, response: http.client.HTTPResponse
    ) -> Answer:
        parts, size = [], 0
        try:
            for chunk in self._pieces(response, b"", _length(response)):
                size += len(chunk)
                if size > MOST_OF_PAGE:
                    raise Trouble("a page of links that is too long")
                parts.append(chunk)
        except Cut as cut:
            raise Trouble(str(cut)) from cut
        number = next((n for n, one in enumerate(self.indexes) if url.startswith(f"{one}/")), 0)
        index = self.indexes[number] if self.indexes else url
        try:
            body, media = simple.rewritten(
                b"".join(parts), response.headers.get("Content-Type", ""), end, wanted.project,
                index, number,
            )  # fmt: skip
        except simple.NoPage as error:
            raise Trouble(str(error)) from error
        self._count(url, size)
        return Answer(
            200, wanted.keep, {"Content-Type": media} | _kept_of(response), iter([body]), len(body)
        )

    def _rest(
        self,
        url: str,
        wanted: Wanted,
        sha256: str,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        first: bytes,
        length: int | None,
    ) -> Iterator[bytes]:
        """The pieces, the last one only when all is known to be right."""
        sums: list[tuple[Any, str]] = [(hashlib.sha256(), sha256)] if sha256 else []
        sums += [(hashlib.blake2b(digest_size=32), wanted.blake2)] if wanted.blake2 else []
        held, size = b"", 0
        try:
            for chunk in self._pieces(response, first, length):
                if held:
                    yield held
                held, size = chunk, size + len(chunk)
                for total, _ in sums:
                    total.update(chunk)
            if any(total.hexdigest() != right for total, right in sums):
                with self._lock:
                    self._bad[url] = time.time() + BAD
                    for old in [one for one, until in self._bad.items() if until < time.time()]:
                        del self._bad[old]
                raise Cut(f"{urlsplit(url).netloc} has other bytes than it should")
            yield held
        except Cut as cut:
            self._note(url, str(cut))
            raise
        finally:
            self._count(url, size)
            connection.close()

    def _pieces(
        self, response: http.client.HTTPResponse, first: bytes, length: int | None
    ) -> Iterator[bytes]:
        begin, size, chunk = time.monotonic(), 0, first or _piece(response)
        while chunk:
            size += len(chunk)
            if size > MOST or (length is not None and size > length):
                raise Cut("the answer is longer than it said")
            spent = time.monotonic() - begin
            if spent > self.limits.patience and size / spent < self.limits.slowest:
                raise Cut(f"only {size} bytes in {spent:.0f} s")
            yield chunk
            chunk = _piece(response)
        if length is not None and size != length:
            raise Cut(f"cut off after {size} of {length} bytes")

    def _first(self, response: http.client.HTTPResponse) -> bytes:
        """Enough to see what it is. Raises Trouble."""
        first, end = b"", time.monotonic() + self.limits.patience
        while len(first) < BEGIN and time.monotonic() < end:
            try:
                piece = _piece(response)
            except Cut as cut:
                raise Trouble(str(cut)) from cut
            if not piece:
                break
            first += piece
        return first

    def _count(self, url: str, size: int) -> None:
        with self._lock:
            self._of(url).bytes += size

    def _open(
        self, url: str, asked: Mapping[str, str]
    ) -> tuple[str, http.client.HTTPConnection, http.client.HTTPResponse]:
        """The answer at the end of all redirects, and where that is."""
        home, seen = urlsplit(url), [url]
        while True:
            connection, response = self._ask(seen[-1], asked if len(seen) == 1 else {}, url)
            if response.status not in _REDIRECT:
                return seen[-1], connection, response
            connection.close()
            there = urljoin(
                seen[-1], quote(response.headers.get("Location", ""), safe="%/:=&?~#+!$,;'@()*[]")
            )
            to = urlsplit(there)
            if to.scheme not in ("http", "https") or not to.hostname:
                raise Trouble(f"leads to {there[:200]!r}")
            if to.scheme == "http" and home.scheme == "https":
                raise Trouble(f"leads to {to.netloc} without TLS")
            if there in seen:
                raise Trouble("leads to itself")
            if len(seen) > REDIRECTS:
                raise Trouble(f"leads on more than {REDIRECTS} times")
            seen.append(there)

    def _ask(
        self, url: str, asked: Mapping[str, str], place: str
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        parts, limits = urlsplit(url), self.limits
        proxy = None if urllib.request.proxy_bypass(parts.netloc) else _proxy(parts.scheme)
        if proxy is None and parts.hostname != urlsplit(place).hostname:
            _may_lead(parts.hostname or "")
        host, port = (proxy.hostname, proxy.port or 80) if proxy else (parts.hostname, parts.port)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host or "", port, timeout=limits.connect, context=self._tls
            )
            if proxy:
                connection.set_tunnel(parts.hostname or "", parts.port or 443)
        else:
            connection = http.client.HTTPConnection(host or "", port, timeout=limits.connect)
        target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        if proxy and parts.scheme == "http":
            target = parts._replace(fragment="").geturl()
        headers = {
            **({"Host": parts.netloc} if proxy else {}),
            "User-Agent": _AGENT,
            "Accept": simple.ACCEPT if "/simple/" in url else "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **asked,
        }
        # A server that says its headers letter by letter is left, too.
        watch = threading.Timer(limits.headers, _end, [connection])
        watch.daemon = True
        try:
            connection.connect()
            connection.sock.settimeout(limits.silence)
            watch.start()
            connection.request("GET", target, headers=headers)
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise
        finally:
            watch.cancel()


def said(status: int, keep: int, words: str) -> Answer:
    """An answer of one line."""
    body = f"{words}\n".encode()
    return Answer(status, keep, {"Content-Type": "text/plain; charset=utf-8"}, iter([body]),
                  len(body))  # fmt: skip


def _end(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def _as_trouble() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Trouble(str(error) or type(error).__name__) from error


def _piece(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Cut(str(error) or type(error).__name__) from error


def _look(first: bytes, wanted: Wanted, media: str) -> None:
    """Raise Trouble where it begins as something else."""
    if wanted.begins:
        right = any(first.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(one) for one in wanted.begins)
    else:
        right = bool(first) and not media.lower().startswith(("text/html", "application/xhtml"))
    if not right:
        raise Trouble("answers with something else: a login page?" if first else "answers nothing")


def _length(response: http.client.HTTPResponse) -> int | None:
    found = response.headers.get("Content-Length", "")
    return int(found) if found.isascii() and found.isdigit() else None


def _kept_of(response: http.client.HTTPResponse) -> dict[str, str]:
    return {
        name: value
        for name in _PASSED_BACK
        if (value := response.headers.get(name)) and value.isprintable() and value.isascii()
    }


def _proxy(scheme: str) -> Any:
    found = urllib.request.getproxies().get(scheme)
    return urlsplit(found if "://" in found else f"http://{found}") if found else None


def _may_lead(host: str) -> None:
    """Raise Trouble where a redirect leads to this machine, or to a cloud's metadata."""
    with _as_trouble():
        found = {item[4][0] for item in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    for one in found:
        address = ip_address(str(one).partition("%")[0])
        if (
            address.is_loopback
            or address.is_link_local
            or address.is_unspecified
            or (address.is_multicast or str(address) in ("168.63.129.16", "100.100.100.200"))
        ):
            raise Trouble(f"leads to {host}, which is not outside")
