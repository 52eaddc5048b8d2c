"""A stand-in, not a directory: answers LDAP as Active Directory would, for what slapd cannot play.

It speaks LDAPS, compares simple binds with its table, evaluates filters over its entries, and
knows AD's rule for chains of groups and AD's sub-codes in refused binds, as Microsoft documents
them. Nothing here proves how a real Active Directory behaves beyond that.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from rig.certificates import Authority

IN_CHAIN = "1.2.840.113556.1.4.1941"
_SUCCESS, _INVALID_CREDENTIALS = 0, 49
# Tags of RFC 4511, as bytes on the wire.
_BIND, _BIND_ANSWER, _SEARCH, _ENTRY, _SEARCH_DONE = 0x60, 0x61, 0x63, 0x64, 0x65
_AND, _OR, _EQUAL, _PRESENT, _EXTENSIBLE = 0xA0, 0xA1, 0xA3, 0x87, 0xA9
_INTEGER, _OCTETS, _ENUMERATED, _SEQUENCE, _SET = 0x02, 0x04, 0x0A, 0x30, 0x31
Element = tuple[int, bytes]
Attributes = dict[str, list[bytes]]


class Responder:
    """``entries``: DN -> attributes. ``passwords``: DN -> password. ``refusals``: DN -> sub-code,
    given for the right password; 775 (locked) is given for any, as AD does."""

    def __init__(
        self,
        folder: Path,
        entries: dict[str, Attributes],
        passwords: dict[str, str],
        refusals: dict[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = Authority(folder)
        self.ca_file = authority.ca_file
        certificate, key = authority.issue("localhost", "127.0.0.1")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self.entries = entries
        self._passwords = {dn.lower(): password for dn, password in passwords.items()}
        self.refusals = {dn.lower(): code for dn, code in (refusals or {}).items()}
        self.filters: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ldaps://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[ssl.SSLSocket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Responder:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Each thread closes its own: OpenSSL would read on from a number that the next socket has.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)  # none comes after it
        for sock in self._open:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    raw, _ = self._listener.accept()
                except OSError:
                    return
                connection = self._context.wrap_socket(
                    raw, server_side=True, do_handshake_on_connect=False
                )
                self._open.append(connection)
                self._start(self._serve, connection)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, connection: ssl.SSLSocket) -> None:
        with suppress(OSError), connection:
            connection.do_handshake()
            data = b""
            while piece := connection.recv(65536):
                data += piece
                while (size := _message_size(data)) and len(data) >= size:
                    (_, content), *_rest = _elements(data[:size])
                    data = data[size:]
                    (_, number), (kind, request), *_controls = _elements(content)
                    for tag, answer in self._answers(kind, _elements(request) if request else []):
                        message = _pack(_INTEGER, number) + _pack(tag, answer)
                        connection.sendall(_pack(_SEQUENCE, message))

    def _answers(self, kind: int, request: list[Element]) -> list[Element]:
        if kind == _BIND:
            return [self._bind(request)]
        if kind == _SEARCH:
            return self._search(request)
        return []

    def _bind(self, request: list[Element]) -> Element:
        dn, password = request[1][1].decode().lower(), request[2][1].decode()
        right = password == self._passwords.get(dn)
        code = self.refusals.get(dn)
        if code == "775" or (right and code):
            sub = code
        else:
            sub = None if right else ("52e" if dn in self._passwords else "525")
        text = (
            f"80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data {sub}, "
            "v4563"
        )
        result = _result(_INVALID_CREDENTIALS, text) if sub else _result(_SUCCESS, "")
        return _BIND_ANSWER, result

    def _search(self, request: list[Element]) -> list[Element]:
        base, base_only = request[0][1].decode().lower(), request[1][1] == b"\x00"
        wanted = [name.decode().lower() for _, name in _elements(request[7][1])]
        answers = []
        for dn, attributes in self.entries.items():
            inside = dn.lower() == base if base_only else dn.lower().endswith(base)
            if inside and self._matches(request[6], attributes):
                answers.append((_ENTRY, _entry(dn, attributes, wanted)))
        return [*answers, (_SEARCH_DONE, _result(_SUCCESS, ""))]

    def _matches(self, node: Element, attributes: Attributes) -> bool:
        kind, content = node
        if kind in (_AND, _OR):
            some: Callable[..., bool] = all if kind == _AND else any
            return some(self._matches(child, attributes) for child in _elements(content))
        if kind == _PRESENT:
            return bool(_values(attributes, content.decode()))
        parts = [value for _, value in _elements(content)]
        if kind == _EQUAL:
            return any(
                value.lower() == parts[1].lower()
                for value in _values(attributes, parts[0].decode())
            )
        if kind == _EXTENSIBLE and parts[0].decode() == IN_CHAIN:
            self.filters.append(IN_CHAIN)
            return self._in_chain(parts[2].lower(), attributes, set())
        return False

    def _in_chain(self, member: bytes, group: Attributes, seen: set[bytes]) -> bool:
        for value in _values(group, "member"):
            dn = value.lower()
            if dn == member:
                return True
            if dn not in seen:
                seen.add(dn)
                inner = next((a for d, a in self.entries.items() if d.lower().encode() == dn), {})
                if self._in_chain(member, inner, seen):
                    return True
        return False


def _message_size(data: bytes) -> int:
    if len(data) < 2:
        return 0
    if data[1] < 0x80:
        return 2 + data[1]
    count = data[1] & 0x7F
    if len(data) < 2 + count:
        return 0
    return 2 + count + int.from_bytes(data[2 : 2 + count], "big")


def _elements(data: bytes) -> list[Element]:
    """The BER elements in a row: tags and contents."""
    found, at = [], 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size > 0x7F:
            count = size & 0x7F
            size, at = int.from_bytes(data[at : at + count], "big"), at + count
        found.append((tag, data[at : at + size]))
        at += size
    return found


def _pack(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes(4, "big")
    return bytes([tag, 0x84]) + length + content


def _result(code: int, text: str) -> bytes:
    return _pack(_ENUMERATED, bytes([code])) + _pack(_OCTETS, b"") + _pack(_OCTETS, text.encode())


def _entry(dn: str, attributes: Attributes, wanted: list[str]) -> bytes:
    listed = b""
    for name, values in attributes.items():
        if name.lower() in wanted:
            packed = b"".join(_pack(_OCTETS, value) for value in values)
            listed += _pack(_SEQUENCE, _pack(_OCTETS, name.encode()) + _pack(_SET, packed))
    return _pack(_OCTETS, dn.encode()) + _pack(_SEQUENCE, listed)


def _values(attributes: Attributes, name: str) -> list[bytes]:
    return next((v for key, v in attributes.items() if key.lower() == name.lower()), [])
