"""Mail about GPUs, over a real connection to a mail server that a test controls."""

from __future__ import annotations

import asyncio
import email
import logging
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from email.message import EmailMessage, Message
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from commons import notices
from commons.i18n import ForeignZone, choose_timezone, gettext_for
from commons.leases import LeaseState
from commons.messages import Locale
from commons.site import Mail, Site
from commons.store import GpuNotice, Lease, Store
from commons.store.models import utcnow
from hub_ext.mail import Addressee, MailError, Postman
from rig.certificates import Authority


class MailServer:
    """Takes mail (RFC 5321), refuses some, or goes silent."""

    def __init__(self, trust: ssl.SSLContext) -> None:
        self._trust = trust
        self.received: list[Message] = []
        self.encrypted = self.silent = False
        self.refuse: dict[str, str] = {}  # command -> answer
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := (await reader.readline()).decode().strip():
            if self.silent:
                await asyncio.sleep(30)
            command = line.split()[0].upper()
            answer = self.refuse.get(command, "250 yes")
            if command == "EHLO":
                answer = "250-here\r\n250 STARTTLS"
            if command == "STARTTLS":
                writer.write(b"220 go\r\n")
                await writer.start_tls(self._trust)
                self.encrypted = True
                continue
            if command == "DATA" and "DATA" not in self.refuse:
                writer.write(b"354 go on\r\n")
                text = await reader.readuntil(b"\r\n.\r\n")
                self.received.append(email.message_from_bytes(text, policy=default))
            if command == "QUIT":
                break
            writer.write(answer.encode() + b"\r\n")
        writer.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[MailServer]:
    authority = Authority(tmp_path)
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trust.load_cert_chain(*authority.issue("localhost"))
    server = MailServer(trust)
    listening = await asyncio.start_server(server.handle, "localhost", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()


class Post:
    """A site with a mail server, and what its people are told."""

    def __init__(self, site: Site, store: Store, server: MailServer, ca: Path) -> None:
        mail = Mail(
            host="localhost", port=server.port, sender="lab@example.org", ca_file=ca, timeout=2
        )
        self.site = site.model_copy(update={"mail": mail})
        self.store = store
        self.address: str | None = "alice@example.org"
        self.language, self.timezone = "en", choose_timezone("Asia/Shanghai", kind=ForeignZone)

    async def addressee(self, _username: str) -> Addressee | None:
        return (
            Addressee(self.address, Locale(gettext_for(self.language), self.timezone))
            if self.address
            else None
        )

    def tell(self, code: str, key: str, **data: Any) -> None:
        self.store.transact(
            lambda s: notices.add(
                s, username="alice", lease_id="lease", code=code, data=data, key=key
            )
        )

    async def deliver(self) -> int:
        """A round of a hub that has just started."""
        return await Postman(
            self.store, self.site, self.addressee, logging.getLogger("test")
        ).once()


@pytest.fixture
def post(site: Site, store: Store, server: MailServer, tmp_path: Path) -> Post:
    store.transact(
        lambda s: s.add(
            Lease(id="lease", username="alice", server_name="train", state=LeaseState.ACTIVE)
        )
    )
    return Post(site, store, server, tmp_path / "ca.crt")


async def test_a_notice_is_mailed_once_over_tls(post: Post, server: MailServer) -> None:
    post.tell("ends_soon", "a", ends_at=0)
    post.tell("kept", "b", keep_until_at=0)  # who pressed the button knows
    assert await post.deliver() == 1
    assert await post.deliver() == 0
    [message] = server.received
    assert "1970-01-01 08:00 UTC+8" in str(message["Subject"])  # nobody knows where it is read
    assert server.encrypted
    assert isinstance(message, EmailMessage)
    assert message["To"] == "alice@example.org"
    assert message["Subject"].startswith("LabCommons [train]: The server ends at")
    assert "https://lab.localhost:8443/hub/home" in message.get_content()


async def test_what_was_seen_is_old_or_no_longer_true_is_not_mailed(
    post: Post, server: MailServer
) -> None:
    for key in ("seen", "old"):
        post.tell("gpu_failing", key)
    post.tell("ends_soon", "over", ends_at=0)

    def change(session: Any) -> None:
        rows = {row.key: row for row in session.scalars(select(GpuNotice))}
        notices.mark_seen(session, "alice", [rows["seen"].id])
        rows["old"].at = utcnow() - timedelta(days=2)
        session.get_one(Lease, "lease").state = LeaseState.ENDED

    post.store.transact(change)
    assert await post.deliver() == 0


async def test_a_mail_server_in_trouble_is_tried_again(post: Post, server: MailServer) -> None:
    post.tell("gpu_failing", "a", devices="GPU-1")
    server.refuse["MAIL"] = "451 later"
    with pytest.raises(MailError):
        await post.deliver()
    server.refuse.clear()
    server.silent = True
    with pytest.raises(MailError):
        await post.deliver()
    server.silent = False
    assert await post.deliver() == 1


async def test_an_address_that_does_not_exist_holds_up_nobody(
    post: Post, server: MailServer
) -> None:
    post.tell("gpu_failing", "a")
    post.tell("gpu_lost", "b")
    server.refuse["RCPT"] = "550 no such person"
    assert await post.deliver() == 0
    server.refuse.clear()
    assert await post.deliver() == 0


@pytest.mark.parametrize(
    "address", [None, "", "nobody", "a@b\r\nBcc: all@example.org", "a@b.org, c@d.org"]
)
async def test_what_is_no_address_gets_no_mail(
    post: Post, server: MailServer, address: str | None
) -> None:
    post.address = address
    post.tell("gpu_lost", "a")
    assert await post.deliver() == 0
    assert server.received == []


async def test_nothing_in_a_notice_becomes_a_header(post: Post, server: MailServer) -> None:
    post.tell("gpu_lost", "a", devices="x\r\nBcc: all@example.org")
    assert await post.deliver() == 1
    assert server.received[0]["Bcc"] is None


async def test_a_certificate_of_another_authority_is_refused(
    post: Post, server: MailServer, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    mail = post.site.mail.model_copy(update={"ca_file": Authority(other).ca_file})
    post.site = post.site.model_copy(update={"mail": mail})
    post.tell("gpu_lost", "a")
    with pytest.raises(MailError, match="certificate"):
        await post.deliver()
    assert server.received == []
