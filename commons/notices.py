"""The one channel by which people are told things (docs/notices.md): written once for each cause,
shown in the notebook, on pages, by REST and in mails.

Whoever notices something calls ``add`` in the transaction in which it acts. Codes, levels and
sentences are in ``commons.notice_kinds``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from commons.i18n import N_, NP_, Gettext, in_context, zone_after
from commons.leases import LeaseState
from commons.messages import Locale, Message, Text, listed, verbatim
from commons.notice_kinds import KINDS, Action, Level
from commons.scopes import of_account
from commons.store.models import GpuNotice, Lease, utcnow

SHOWN_FOR = timedelta(days=7)
SHOWN_AT_MOST = 50


@dataclass(frozen=True)
class Notice:
    """A notice as it is shown.

    Attributes:
        more: figures, and what to do; may be empty.
        ended: whether it says why the server has ended.
        notebook, sender: the number of a notebook that was sent, and by whom.
    """

    id: int
    at: datetime
    code: str
    level: Level
    sentence: str
    actions: tuple[Action, ...]
    lease_id: str | None
    server: str
    seen: bool
    more: str = ""
    ended: bool = False
    notebook: int | None = None
    sender: str = ""


def add(
    session: Session,
    *,
    username: str,
    lease_id: str | None,
    code: str,
    data: Mapping[str, Any],
    key: str,
    server: str | None = None,
    more: Sequence[Message] = (),
    now: datetime | None = None,
) -> bool:
    """Tell a person something, once for a ``key`` (the cause, up to 160 characters).

    ``server`` is the name of the server that it is about, which a lease says, too. ``more`` is
    what follows the sentence: figures, and what to do. True when it is new. Raises KeyError for a
    code that is not in ``KINDS``.
    """
    KINDS[code]
    if session.scalar(select(GpuNotice.id).where(GpuNotice.key == key)) is not None:
        return False
    try:
        with session.begin_nested():
            session.add(
                GpuNotice(
                    username=username,
                    lease_id=lease_id,
                    code=code,
                    data={**data, "more": [one.as_json() for one in more]} if more else dict(data),
                    key=key,
                    server_name=server,
                    at=now or utcnow(),
                )
            )
    except IntegrityError:  # another process said it at this moment
        return False
    return True


def show(
    session: Session,
    username: str,
    _: Gettext,
    timezone: tzinfo | None = None,
    now: datetime | None = None,
) -> list[Notice]:
    """A person's notices of the last days, newest first, at most ``SHOWN_AT_MOST``."""
    query = (
        select(GpuNotice, Lease)
        .outerjoin(Lease, Lease.id == GpuNotice.lease_id)
        .where(GpuNotice.username == username, GpuNotice.at > (now or utcnow()) - SHOWN_FOR)
        .order_by(GpuNotice.id.desc())
        .limit(SHOWN_AT_MOST)
    )
    shown: list[Notice] = []
    topics: set[tuple[str, str]] = set()
    for row, lease in session.execute(query):
        kind = KINDS.get(row.code)
        if kind is None or not still_true(row, lease):
            continue
        server = lease.server_name if lease is not None else row.server_name or ""
        # Of a server's ends the last is told.
        topic = "end" if kind.ended else kind.topic
        about = server if kind.ended else row.lease_id or server
        if topic and (about, topic) in topics:
            continue
        if kind.until and (server, "end") in topics:  # it has ended meanwhile
            continue
        topics.add((about, topic))
        shown.append(
            Notice(
                row.id,
                row.at,
                row.code,
                kind.level,
                sentence(row.code, row.data, _, timezone),
                kind.actions,
                row.lease_id,
                server,
                row.seen_at is not None,
                more(row.code, row.data, _, timezone),
                kind.ended,
                row.data.get("notebook"),
                str(row.data.get("sender", "")),
            )
        )
    return shown


def still_true(notice: GpuNotice, lease: Lease | None) -> bool:
    """Whether what a notice says is going to happen, still is: not of a lease that is over, and
    no end that was put off meanwhile.
    """
    kind = KINDS[notice.code]
    if kind.until:
        return float(notice.data.get(kind.until) or 0) > utcnow().replace(tzinfo=UTC).timestamp()
    if not kind.upcoming:
        return True
    if lease is None or lease.state is LeaseState.ENDED:
        return False
    if notice.code == "preempted_soon" and lease.stop_at is None:
        return False
    said = notice.data.get("ends_at")
    if said is None or lease.ends_at is None:
        return True
    return lease.ends_at.replace(tzinfo=UTC).timestamp() < float(said) + 1


def mark_seen(
    session: Session, username: str, ids: Collection[int], now: datetime | None = None
) -> int:
    """The person has seen these of their notices; how many that changed."""
    wanted = list(ids)[:SHOWN_AT_MOST]
    done = session.execute(
        update(GpuNotice)
        .where(
            GpuNotice.username == username, GpuNotice.id.in_(wanted), GpuNotice.seen_at.is_(None)
        )
        .values(seen_at=now or utcnow())
    )
    return int(getattr(done, "rowcount", 0))


def sentence(code: str, data: Mapping[str, Any], _: Gettext, timezone: tzinfo | None = None) -> str:
    """The sentence of a notice, with times in ``timezone`` (UTC without)."""
    return TEXTS[code](**data).in_words(Locale(_, timezone))


def more(code: str, data: Mapping[str, Any], _: Gettext, timezone: tzinfo | None = None) -> str:
    """What follows the sentence: figures, and what to do; may be empty."""
    found = data.get("more")
    messages = [Message.from_json(one) for one in found] if isinstance(found, list) else []
    if remedy := KINDS[code].remedy:
        messages.append(verbatim(_(remedy)))
    return listed(messages, Locale(_, timezone))


def moment(at: datetime, timezone: tzinfo | None) -> str:
    """A time of the store, in the reader's zone; of today without its day."""
    return moment_of(at.replace(tzinfo=UTC).timestamp(), Locale(timezone=timezone))


def moment_of(value: Any, locale: Locale) -> str:
    """A time in seconds since 1970, as ``moment``."""
    when = datetime.fromtimestamp(value, locale.timezone or UTC)
    today = when.date() == datetime.now(when.tzinfo).date()
    return (f"{when:%H:%M}" if today else f"{when:%Y-%m-%d %H:%M}") + zone_after(when)


def _duration(value: Any, locale: Locale) -> str:
    minutes = max(1, round(value / 60))
    if minutes < 120:
        return locale.gettext(N_("{count} min")).replace("{count}", str(minutes))
    return locale.gettext(N_("{count} h")).replace("{count}", str(round(minutes / 60)))


def _amount(value: Any, _locale: Locale) -> str:
    size = int(value)
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.0f} MiB"


def _account(value: Any, locale: Locale) -> str:
    scope = of_account(str(value))
    return scope.phrase(locale.gettext) if scope else str(value)


_SHOWN = {"at": moment_of, "for": _duration, "bytes": _amount, "account": _account}


def text(code: str, english: str, otherwise: tuple[str, ...] = ()) -> Text:
    """A text whose fields are shown by the ends of their names (``at``, ``for``, …), as in
    ``notice_kinds``.
    """
    said = " ".join((english, *otherwise))
    fields = re.findall(r"\{(\w+)\}", said)
    shown = {f: _SHOWN[end] for f in fields if (end := f.rpartition("_")[2]) in _SHOWN}
    return Text(code, english, shown, otherwise=otherwise)


TEXTS = {
    code: text("notice_" + code, kind.sentence, kind.otherwise) for code, kind in KINDS.items()
}


# -- what to do about memory -----------------------------------------------------------------------

# The code of this language, to choose among the words of the site file.
_LANGUAGE = NP_("the code of this language", "en")


def site_words(value: Any, locale: Locale) -> str:
    """Words of the site file, or an administrator's: one text, or (language, text, …)."""
    if isinstance(value, str):
        return value
    words = dict(zip(value[::2], value[1::2], strict=True))
    found = words.get(in_context(locale.gettext, _LANGUAGE)) or words.get("en")
    return str(found or next(iter(words.values())))


LARGEST = text("notice_largest", N_("The largest was {name} of {what} with {memory_bytes}."))
LARGEST_ALONE = text("notice_largest_alone", N_("The largest was {name} with {memory_bytes}."))
PEAK = text("notice_peak", N_("The kernel and what it started had up to {memory_bytes}."))
IN_TMP = text(
    "notice_in_tmp",
    N_("Of it, {shared_bytes} were files in /tmp and /dev/shm, which are kept in memory."),
)
LARGER_SIZE = Text(
    "notice_larger_size",
    N_("Load less at once, or start the server with the size “{size}”, which has {memory_bytes}."),
    {"size": site_words, "memory_bytes": _amount},
)
NO_LARGER_SIZE = Text(
    "notice_no_larger_size",
    N_("Load less at once; the server has the largest size that there is here."),
)


def about_memory(
    limit: int | None, sizes: Sequence[tuple[object, int]], shared: int = 0
) -> list[Message]:
    """What to do where memory is short. ``sizes``: titles (as in the site file) and bytes."""
    found = []
    if limit and shared > limit / 10:
        found.append(IN_TMP(shared_bytes=shared))
    larger = min(
        (size for size in sizes if limit and size[1] > limit), key=lambda s: s[1], default=None
    )
    if larger is None:
        return [*found, NO_LARGER_SIZE()]
    title, memory = larger
    if isinstance(title, Mapping):
        title = [part for pair in title.items() for part in pair]
    return [*found, LARGER_SIZE(size=title, memory_bytes=memory)]
