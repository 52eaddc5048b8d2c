"""What a server tells its owner about itself, as notices: in bounds, for it is its owner's word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from commons import notices
from commons.messages import Message
from commons.store.models import GpuNotice, utcnow

# Of one person in an hour; a program that dies again and again says nothing new.
MOST = 60
# Fields of the data that are part of the sentences.
_SAID = ("what", "how", "count", "place", "used_bytes", "limit_bytes")
_MEMORY = ("kernel_out_of_memory", "process_out_of_memory", "memory_high")


def add(
    session: Session,
    username: str,
    server: str,
    event: Mapping[str, Any],
    sizes: Sequence[tuple[object, int]],
) -> int | None:
    """Write it; its number, None where it is told already or too many are.

    ``event`` is an ``OwnNotice``; ``sizes`` are titles and bytes of the site's sizes.
    """
    recent = select(func.count()).where(
        GpuNotice.username == username,
        GpuNotice.key.startswith("own:"),
        GpuNotice.at > utcnow() - timedelta(hours=1),
    )
    if (session.scalar(recent) or 0) >= MOST:
        return None
    key = f"own:{event['event']}:{username}"[:160]
    data = {name: event[name] for name in _SAID if event[name] not in ("", 0)}
    new = notices.add(
        session,
        username=username,
        lease_id=None,
        server=server,
        code=event["code"],
        data=data,
        key=key,
        more=_more(event, sizes) if event["code"] in _MEMORY else (),
    )
    return session.scalar(select(GpuNotice.id).where(GpuNotice.key == key)) if new else None


def _more(event: Mapping[str, Any], sizes: Sequence[tuple[object, int]]) -> list[Message]:
    largest, peak = event["largest"] or {}, event["peak_bytes"]
    size = largest.get("memory_bytes", 0)
    found = []
    if peak and peak >= size:
        found.append(notices.PEAK(memory_bytes=peak))
    elif size and largest["what"]:
        found.append(notices.LARGEST(**largest))
    elif size:
        found.append(notices.LARGEST_ALONE(name=largest["name"], memory_bytes=size))
    return [*found, *notices.about_memory(event["limit_bytes"], sizes, event["shared_bytes"])]
