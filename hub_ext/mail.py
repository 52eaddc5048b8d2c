"""Mail to people about their GPUs: notices that they have not seen yet, each sent once.

A notice is marked after its mail was taken: a hub that dies between the two sends it again, with
the same Message-ID, by which mail programs know it. What cannot be delivered is tried for a day.
"""

from __future__ import annotations

import asyncio
import logging
import re
import smtplib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from email.message import EmailMessage
from functools import partial
from hashlib import sha256

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from commons.i18n import N_
from commons.messages import ENGLISH, Locale
from commons.notice_kinds import KINDS
from commons.notices import sentence, still_true
from commons.one_line import one_line
from commons.site import Mail, Site
from commons.store import GpuNotice, Lease, Store, StoreError
from commons.store.models import utcnow
from commons.web import origins
from commons.work import Periodic

INTERVAL = 20  # seconds between two looks
LONGEST_PAUSE = 900  # seconds, after failures
TRIED_FOR = timedelta(days=1)
AT_ONCE = 50  # mails of one round
_ADDRESS = re.compile(r"[^@\s<>,;:\"()\\]{1,64}@[A-Za-z0-9.-]{1,255}")


@dataclass(frozen=True)
class Addressee:
    """Where a person's mail goes, and how they read."""

    address: str
    reading: Locale = ENGLISH


@dataclass(frozen=True)
class Letter:
    """A notice that is to be mailed."""

    id: int
    username: str
    code: str
    data: dict[str, object]
    key: str
    server: str


class MailError(Exception):
    """The mail server does not take mail; ``final``: it will never take this one."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Postman:
    """Delivers notices, from the hub's process.

    Args:
        addressee: a person's address, None where none is known.
    """

    def __init__(
        self,
        store: Store,
        site: Site,
        addressee: Callable[[str], Awaitable[Addressee | None]],
        log: logging.Logger,
    ) -> None:
        self.store, self.site, self.addressee, self.log = store, site, addressee, log

    async def run(self) -> None:
        """Deliver for ever; at once over where the site sets no mail server."""

        async def deliver() -> None:
            await self.once()

        if self.site.mail.host:
            expected = (MailError, StoreError)
            await Periodic(
                "mail", deliver, INTERVAL, self.log, expected=expected, longest=LONGEST_PAUSE
            ).run()

    async def once(self) -> int:
        """One round; how many were sent. Raises MailError where the server takes none."""
        sent = 0
        for letter in await self.store.read(pending):
            to = await self.addressee(letter.username)
            if to is None or not _ADDRESS.fullmatch(to.address):
                self.log.info("mail: no address of %s", letter.username)
            else:
                message = write(self.site, letter, to)
                try:
                    await asyncio.to_thread(send, self.site.mail, message)
                    sent += 1
                except MailError as error:
                    if not error.final:
                        raise
                    self.log.error("mail to %s was refused: %s", letter.username, error)
            await self.store.run(partial(mark, letter_id=letter.id))
        return sent


def pending(session: Session) -> list[Letter]:
    """Notices to be mailed, oldest first: not seen, not too old, and still true."""
    query = (
        select(GpuNotice, Lease)
        .outerjoin(Lease, Lease.id == GpuNotice.lease_id)
        .where(
            GpuNotice.mailed_at.is_(None),
            GpuNotice.seen_at.is_(None),
            GpuNotice.at > utcnow() - TRIED_FOR,
            GpuNotice.code.in_([code for code, kind in KINDS.items() if kind.mailed]),
        )
        .order_by(GpuNotice.id)
    )
    found = [
        Letter(
            row.id,
            row.username,
            row.code,
            dict(row.data),
            row.key,
            lease.server_name if lease is not None else "",
        )
        for row, lease in session.execute(query)
        if still_true(row, lease)
    ]
    return found[:AT_ONCE]


def mark(session: Session, letter_id: int) -> None:
    """This one is dealt with."""
    session.execute(update(GpuNotice).where(GpuNotice.id == letter_id).values(mailed_at=utcnow()))


def write(site: Site, letter: Letter, to: Addressee) -> EmailMessage:
    """The mail for a notice, in the person's language."""
    _ = to.reading.gettext
    said = sentence(letter.code, letter.data, _, to.reading.timezone)
    about = f" [{letter.server}]" if letter.server else ""
    message = EmailMessage()
    message["Subject"] = one_line(f"{site.site.name}{about}: {said}")[:150]
    message["From"], message["To"] = site.mail.sender, to.address
    domain = site.mail.sender.rpartition("@")[2]
    message["Message-ID"] = f"<{sha256(letter.key.encode()).hexdigest()[:32]}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    where = origins.public_url(site) + "/hub/home"
    closing = _(N_("Your servers: {url}")).format(url=where)
    message.set_content(f"{said}\n\n{closing}\n")
    return message


def send(mail: Mail, message: EmailMessage) -> None:
    """Hand a message to the site's mail server. Blocks; each step has the time-out.

    Raises MailError.
    """
    port = mail.port or {"tls": 465, "starttls": 587, "none": 25}[mail.security]
    try:
        password = mail.password_file.read_text("utf-8").strip() if mail.password_file else ""
        trust = ssl.create_default_context(cafile=str(mail.ca_file) if mail.ca_file else None)
        server: smtplib.SMTP
        if mail.security == "tls":
            server = smtplib.SMTP_SSL(mail.host, port, timeout=mail.timeout, context=trust)
        else:
            server = smtplib.SMTP(mail.host, port, timeout=mail.timeout)
        with server:
            if mail.security == "starttls":
                server.starttls(context=trust)
            if mail.user:
                server.login(mail.user, password)
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _reason in error.recipients.values()]
        raise MailError(f"recipient refused: {codes}", all(c >= 500 for c in codes)) from error
    except smtplib.SMTPDataError as error:
        raise MailError(str(error), int(error.smtp_code) >= 500) from error
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise MailError(f"{mail.host}:{port}: {error}") from error
