"""The report of a month as one file, and its mail to those whom the site file names: once a month.

That it is going to be sent is written before it is: a hub that is killed meanwhile does not send it
twice, and the next one says that nobody knows. What the mail server does not take is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import date
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from sqlalchemy import delete
from sqlalchemy.orm import Session

from commons.i18n import N_, Gettext, choose_timezone, gettext_for
from commons.one_line import one_line
from commons.site import Site
from commons.store import Store, StoreError
from commons.store.models import UsageMark
from commons.web import origins
from commons.work import Periodic
from hub_ext.console import page_words
from hub_ext.console.usage_pages import month_before, whole_report
from hub_ext.mail import LONGEST_PAUSE, MailError, send
from spawner.usage import report
from spawner.usage.days import day_of
from spawner.usage.report import EVERYTHING
from spawner.usage.rollup import MARK

EVERY = 3600.0  # seconds between two looks
_TEMPLATES = Path(__file__).parent / "console" / "templates"


def render(session: Session, site: Site, month: str, _: Gettext, lang: str) -> tuple[str, Any]:
    """A whole HTML document, and what it shows. Raises BadRequest for what is no month."""
    found = whole_report(session, month, EVERYTHING, _)
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, extensions=["jinja2.ext.i18n"]
    )
    templates.policies["ext.i18n.trimmed"] = True
    install = templates.install_gettext_callables  # type: ignore[attr-defined]
    install(_, lambda one, many, count: _(one if count == 1 else many), newstyle=True)
    words = page_words.for_page(_, choose_timezone(found["zone"]))
    page = templates.get_template("usage_letter.html").render(
        **words, **found, site_name=site.site.name, lang=lang.replace("_", "-")
    )
    return page, found


def write(site: Site, month: str, page: str, found: dict[str, Any], _: Gettext) -> EmailMessage:
    """The mail: figures in its text, the report as a file."""
    message = EmailMessage()
    title = _(N_("{site}: usage in {month}")).format(site=site.site.name, month=month)
    message["Subject"] = one_line(title)[:150]
    message["From"], message["To"] = site.mail.sender, ", ".join(site.mail.reports)
    domain = site.mail.sender.rpartition("@")[2]
    message["Message-ID"] = f"<usage-{month}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    whole, where = found["all"], origins.public_url(site) + "/services/labcommons/usage/report"
    text = _(
        N_(
            "GPU-hours: {gpu}, not used: {idle}\nCPU-hours: {cpu}\nPeople: {people}\n\n"
            "The attached page can be printed. With plots and tables for other months:\n{url}"
        )
    ).format(**whole, people=found["people"], url=f"{where}?month={month}")
    message.set_content(f"{text}\n")
    message.add_attachment(page, subtype="html", filename=f"usage-{month}.html")
    return message


def due(session: Session, today: date) -> str | None:
    """The month whose report is to be sent now: it is over, summed up, and not dealt with."""
    month, done = month_before(today), session.get(UsageMark, MARK)
    if done is None or day_of(done.at, choose_timezone(done.value)) < today.replace(day=1):
        return None
    return month if session.get(UsageMark, f"report:{month}") is None else None


class ReportPostman:
    """Sends the reports, from the hub's process."""

    def __init__(self, store: Store, site: Site, log: logging.Logger) -> None:
        self.store, self.site, self.log = store, site, log

    async def run(self) -> None:
        """For ever; at once over where the site sends none."""
        if self.site.mail.host and self.site.mail.reports:
            expected = (MailError, StoreError)
            await Periodic(
                "monthly report",
                self.once,
                EVERY,
                self.log,
                expected=expected,
                longest=LONGEST_PAUSE,
                first=90,
            ).run()

    async def once(self) -> None:
        """One look. Raises MailError where the server takes none now."""
        _ = gettext_for(self.site.site.language)

        def claim(session: Session) -> tuple[str, EmailMessage | None] | None:
            month = due(session, report.today(session))
            if month is None:
                return None
            page, found = render(session, self.site, month, _, self.site.site.language)
            letter = None if found["empty"] else write(self.site, month, page, found, _)
            session.add(UsageMark(name=f"report:{month}", value="sending" if letter else "empty"))
            return month, letter

        await self._tell_unknown()
        claimed = await self.store.run(claim)
        month, letter = claimed or ("", None)
        if letter is None:
            return
        try:
            await asyncio.to_thread(send, self.site.mail, letter)
        except MailError as error:
            if not error.final:
                await self.store.run(partial(_forget, month=month))
                raise
            self.log.error("the report of %s was refused: %s", month, error)
            await self.store.run(partial(_mark, month=month, value="refused"))
        else:
            self.log.info("the report of %s was sent", month)
            await self.store.run(partial(_mark, month=month, value="sent"))

    async def _tell_unknown(self) -> None:
        """An earlier hub was ended while it sent one."""

        def take(session: Session) -> list[str]:
            rows = session.query(UsageMark).filter_by(value="sending").all()
            for row in rows:
                row.value = "unknown"
            return [row.name.removeprefix("report:") for row in rows]

        for month in await self.store.run(take):
            self.log.error(
                "the report of %s may not have been sent: the hub ended meanwhile; "
                "labcommons usage html --month %s makes it",
                month,
                month,
            )


def _forget(session: Session, month: str) -> None:
    session.execute(delete(UsageMark).where(UsageMark.name == f"report:{month}"))


def _mark(session: Session, month: str, value: str) -> None:
    session.merge(UsageMark(name=f"report:{month}", value=value))
