"""What the spawn form says of GPUs to one person: for each account, limits and expected waits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Literal

from hub_ext.i18n import N_, Gettext
from spawner.gpu import outlook, reasons
from spawner.gpu.limits import count_limits
from spawner.gpu.outlook import BudgetLeft, Outlook
from spawner.gpu.state import Snapshot, Subject

# Seconds that looking ahead may take in all; what is not known by then is not said.
PATIENCE = 0.5
# Time limits to choose from, in minutes; those above the most are left out.
STEPS = (30, 60, 120, 240, 480, 720, 1440, 2880, 4320, 10080)


@dataclass(frozen=True)
class Offer:
    """One account that may be charged.

    Attributes:
        most, usual: time limits in minutes; None: there is none.
        facts: what may still be used, in sentences.
        outlooks: by count of GPUs, what would become of a request.
    """

    account: Subject
    title: str
    most: int | None
    usual: int | None
    facts: tuple[str, ...]
    outlooks: Mapping[int, tuple[Literal["now", "wait", "never"], str]] = field(
        default_factory=dict
    )

    def as_json(self, selected: bool) -> dict[str, Any]:
        """For the form's model."""
        steps = [step for step in STEPS if self.most is None or step < self.most]
        return {
            "name": self.account,
            "title": self.title,
            "selected": selected,
            "usual": self.usual,
            "minutes": [*steps, *([self.most] if self.most else [])],
            "facts": list(self.facts),
            "outlooks": {
                str(count): {"state": state, "text": text}
                for count, (state, text) in self.outlooks.items()
            },
        }


def make_offers(
    snapshot: Snapshot,
    user: str,
    accounts: Sequence[Subject],
    most: int,
    gettext: Gettext,
    zone: tzinfo | None,
) -> tuple[Offer, ...]:
    """The offers for a person, for 1 to ``most`` GPUs of any type."""
    until = time.monotonic() + PATIENCE
    return tuple(
        _offer(snapshot, user, account, most, gettext, zone, until) for account in accounts
    )


def _offer(
    snapshot: Snapshot,
    user: str,
    account: Subject,
    most: int,
    gettext: Gettext,
    zone: tzinfo | None,
    until: float,
) -> Offer:
    longest = outlook.longest_time_limit(snapshot, user, account)
    usual = outlook.usual_time_limit(snapshot, user, account)
    found = {}
    for count in range(1, most + 1):
        if time.monotonic() > until:
            break
        request = outlook.probe(user, account, snapshot.now, count, "", usual)
        seen = outlook.outlook(snapshot, request)
        found[count] = _in_words(seen, gettext, zone, snapshot.now)
    return Offer(
        account,
        gettext(N_("Yourself")) if account == f"user:{user}" else _title(account, gettext),
        None if longest is None else max(1, int(longest // 60)),
        None if usual is None else max(1, int(usual // 60)),
        tuple(_facts(snapshot, user, account, gettext)),
        found,
    )


def _title(account: Subject, gettext: Gettext) -> str:
    name = reasons.subject_name(account, gettext)
    return name[:1].upper() + name[1:]


def _in_words(
    seen: Outlook, gettext: Gettext, zone: tzinfo | None, now: float
) -> tuple[Literal["now", "wait", "never"], str]:
    if seen.refused:
        said = (reasons.sentence(reason, gettext, zone, now) for reason in seen.refused)
        return "never", " ".join(said)
    if seen.waits is None:
        return "now", gettext(N_("starts at once"))
    ahead = seen.waits.position - 1
    text = (
        gettext(N_("waits; nobody ahead of you"))
        if ahead == 0
        else gettext(N_("waits; {count} ahead of you")).format(count=ahead)
    )
    if seen.waits.expected_start is not None:
        at = reasons.moment(seen.waits.expected_start, gettext, zone, now)
        text += gettext(N_("; about {time}")).format(time=at)
    return "wait", text


def _facts(snapshot: Snapshot, user: str, account: Subject, gettext: Gettext) -> list[str]:
    facts = []
    for limit in count_limits(user, account, snapshot.quotas):
        if limit.scope.model:
            continue
        held = outlook.held(snapshot, limit.scope)
        sentence = (
            N_("You hold {held} of the {most} GPUs that you may have at once.")
            if limit.scope.user
            else N_("Together, {whom} holds {held} of {most} GPUs.")
        )
        whom = reasons.subject_name(account, gettext)
        facts.append(gettext(sentence).format(held=held, most=limit.most, whom=whom))
    facts += [_budget(one, gettext) for one in outlook.budgets_left(snapshot, user, account)]
    return facts


def _budget(one: BudgetLeft, gettext: Gettext) -> str:
    sentence = (
        N_("You may still use {left} of {all} GPU-hours.")
        if one.user
        else N_("All together may still use {left} of {all} GPU-hours.")
    )
    return gettext(sentence).format(left=f"{one.left:.1f}", all=f"{one.budget.gpu_hours:g}")
