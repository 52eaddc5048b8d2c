"""``GET api/v1/audit``: the audit trail, for administrators."""

from __future__ import annotations

import asyncio
import time
from itertools import dropwhile
from pathlib import Path
from typing import Any

from pydantic import Field

from commons.audit import reading
from commons.rights import Action
from commons.web.operations import Query, Route, Told, operation, upto
from hub_ext.console.handlers import Api

MOST = 500
PATIENCE = 10.0  # seconds of looking for one answer
_MOMENT = r"^(\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?Z?)?$"


class Wanted(Query):
    """Which events; what is not said lets all pass."""

    person: str = Field("", description="a login name")
    action: str = Field("", description="ECS event.action, such as login")
    outcome: str = Field("", description="success, failure, unknown")
    writer: str = Field("", description="the service whose event it is")
    about: str = Field("", max_length=200, description="a word of the details")
    since: str = Field("", pattern=_MOMENT, description="ISO 8601, UTC")
    until: str = Field("", pattern=_MOMENT, description="ISO 8601, UTC; not in it any more")
    before: str = Field(
        "", pattern=r"^(\S{1,40} [a-z-]{1,40} \d{1,15})?$", description="the ``next`` of a page"
    )
    limit: upto(MOST, 1) = 100  # type: ignore[valid-type]


class Events(Told):
    """Events in ECS, the newest first."""

    events: list[dict[str, Any]]
    next: str = Field(description="ask with this as ``before`` for older ones; empty: none")


class AuditApi(Api):
    """``GET api/v1/audit``."""

    root: Path

    def initialize(self, data: Path, **shared: Any) -> None:  # type: ignore[override]
        """With the data folder."""
        super().initialize(**shared)
        self.root = data / "audit"

    @operation("The audit trail, the newest first (administrators)", Events, query=Wanted)
    async def get(self, query: Wanted) -> None:
        """Events that fit. Read in a thread: days of them may be looked through."""
        self.need(Action.ADMINISTER)
        asked = query.model_dump(exclude={"limit", "before"})
        asked["since"], asked["until"] = (asked[name].rstrip("Z") for name in ("since", "until"))
        wanted = reading.Filter(**asked)
        found, after = await asyncio.to_thread(older, self.root, wanted, query.before, query.limit)
        self.record("look", what="audit", **{k: v for k, v in asked.items() if v})
        self.reply({"events": found, "next": after})


def older(
    root: Path, wanted: reading.Filter, before: str, limit: int
) -> tuple[list[dict[str, Any]], str]:
    """Events that fit, the newest first, after the place ``before``; and the place to go on from,
    empty where there are none older. After PATIENCE that is how far it has looked.
    """
    # What it looks through in vain counts, too, so the times are not left to who reads the files.
    events = reading.events(root, reading.Filter(writer=wanted.writer), True, wanted.since)
    if before:  # several events can be of one millisecond
        at = before.partition(" ")[0]
        later = lambda one: _place(one) != before and str(one.get("@timestamp", "")) >= at  # noqa: E731
        events = (one for one in dropwhile(later, events) if _place(one) != before)
    found: list[dict[str, Any]] = []
    end = 0.0
    for event in events:
        end = end or time.monotonic() + PATIENCE  # from the place on
        if wanted.lets(event):
            if len(found) == limit:
                return found, _place(found[-1])
            found.append(event)
        if time.monotonic() > end:
            return found, _place(event)
    return found, ""


def _place(event: dict[str, Any]) -> str:
    chain = event.get("labcommons", {}).get("chain", {})
    number = event["event"].get("sequence", 0)
    return f"{event.get('@timestamp', '')} {chain.get('writer', reading.BEFORE)} {number}"


ROUTES = (Route("/api/v1/audit", AuditApi),)
