"""The protocol over HTTPS: one address for each call, both sides known by their certificates.

Whatever is sent is a message of the protocol or is refused: its size, depth, types and bounds are
looked at before anything is done.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, RequestHandler, stream_request_body

from commons.errors import LabError, RuntimeRefused
from commons.messages import Text
from kernels.hostile import parse_json
from spawner.runtime.docker.rules import against_rules
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.messages import AGENT_FAILED, NO_SUCH_CALL, NOT_UNDERSTOOD, NOT_YOUR_CALL
from spawner.runtime.wire import (
    CALLS,
    HEARTBEAT,
    MAX_MESSAGE,
    PREFIX,
    VERSION_HEADER,
    Call,
    other_version,
    protocol_version,
    tell,
)

log = logging.getLogger(__name__)

PUBLISH = "images/publish"
# What each side may ask for, by the name in its certificate. The hub starts only what builders
# have published.
ROLES: Mapping[str, frozenset[str]] = {
    "hub": frozenset(CALLS) - {PUBLISH, "images/check", "images/compile", "images/tag"},
    "builder": frozenset(name for name in CALLS if name.startswith("images/")),
}
_SMALL = 64 * 1024  # bytes: more is parsed and written in a thread
_MOST_LAYER = 2**38  # bytes
_LONG = 3600  # seconds for what is published
_HEADERS = 32 * 1024
_FIRST_LINE = 2**20  # bytes of the arguments before what is published
_DEPTH, _VALUES = 12, 200_000
_PIECE = 65536

# A sender that stalls holds up other senders, and nothing else.
_PUBLISHERS = ThreadPoolExecutor(4, thread_name_prefix="publish")


def refusal(status: int, text: Text, reason: str) -> RuntimeRefused:
    error = RuntimeRefused(text(reason=reason))
    error.status = status
    return error


class _Handler(RequestHandler):
    """What all calls have in common: who asks, in which version, and how errors are told."""

    def initialize(self, runtime: DockerRuntime) -> None:
        self.runtime = runtime
        self.gone = asyncio.Event()

    def on_connection_close(self) -> None:
        self.gone.set()

    def admit(self) -> Call:
        """The call that is asked for. Raises RuntimeRefused, RuntimeSilent."""
        name = self.request.path.removeprefix(PREFIX)
        role = _role(self.request.get_ssl_certificate())
        call = CALLS.get(name)
        if call is None:
            raise refusal(404, NO_SUCH_CALL, "there is no such call")
        if name not in ROLES.get(role, ()):
            log.warning("%s asked for %s, which is not its business", role, name)
            raise refusal(403, NOT_YOUR_CALL, f"{role} may not ask for {name}")
        theirs = self.request.headers.get(VERSION_HEADER, "")
        if theirs != protocol_version():
            self.set_header(VERSION_HEADER, protocol_version())
            raise other_version(protocol_version(), theirs[:80])
        return call

    async def arguments(self, call: Call, raw: bytes) -> dict[str, Any]:
        """Checked. Raises RuntimeRefused."""

        def parse() -> dict[str, Any]:
            try:
                parse_json(raw, MAX_MESSAGE, _DEPTH, _VALUES)
                found = call.arguments.model_validate_json(raw)
            except ValidationError as error:
                first = error.errors(include_url=False, include_context=False)[0]
                where = ".".join(str(part)[:40] for part in first["loc"])[:200]
                raise refusal(422, NOT_UNDERSTOOD, f"{where}: {first['msg'][:200]}") from error
            except ValueError as error:
                raise refusal(422, NOT_UNDERSTOOD, str(error)[:200]) from error
            return {name: getattr(found, name) for name in type(found).model_fields}

        return parse() if len(raw) < _SMALL else await asyncio.to_thread(parse)

    def answer(self, value: Any) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"result": value}))

    def tell(self, error: Exception) -> None:
        """Answer with an error, or end a stream with it."""
        if not isinstance(error, LabError):
            log.error("%s failed", self.request.path, exc_info=error)
            error = RuntimeRefused(AGENT_FAILED())
        status, told = tell(error)
        if error.code == "other_version":
            status = 426
        if self._headers_written:
            self.write(b"!" + json.dumps({**told, "status": status}).encode() + b"\n")
        else:
            self.set_status(status)
            self.set_header("Content-Type", "application/json")
            self.write(json.dumps({"error": told}))
        if not self._finished:
            self.finish()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_status(status_code)
        error = refusal(status_code, NOT_UNDERSTOOD, "this is no request")
        self.finish(json.dumps({"error": tell(error)[1]}))


class CallHandler(_Handler):
    """One call."""

    async def post(self) -> None:
        try:
            call = self.admit()
            arguments = await self.arguments(call, self.request.body)
            method = getattr(self.runtime, call.method)
            if call.stream:
                return await self._stream(call, method(**arguments))
            value = await method(**arguments)
            self.answer(call.answer.dump_python(value, mode="json"))
        except StreamClosedError:
            pass
        except Exception as error:
            self.tell(error)

    async def _stream(self, call: Call, items: AsyncIterator[Any]) -> None:
        """Lines as they come (docs/runtime.md), and an empty one now and then."""
        self.set_header("Content-Type", "application/octet-stream")
        gone = asyncio.ensure_future(self.gone.wait())
        coming = asyncio.ensure_future(anext(items))
        try:
            while not self.gone.is_set():
                await asyncio.wait(
                    {coming, gone}, timeout=HEARTBEAT / 2, return_when=asyncio.FIRST_COMPLETED
                )
                if coming.done():
                    try:
                        item = coming.result()
                    except StopAsyncIteration:
                        self.write(b".\n")
                        break
                    line = item if isinstance(item, bytes) else call.answer.dump_json(item)
                    self.write(b">" + line + b"\n")
                    coming = asyncio.ensure_future(anext(items))
                else:
                    self.write(b"\n")
                await self.flush()
            await self.finish()
        finally:
            gone.cancel()
            coming.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await coming
            await items.aclose()  # type: ignore[attr-defined]


@stream_request_body
class PublishHandler(_Handler):
    """A folder that becomes an image: a line with the arguments, then the folder as a tar."""

    async def prepare(self) -> None:
        self._first = b""
        self._work: asyncio.Future[Any] | None = None
        self._writer: IO[bytes] | None = None
        self._error: Exception | None = None
        try:
            self._call = self.admit()
        except Exception as error:
            self._error = error
            return
        connection: Any = self.request.connection
        connection.set_max_body_size(_MOST_LAYER)
        connection.set_body_timeout(_LONG)

    async def data_received(self, chunk: bytes) -> None:
        if self._error is not None:
            return
        try:
            if self._writer is None:
                chunk = await self._begin(chunk)
            if chunk and self._writer is not None:
                await asyncio.get_running_loop().run_in_executor(
                    _PUBLISHERS, self._writer.write, chunk
                )
        except BrokenPipeError:
            pass  # the other end says why
        except Exception as error:
            self._error = error

    async def _begin(self, chunk: bytes) -> bytes:
        """Begin as soon as the arguments are there; gives what follows them."""
        self._first += chunk
        line, newline, rest = self._first.partition(b"\n")
        if not newline:
            if len(self._first) > _FIRST_LINE:
                raise refusal(422, NOT_UNDERSTOOD, "the first line is too long")
            return b""
        given = await self.arguments(self._call, _with_folder(line))
        reader, writer = os.pipe()
        self._writer = os.fdopen(writer, "wb")
        self._whole = False
        source = os.fdopen(reader, "rb")

        def send(target: IO[bytes]) -> None:
            with source:
                while piece := source.read(_PIECE):
                    target.write(piece)
            if not self._whole:
                raise against_rules("what was sent broke off")

        self._source = source
        self._work = asyncio.ensure_future(
            self.runtime.receive(
                given["name"], given["version"], given["base"], given["prefix"],
                given["labels"], send,
            )
        )  # fmt: skip
        # A refusal before anybody reads must not leave the sender waiting.
        self._work.add_done_callback(lambda _: source.close())
        return rest

    async def post(self) -> None:
        try:
            if self._error is None and self._work is None:
                self._error = refusal(422, NOT_UNDERSTOOD, "no arguments and no folder")
            if self._error is not None:
                raise self._error
            assert self._work is not None
            assert self._writer is not None
            self._whole = True
            with suppress(BrokenPipeError):  # the other end says why
                await asyncio.get_running_loop().run_in_executor(_PUBLISHERS, self._writer.close)
            self.answer(await self._work)
        except Exception as error:
            self.tell(error)
        finally:
            self._end()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._end()

    def _end(self) -> None:
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
        if self._work is not None:
            self._work.add_done_callback(lambda done: done.cancelled() or done.exception())


def _with_folder(line: bytes) -> bytes:
    """The arguments with a folder that is nowhere: the call has one, and it is sent."""
    try:
        found = parse_json(line, _FIRST_LINE, _DEPTH, _VALUES)
    except ValueError as error:
        raise refusal(422, NOT_UNDERSTOOD, str(error)[:200]) from error
    if not isinstance(found, dict) or "folder" in found:
        raise refusal(422, NOT_UNDERSTOOD, "these are no arguments")
    return json.dumps({**found, "folder": "/"}).encode()


def _role(certificate: Any) -> str:
    """The common name of who asks: our own authority has written it."""
    parts = (certificate or {}).get("subject", ()) if isinstance(certificate, dict) else ()
    return next((str(v) for part in parts for k, v in part if k == "commonName"), "")


class _Nothing(_Handler):
    def prepare(self) -> None:
        self.tell(refusal(404, NO_SUCH_CALL, "there is no such call"))


def tls_context(folder: Path) -> ssl.SSLContext:
    """Ours: TLS 1.3, and nobody without a certificate of the same authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(folder / "ca.crt")
    context.load_cert_chain(folder / "agent.crt", folder / "agent.key")
    return context


def make_server(runtime: DockerRuntime, context: ssl.SSLContext) -> HTTPServer:
    """A server that is to be told where to listen."""
    more = {"runtime": runtime}
    application = Application(
        [
            (rf"{PREFIX}{PUBLISH}", PublishHandler, more),
            (rf"{PREFIX}.*", CallHandler, more),
        ],
        default_handler_class=_Nothing,
        default_handler_args=more,
        log_function=lambda _handler: None,
    )
    return HTTPServer(
        application,
        ssl_options=context,
        max_body_size=MAX_MESSAGE,
        max_header_size=_HEADERS,
        idle_connection_timeout=3600,
        body_timeout=60,
    )
