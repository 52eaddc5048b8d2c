"""A name server that knows a few SRV records, for tests: UDP on a free port of 127.0.0.1."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType

_SRV, _IN = 33, 1
Records = dict[str, list[tuple[int, int, int, str]]]  # name -> priority, weight, port, host


class NameServer:
    """Answers questions for SRV from ``records``; everything else does not exist."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> NameServer:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                query, sender = self._socket.recvfrom(4096)
            except OSError:
                return
            if query:
                self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode())
            at += 1 + size
        question = query[12 : at + 5]
        (kind,) = struct.unpack("!H", query[at + 1 : at + 3])
        name = ".".join(labels).lower()
        self.asked.append(name)
        found = self.records.get(name, []) if kind == _SRV else []
        answers = b""
        for priority, weight, port, host in found:
            data = struct.pack("!HHH", priority, weight, port) + _encoded(host)
            answers += b"\xc0\x0c" + struct.pack("!HHIH", _SRV, _IN, 120, len(data)) + data
        flags = 0x8180 if found else 0x8183  # no such name
        return query[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0) + question + answers


def _encoded(host: str) -> bytes:
    parts = [part.encode() for part in host.split(".") if part]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
