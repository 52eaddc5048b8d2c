"""The listener: who comes, what they may, and what ends their connections."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.stream import SSHTCPStreamSession
from tornado.websocket import WebSocketError

from commons import ssh_keys
from commons.errors import BadRequest
from commons.messages import Locale, Message
from jump import messages
from jump.authority import Authority
from jump.hub import Hub, HubSilent
from jump.limits import Doors, Throttle
from jump.link import CHUNK, Link, NoServer

log = logging.getLogger("labcommons.ssh")

LOGIN = 30  # seconds until somebody has come in
AGAIN = 1.5  # seconds between two questions about a server that starts
STARTED_WITHIN = 900.0  # seconds
TUNNELS = 10  # at once in one connection
MOST_NAME = 255
# A client that is silent for three of these is gone; a tunnel's own end need not ask.
ALIVE = 60  # seconds
GOING = 3.0  # seconds in which clients are told that this ends
READS = 1.0  # seconds for a client to read why it is disconnected
SETTLES = 0.3  # seconds in which what was open is closed
SAYS = 20.0  # seconds between two words of life
# What processors have instructions for: half the work of ChaCha20, which most clients prefer.
CIPHERS = tuple(f"aes{bits}-{mode}" for mode in ("gcm@openssh.com", "ctr") for bits in (256, 128))
REFUSED = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
FAILED = asyncssh.OPEN_CONNECT_FAILED


@dataclass(frozen=True)
class Settings:
    """What does not change while it runs.

    Attributes:
        host: as clients know this service; its own certificate is for it.
        proxy: the way to servers.
        page: where people read how to connect.
        of_one: connections of one person at once; of_all: of all.
        authority_file: where the public half of the authority is written for the console.
        alive: a file that is touched while it works.
        look: seconds between two looks at who may still be in.
        locale: of what is said before anybody is known.
    """

    host: str
    proxy: str
    page: str
    of_one: int
    of_all: int
    authority_file: Path
    alive: Path
    look: float
    locale: Locale


class Service:
    """All connections of this process."""

    def __init__(
        self, settings: Settings, hub: Hub, authority: Authority, own: asyncssh.SSHKey
    ) -> None:
        self.settings, self.hub, self.authority = settings, hub, authority
        self._own = own
        self.doors, self.throttle = Doors(), Throttle()
        self.open: set[Connection] = set()
        self._ending = asyncio.Event()
        self._telling: set[asyncio.Task[None]] = set()

    async def run(self, address: str, port: int) -> None:
        """Until SIGTERM; then all are told, and it ends."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._ending.set)
        self.settings.authority_file.write_text(f"{self.authority.line}\n", "ascii")
        listener = await self.listen(address, port)
        works = [asyncio.create_task(work()) for work in (self._look_for_ever, self._live)]
        log.info("listens at %s:%s", address, listener.get_port())
        await self._ending.wait()
        listener.close()
        for work in works:
            work.cancel()
        await self.end_all()

    async def listen(self, address: str, port: int) -> asyncssh.SSHAcceptor:
        """Take connections."""
        return await asyncssh.create_server(
            partial(Connection, self),
            address,
            port,
            server_host_keys=[(self._own, self.authority.certify(self._own, self.settings.host))],
            server_version="LabCommons",
            login_timeout=LOGIN,
            keepalive_interval=ALIVE,
            keepalive_count_max=3,
            allow_pty=False,
            allow_scp=False,
            agent_forwarding=False,
            x11_forwarding=False,
            gss_host=None,
            # What is inside is enciphered already and cannot be made smaller.
            compression_algs=["none"],
            encryption_algs=CIPHERS,
            encoding=None,
        )

    def said(self, message: Message) -> str:
        """In the site's language."""
        return message.in_words(self.settings.locale)

    async def end_all(self) -> None:
        """Tell everybody, and wait until what they did is told to the hub."""
        said = self.said(messages.CLOSING())
        for one in list(self.open):
            one.end(said)
        await asyncio.sleep(SETTLES)
        if self._telling:
            await asyncio.wait(self._telling, timeout=GOING)

    def tell(self, what: str, **about: Any) -> None:
        """Have something in the audit trail; the hub may be silent."""

        async def work() -> None:
            with suppress(HubSilent):
                await self.hub.ask("tell", what=what, **about)

        task = asyncio.create_task(work())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _live(self) -> None:
        while True:
            with suppress(OSError):
                self.settings.alive.touch()
            await asyncio.sleep(SAYS)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.look)
            with suppress(HubSilent):  # what is not known is not taken from anybody
                await self.look()

    async def look(self) -> None:
        """End the connections of those who may not be in any more. Raises HubSilent."""
        asked: dict[str, set[str]] = defaultdict(set)
        for one in self.open:
            asked[one.name].add(one.key)
        if not asked:
            return
        there = {name: sorted(keys) for name, keys in asked.items()}
        found = await self.hub.ask("look", open=there)
        cut: Mapping[str, Mapping[str, str]] = found.get("cut") or {}
        for one in list(self.open):
            if said := cut.get(one.name, {}).get(one.key):
                one.end(said)


class Connection(asyncssh.SSHServer):
    """One client; ``name`` and ``key`` are known once it has proved them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.name = self.key = ""
        self._tried = ""
        self._address = ""
        self._counted = False
        self._keys: dict[bytes, str] = {}  # what may come in, with its fingerprint
        self._offered = ""
        self._ahead = ""
        self._tunnels = 0
        self._links: set[Link] = set()

    # -- coming ------------------------------------------------------------------------------

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Too many, or from where nobody is heard: gone at once."""
        self._conn = conn
        self._address = str((conn.get_extra_info("peername") or ("",))[0])
        throttle, now = self._service.throttle, time.monotonic()
        if throttle.address_refused(self._address, now) or not self._service.doors.come(
            self._address
        ):
            conn.abort()
            return
        self._counted = True
        # Its name is asyncssh's: a banner comes before the word that all is well, and what it says
        # is for who has proved the key.
        proved = conn.send_userauth_success

        async def with_banner() -> None:
            if self._ahead:
                conn.send_auth_banner(f"{self._ahead}\r\n")
            await proved()

        conn.send_userauth_success = with_banner  # type: ignore[method-assign]

    async def begin_auth(self, username: str) -> bool:
        """Ask the hub once for what may come in as this name."""
        service, now = self._service, time.monotonic()
        self._keys, self._tried, self._ahead = {}, username[:MOST_NAME], ""
        if not self._counted or service.throttle.name_refused(self._tried, self._address, now):
            return True
        try:
            found = await service.hub.ask("keys", name=self._tried)
        except HubSilent:
            self._conn.send_auth_banner(f"{service.said(messages.HUB_SILENT())}\r\n")
            return True
        for fingerprint, line in dict(found.get("keys") or {}).items():
            with suppress(BadRequest):
                self._keys[ssh_keys.parse(str(line)).blob] = str(fingerprint)
        self._ahead = str(found.get("said") or "")
        return True

    def public_key_auth_supported(self) -> bool:
        """Nothing else is."""
        return True

    def password_auth_supported(self) -> bool:
        """No."""
        return False

    def kbdint_auth_supported(self) -> bool:
        """No."""
        return False

    def host_based_auth_supported(self) -> bool:
        """No."""
        return False

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether a key is one of the name's; asyncssh has it proved after that."""
        self._offered = self._keys.get(key.public_data, "") if username == self._tried else ""
        return bool(self._offered)

    def auth_completed(self) -> None:
        """The last key that was offered is proved."""
        service = self._service
        self._door_left()
        self.name, self.key = self._tried, self._offered
        of_one = Counter(one.name for one in service.open)[self.name]
        if of_one >= service.settings.of_one:
            self._refuse(messages.TOO_MANY(most=service.settings.of_one))
        elif len(service.open) >= service.settings.of_all:
            self._refuse(messages.FULL())
        else:
            service.throttle.right(self.name, self._address)
            service.open.add(self)

    def _refuse(self, message: Message) -> None:
        self._service.tell(
            "ssh-refused", name=self.name, address=self._address, reason=message.code
        )
        self.end(self._service.said(message))

    def _door_left(self) -> None:
        if self._counted:
            self._counted = False
            self._service.doors.leave(self._address)

    def connection_lost(self, exc: Exception | None) -> None:
        """What it had is closed; one that never came in counts."""
        service = self._service
        if self._counted:
            self._door_left()
            if self._tried:  # who only looks whether somebody listens has tried nothing
                service.throttle.failed(self._tried, self._address, time.monotonic())
                service.tell(
                    "ssh-refused", name=self._tried, address=self._address, reason="no_key"
                )
        service.open.discard(self)
        for link in list(self._links):
            link.close()

    def end(self, said: str) -> None:
        """Disconnect, with a sentence that clients show.

        asyncssh's own ``disconnect`` closes the tunnels first, and a client that sees that is gone
        before it has read why.
        """
        self._service.open.discard(self)
        with suppress(Exception):  # whatever state it is in
            self._conn._send_disconnect(asyncssh.DISC_BY_APPLICATION, said, "en")
        for link in list(self._links):
            link.close()
        asyncio.get_running_loop().call_later(READS, self._conn.abort)

    # -- tunnels -----------------------------------------------------------------------------

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Any:
        """Only to the name of a server of one's own."""
        service, own = self._service, f"{self.name}."
        host = dest_host.lower()
        if not self.name or self not in service.open:
            raise asyncssh.ChannelOpenError(REFUSED, "")
        if not host.startswith(own) or len(host) > MOST_NAME or dest_port != 22:
            service.tell(
                "ssh-refused",
                name=self.name,
                address=self._address,
                reason="not_own_server",
                details={"to": f"{dest_host[:MOST_NAME]}:{dest_port}"},
            )
            words = messages.ONLY_SERVERS(example=f"{own}main", url=service.settings.page)
            raise asyncssh.ChannelOpenError(REFUSED, service.said(words))
        if self._tunnels >= TUNNELS:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, service.said(messages.TOO_MANY(most=TUNNELS))
            )
        return self._open(host, host.removeprefix(own))

    async def _open(self, host: str, server: str) -> SSHTCPStreamSession[bytes]:
        """The tunnel, when the server is there. Raises ChannelOpenError, which clients show."""
        service = self._service
        self._tunnels += 1
        try:
            place = await self._place(server)
            try:
                link = await Link.open(
                    service.settings.proxy, place, host, service.authority, place["keys"]
                )
            except NoServer as error:
                log.warning("%s: %s", host, error)
                said = str(place.get("said") or "") or service.said(messages.NO_ANSWER())
                raise asyncssh.ChannelOpenError(FAILED, said) from error
            if self not in service.open:
                link.close()
                raise asyncssh.ChannelOpenError(FAILED, "")
        except BaseException:
            self._tunnels -= 1
            raise
        self._links.add(link)
        return SSHTCPStreamSession(partial(self._carry, link, str(place.get("called") or "")))

    async def _place(self, server: str) -> Mapping[str, Any]:
        """Where a server is, once it runs. Raises ChannelOpenError."""
        service, start = self._service, True
        until = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < until and self in service.open:
            try:
                found = await service.hub.ask(
                    "enter", name=self.name, key=self.key, server=server, start=start
                )
            except HubSilent as error:
                said = service.said(messages.HUB_SILENT())
                raise asyncssh.ChannelOpenError(FAILED, said) from error
            if found.get("state") == "ready":
                return found
            if found.get("state") != "starting":
                service.tell(
                    "ssh-refused",
                    name=self.name,
                    address=self._address,
                    reason="server",
                    details={"server": server},
                )
                raise asyncssh.ChannelOpenError(FAILED, str(found.get("said") or ""))
            start = False
            await asyncio.sleep(AGAIN)
        said = service.said(messages.TOO_LONG(minutes=round(STARTED_WITHIN / 60)))
        raise asyncssh.ChannelOpenError(FAILED, said)

    async def _carry(
        self,
        link: Link,
        server: str,
        reader: asyncssh.SSHReader[bytes],
        writer: asyncssh.SSHWriter[bytes],
    ) -> None:
        """Bytes to and fro until one side ends."""
        about = {"name": self.name, "address": self._address}
        details = {"session": uuid.uuid4().hex[:12], "server": server, "key": self.key}
        self._service.tell("ssh-open", **about, details=details)
        began = time.monotonic()

        async def up() -> None:
            while data := await reader.read(CHUNK):
                await link.write(data)

        async def down() -> None:
            while data := await link.read():
                writer.write(data)
                await writer.drain()

        works = [asyncio.create_task(work()) for work in (up, down)]
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            link.close()
            for work in works:
                work.cancel()
            for ended in await asyncio.gather(*works, return_exceptions=True):
                if isinstance(ended, Exception) and not isinstance(
                    ended, WebSocketError | OSError | asyncssh.Error
                ):
                    log.error("a tunnel ended", exc_info=ended)
            self._links.discard(link)
            self._tunnels -= 1
            writer.close()
            moved = {"received": link.written_bytes, "sent": link.read_bytes}
            took = round(time.monotonic() - began, 1)
            self._service.tell("ssh-close", **about, details={**details, **moved, "seconds": took})
