"""The checks by name, and how they are run.

A check is a function of what it may look at; it says what it found, one thing or several::

    @check("databases")
    def databases(here: Here) -> Iterator[Finding]:
        yield Finding(State.BROKEN, SILENT(database=…), LOOK_AT_IT(), about="ours")

It need not catch anything: what it raises, and no answer in time, is ``unknown``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from commons.i18n import LANGUAGES, N_, gettext_for
from commons.messages import Message, Text
from commons.site import Site
from commons.store import Store

LIMIT = 5.0  # seconds for one check

NO_ANSWER = Text("health_no_answer", N_("no answer after {seconds} s"))
LOOK_AGAIN = Text(
    "health_look_again",
    N_("look again; if it stays so, what it asks is overloaded or hangs: restart that"),
)
NOT_LOOKED = Text("health_not_looked", N_("could not be looked at: {error}"))
SEE_LOG = Text("health_see_log", N_("mend what it says, then look again"))


class State(StrEnum):
    """How one thing is; ``ADVICE``: all is well, and could be better."""

    OK = "ok"
    ADVICE = "advice"
    UNKNOWN = "unknown"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """What one look found.

    Attributes:
        cause: what is so, in one sentence, right or wrong.
        remedy: what to do; none where all is well.
        about: of which of several things; empty where the check has one.
    """

    state: State
    cause: Message
    remedy: Message | None = None
    about: str = ""


@dataclass(frozen=True)
class Here:
    """What a check may look at.

    Attributes:
        facts: what the host said of itself (``deploy.doctor``); empty where it was not asked.
    """

    site: Site
    data: Path
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    facts: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @cached_property
    def store(self) -> Store:
        """Our database, which need not answer."""
        return Store(self.environ.get("LABCOMMONS_DATABASE_URL"))


Check = Callable[[Here], Iterable[Finding]]
CHECKS: dict[str, Check] = {}


def check(name: str) -> Callable[[Check], Check]:
    """Add a check by the name it is shown under; at most 60 characters, small letters."""

    def add(function: Check) -> Check:
        assert name not in CHECKS, f"two checks are called {name}"
        CHECKS[name] = function
        return function

    return add


def examine(
    here: Here, checks: Mapping[str, Check] = CHECKS, limit: float = LIMIT
) -> list[dict[str, Any]]:
    """Run all of them side by side, and return what they found as rows of JSON, in their order.

    What hangs is left behind: whoever calls this should end soon.
    """
    found: dict[str, list[Finding]] = {}

    def run(name: str, function: Check) -> None:
        try:
            found[name] = list(function(here))
        except Exception as error:  # whatever it was: the others go on
            words = str(error) or type(error).__name__
            said = NOT_LOOKED(error=words[:500])
            found[name] = [Finding(State.UNKNOWN, said, SEE_LOG())]

    threads = [
        threading.Thread(target=run, args=item, daemon=True, name=f"doctor {item[0]}")
        for item in checks.items()
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + limit
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    silent = [Finding(State.UNKNOWN, NO_ANSWER(seconds=f"{limit:g}"), LOOK_AGAIN())]
    found = dict(found)  # a late answer changes nothing any more
    return [as_row(name, one) for name in checks for one in found.get(name, silent)]


def as_row(name: str, one: Finding) -> dict[str, Any]:
    """A finding as JSON, in both languages: the form in which the host says its own, too."""
    return {
        "check": name,
        "about": one.about,
        "state": str(one.state),
        "cause": in_all(one.cause),
        "remedy": in_all(one.remedy) if one.remedy else {},
    }


def in_all(message: Message) -> dict[str, str]:
    """A message in every language, by its code."""
    return {lang: message.in_words(gettext_for(lang)) for lang in LANGUAGES}


def exit_code(rows: Iterable[Mapping[str, Any]]) -> int:
    """0: all well; 1: a warning, or something unknown; 2: something is broken."""
    states = {row["state"] for row in rows}
    return 2 if State.BROKEN in states else 1 if states & {State.WARNING, State.UNKNOWN} else 0
