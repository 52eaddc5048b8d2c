"""Servers that take a connection and then behave badly."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

Behaviour = Callable[[socket.socket], None]


def silent(connection: socket.socket) -> None:
    """Take everything, answer nothing, until the other side goes."""
    while connection.recv(4096):
        pass


def garbage(connection: socket.socket) -> None:
    """Answer as a web server would."""
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 4)


def hang_up(connection: socket.socket) -> None:
    """Close in mid-request."""
    connection.recv(4096)


def refuse_start_tls(connection: socket.socket) -> None:
    """Answer StartTLS (message 1) with protocolError, as a server without TLS does."""
    request = connection.recv(4096)
    message_id = request[4:5] if len(request) > 4 else b"\x01"
    connection.sendall(b"\x30\x0c\x02\x01" + message_id + b"\x78\x07\x0a\x01\x02\x04\x00\x04\x00")
    silent(connection)


class Tarpit:
    """Listens on a free port of 127.0.0.1 and gives every connection to ``behaviour``.

    Attributes:
        connections: how many were taken.
        received: whether a connection came at all; an event to wait for.
    """

    def __init__(self, behaviour: Behaviour = silent) -> None:
        self._behaviour = behaviour
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.connections = 0
        self.received = threading.Event()
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Tarpit:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self.received.set()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            self._behaviour(connection)


def drip(connection: socket.socket) -> None:
    """Begin an answer of a megabyte and send it byte by byte: no read ever takes long."""
    connection.sendall(b"\x30\x84\x00\x10\x00\x00")
    while True:
        connection.sendall(b"\x00")
        time.sleep(0.05)
