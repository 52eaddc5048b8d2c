"""The report of a month by mail: once, whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import insert
from sqlalchemy.orm import Session

from commons.site import Mail, Site
from commons.store import Store
from commons.store.models import UsageDay, UsageMark, utcnow
from hub_ext import usage_cli, usage_letter
from hub_ext.mail import MailError
from hub_ext.usage_letter import ReportPostman
from spawner.usage import rollup
from spawner.usage.days import Figures

LOG = logging.getLogger("test")
HOSTILE = "<script>alert('x')</script>"
TODAY = utcnow().date()
BEFORE = TODAY.replace(day=1) - timedelta(days=3)
MONTH = f"{BEFORE:%Y-%m}"


@pytest.fixture
def site() -> Site:
    return Site.model_validate(
        {
            "version": 1,
            "site": {"name": f"Lab {HOSTILE}"},
            "directory": {
                "servers": ["ldaps://ldap.example.org"],
                "users": {"base_dn": "dc=example,dc=org"},
            },
            "sizes": {"small": {"cpu": 1, "memory": "1G"}},
            "mail": {
                "host": "mail.example.org",
                "sender": "lab@example.org",
                "reports": ["head@example.org", "dean@example.org"],
            },
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.migrate()
    store.transact(_used)
    yield store
    store.close()


def _used(session: Session) -> None:
    key = {"day": BEFORE, "username": HOSTILE, "account": "group:vision", "environment": "torch"}
    figures = Figures(gpu_seconds=7200, cpu_seconds=3600, idle_seconds=1800)
    session.execute(insert(UsageDay), [{**key, "model": "A100", **figures._asdict()}])
    rollup.sum_months(session, BEFORE, BEFORE, False)
    session.merge(UsageMark(name=rollup.MARK, value="UTC", at=utcnow()))


class Server:
    """What the mail server takes; ``fails`` are the answers to come before it does."""

    def __init__(self, *fails: BaseException) -> None:
        self.fails, self.taken = list(fails), list[EmailMessage]()

    def __call__(self, _mail: Mail, message: EmailMessage) -> None:
        if self.fails:
            raise self.fails.pop(0)
        self.taken.append(message)


def said(store: Store) -> str:
    return store.transact(lambda s: s.get_one(UsageMark, f"report:{MONTH}").value, read=True)


async def test_it_is_sent_once_with_figures_and_a_page(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_letter, "send", server := Server())
    for _ in range(3):
        await ReportPostman(store, site, LOG).once()
    [mail] = server.taken
    assert mail["To"] == "head@example.org, dean@example.org"
    assert MONTH in mail["Subject"]
    body, page = mail.get_body(("plain",)), next(iter(mail.iter_attachments()))
    assert body is not None
    assert "GPU-hours: 2, not used: 25%" in body.get_content()
    html = page.get_content()
    assert page.get_filename() == f"usage-{MONTH}.html"
    assert HOSTILE not in html
    assert "<svg" in html
    assert "http" not in html.replace("http-equiv", ""), "it needs nothing from anywhere"
    assert said(store) == "sent"


async def test_a_hub_that_is_killed_while_it_sends_does_not_send_it_twice(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(usage_letter, "send", server := Server(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        await ReportPostman(store, site, LOG).once()
    assert said(store) == "sending"
    for _ in range(2):
        await ReportPostman(store, site, LOG).once()
    assert server.taken == []
    assert said(store) == "unknown"
    assert caplog.text.count("may not have been sent") == 1


async def test_what_is_not_taken_now_is_tried_again_and_what_never_is_not(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_letter, "send", server := Server(MailError("busy")))
    with pytest.raises(MailError):
        await ReportPostman(store, site, LOG).once()
    await ReportPostman(store, site, LOG).once()
    assert len(server.taken) == 1
    store.transact(lambda s: usage_letter._forget(s, MONTH))
    monkeypatch.setattr(usage_letter, "send", server := Server(MailError("no", final=True)))
    for _ in range(2):
        await ReportPostman(store, site, LOG).once()
    assert server.taken == []
    assert said(store) == "refused"


async def test_a_month_that_is_not_summed_up_or_empty_is_not_sent(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_letter, "send", server := Server())
    early = UsageMark(name=rollup.MARK, value="UTC", at=utcnow() - timedelta(days=40))
    store.transact(lambda s: s.merge(early))
    await ReportPostman(store, site, LOG).once()
    assert server.taken == []
    store.transact(lambda s: s.query(UsageDay).delete())
    store.transact(lambda s: rollup.sum_months(s, BEFORE, BEFORE, True))
    store.transact(lambda s: s.merge(UsageMark(name=rollup.MARK, value="UTC", at=utcnow())))
    await ReportPostman(store, site, LOG).once()
    assert server.taken == []
    assert said(store) == "empty"


def test_by_command_in_chinese(
    store: Store, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", store.url)
    monkeypatch.setattr(usage_cli, "load_site", lambda: site)
    made = CliRunner().invoke(usage_cli.usage, ["html", "--month", MONTH, "--lang", "zh_CN"])
    assert made.exit_code == 0, made.output
    assert f"{MONTH} 用量" in made.stdout
    wrong = CliRunner().invoke(usage_cli.usage, ["html", "--month", "x"])
    assert wrong.exit_code == 1


@pytest.mark.parametrize("address", ["", "x", "a@b\nBcc: c@d", "a@b,c@d", "<a@b>"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="reports"):
        Mail(host="m", sender="a@b", reports=[address])
