"""One connection to one server: verified TLS, one bind, searches that say when they are partial.

A connection belongs to one thread at a time and is bound once: a failed second bind would
leave it anonymous (RFC 4513, 4). ldap3 opens it and speaks the protocol; TLS, time and the reading
of answers are settled here because its defaults are unsafe or slow.
"""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import ldap3
from ldap3.core import results

from .answers import PASSWORD_POLICY, BindAnswer, read_bind_answer
from .entry import Entry
from .errors import DirectoryError, DirectoryUnavailable, ServerFailed, SettingsError
from .settings import DirectoryServer

_PAGED_RESULTS = "1.2.840.113556.1.4.319"


def make_tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """A context that verifies chain and host name or IP address, TLS 1.2 or newer.

    ``ca_file`` is then the only trusted CA; None means the machine's trust store. Build it
    once: loading a CA bundle takes some 20 ms. Raises SettingsError when it cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:
        raise SettingsError(
            f"ca_file: {ca_file} cannot be used ({error.strerror or error}); "
            "name a readable PEM file with the CA that signed the directory's certificate"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Deadline:
    """The time a whole operation may take; another thread may end it early.

    A time-out on each read is not enough: a server that sends one byte now and then would
    never meet it. ``abort`` therefore shuts the socket under the waiting thread.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._aborted = False

    def seconds(self, at_most: int) -> int:
        """Whole seconds the next step may take, at least 1.

        Raises DirectoryUnavailable when none is left.
        """
        left = self._end - time.monotonic()
        if self._aborted or left <= 0:
            raise DirectoryUnavailable(["the deadline for one login passed"])
        return max(1, min(at_most, math.ceil(left)))

    def check(self) -> None:
        """Raise DirectoryUnavailable when no time is left."""
        self.seconds(1)

    def watch(self, sock: socket.socket) -> None:
        """Make ``abort`` end what waits on this socket."""
        with self._lock:
            self._sockets.add(sock)
            aborted = self._aborted
        if aborted:
            self.abort()

    def release(self, sock: socket.socket) -> None:
        """This socket goes on to serve others: ``abort`` must leave it alone."""
        with self._lock:
            self._sockets.discard(sock)

    def abort(self) -> None:
        """End the operation now; safe from any thread, and more than once."""
        # Under the lock, so that no socket is shut after its release.
        with self._lock:
            self._aborted = True
            for watched in self._sockets:
                with suppress(OSError):
                    # Not SSLSocket.shutdown, which takes the TLS state from under the reader.
                    socket.socket.shutdown(watched, socket.SHUT_RDWR)


class _VerifiedTls(ldap3.Tls):
    """ldap3's hook for TLS, with our context in place of the one it would build each time."""

    def __init__(self, context: ssl.SSLContext, deadline: Deadline) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context = context
        self._deadline = deadline
        # ldap3 turns errors into text; the cause is kept here.
        self.failure: Exception | None = None

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = self._context.wrap_socket(
            connection.socket, server_hostname=connection.server.host, do_handshake_on_connect=False
        )
        connection.socket = wrapped
        self._deadline.watch(wrapped)
        try:
            wrapped.do_handshake()
        except Exception as error:
            self.failure = error
            wrapped.close()
            raise


class Session:
    """A connection that is open under TLS. Use it as a context manager."""

    def __init__(
        self, server: DirectoryServer, context: ssl.SSLContext, timeout: int, deadline: Deadline
    ) -> None:
        """Connect and start TLS. Raises ServerFailed with the cause."""
        self._server = server
        self._deadline = deadline
        self._timeout = timeout
        # Whether an answer may still be on its way: such a connection serves nobody else.
        self.broken = False
        seconds = deadline.seconds(timeout)
        tls = _VerifiedTls(context, deadline)
        with self._failing():
            self._connection = ldap3.Connection(
                ldap3.Server(
                    server.host,
                    server.port,
                    use_ssl=server.ldaps,
                    get_info=ldap3.NONE,
                    tls=tls,
                    connect_timeout=seconds,
                    mode=ldap3.IP_V4_PREFERRED,
                ),
                client_strategy=ldap3.SYNC,
                auto_referrals=False,
                check_names=False,
                auto_range=False,
                receive_timeout=seconds,
            )
        try:
            with self._failing(tls):
                self._connection.open(read_server_info=False)
                if not server.ldaps:
                    self._start_tls()
                if not isinstance(self._connection.socket, ssl.SSLSocket):
                    raise ServerFailed(str(server), "TLS did not start; nothing was sent to it")
        except BaseException:
            self.close()
            raise

    def _start_tls(self) -> None:
        raw = self._connection.socket
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deadline.watch(raw)
        # False is an answer too; the caller looks at the socket besides.
        if not self._connection.start_tls(read_server_info=False):
            raise ServerFailed(str(self._server), "refuses StartTLS; set up TLS on it")

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it; a server that is gone already is no error."""
        with suppress(Exception):
            self._connection.unbind()
        sock, self._connection.socket = self._connection.socket, None
        if sock is not None:
            self._deadline.release(sock)
            with suppress(OSError):
                sock.close()

    def lend(self, deadline: Deadline) -> None:
        """Go on under another deadline. Raises DirectoryUnavailable when it has passed."""
        self._deadline = deadline
        self._connection.socket.settimeout(deadline.seconds(self._timeout))
        deadline.watch(self._connection.socket)

    def rest(self) -> None:
        """Work under the last deadline is done; the connection waits for the next."""
        self._deadline.release(self._connection.socket)

    @property
    def certificate(self) -> dict[str, Any]:
        """The server's verified certificate, as ``ssl.SSLSocket.getpeercert`` gives it."""
        return dict(self._connection.socket.getpeercert() or {})

    @property
    def tls_version(self) -> str:
        """For example ``TLSv1.3``."""
        return str(self._connection.socket.version())

    def bind(self, dn: str, password: bytes) -> BindAnswer:
        """What the server says to this password for this DN.

        Bytes, because ldap3 runs text through SASLprep, which refuses valid passwords.
        Raises ServerFailed when the answer is not about the password, ValueError for an
        empty DN or password (a server may take that for an anonymous bind: RFC 4513, 5.1.2).
        """
        if not dn or not password:
            raise ValueError("a bind needs a DN and a password")
        self._deadline.check()
        with self._failing():
            self._connection.authentication = ldap3.SIMPLE
            self._connection.user, self._connection.password = dn, password
            try:
                # Not critical: a server that does not know the control ignores it.
                self._connection.bind(
                    read_server_info=False, controls=[(PASSWORD_POLICY, False, None)]
                )
            finally:
                self._connection.password = None
            result = self._connection.result
            answer = read_bind_answer(result)
            if answer is None:
                raise ServerFailed(str(self._server), f"answered the bind with {_words(result)}")
            return answer

    def search(
        self,
        base_dn: str,
        search_filter: str,
        attributes: Sequence[str],
        *,
        limit: int,
        page: int = 200,
        base_only: bool = False,
    ) -> list[Entry]:
        """Entries below a base, or the base itself, read page by page; referrals are skipped.

        Reading stops after more than ``limit`` entries: then ``limit + 1`` come back, so that
        the caller sees that there are more. Raises ServerFailed when a page does not end in
        success: a partial answer is none.
        """
        entries: list[Entry] = []
        cookie: bytes | None = None
        while True:
            self._deadline.check()
            with self._failing():
                self._connection.search(
                    base_dn,
                    search_filter,
                    search_scope=ldap3.BASE if base_only else ldap3.SUBTREE,
                    attributes=list(attributes),
                    paged_size=min(page, limit + 1),
                    paged_cookie=cookie,
                )
                result = self._connection.result
                if base_only and result["result"] == results.RESULT_NO_SUCH_OBJECT:
                    return []
                if result["result"] != results.RESULT_SUCCESS:
                    raise ServerFailed(
                        str(self._server),
                        f"answered a search below {base_dn!r} with {_words(result)}; check that "
                        "it exists and that the service account may read it",
                    )
                entries += [
                    _entry(item)
                    for item in self._connection.response
                    if item["type"] == "searchResEntry"
                ]
                control = (result.get("controls") or {}).get(_PAGED_RESULTS)
                cookie = control["value"]["cookie"] if control else None
            if len(entries) > limit:
                return entries[: limit + 1]
            if not cookie:
                return entries

    @contextmanager
    def _failing(self, tls: _VerifiedTls | None = None) -> Iterator[None]:
        """Turn whatever ldap3 raises into ServerFailed: its decoder raises anything on garbage."""
        try:
            yield
        except (ServerFailed, DirectoryError):
            raise
        except Exception as error:
            self.broken = True
            cause = tls.failure if tls and tls.failure else error
            raise ServerFailed(str(self._server), _explain(cause)) from error


def _entry(item: dict[str, Any]) -> Entry:
    attributes: dict[str, list[bytes]] = {}
    for name, values in item["raw_attributes"].items():
        attributes.setdefault(str(name).lower(), []).extend(values or [])
    return Entry(item["dn"], attributes)


def _words(result: dict[str, Any]) -> str:
    """``"strongerAuthRequired (8): TLS required"``; the server's text on one line, shortened."""
    text = " ".join(str(result.get("message") or "").split())[:200]
    return f"{result.get('description')} ({result.get('result')})" + (f": {text}" if text else "")


def _explain(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate was refused: {error.verify_message}; "
            "check ca_file, the certificate's dates and the host name in servers"
        )
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
