"""What the spawn form says of GPUs to one person: for each account, limits and expected waits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Any, Literal

from commons.i18n import N_, Gettext
from commons.scopes import own_account
from spawner.gpu.policy import forecast, reasons
from spawner.gpu.policy.forecast import PROBE, BudgetLeft, Outlook
from spawner.gpu.policy.limits import count_limits, person_ceiling
from spawner.gpu.policy.state import Snapshot, Subject

# Seconds that looking ahead may take in all; what is not known by then is not said.
PATIENCE = 0.5
# Time limits to choose from, in minutes; those above the most are left out.
STEPS = (30, 60, 120, 240, 480, 720, 1440, 2880, 4320, 10080)

_RESERVED = N_("starts at once, until {time}; then the GPUs are reserved: longer starts later")
_LATER = N_("starts at once, until {time}; longer starts later")


Outlooks = Mapping[int, tuple[Literal["now", "wait", "never"], str]]
Gaps = Mapping[int, tuple[float, str]]


@dataclass(frozen=True)
class Offer:
    """One account that may be charged.

    Attributes:
        most, usual: time limits in minutes; None: there is none.
        facts: what may still be used, in sentences.
        outlooks: by count of GPUs, what would become of a request.
        gaps: by count, where it would wait, until when it could run if it started at once.
        of_type: both by model, for a request of that model.
    """

    account: Subject
    title: str
    most: int | None
    usual: int | None
    facts: tuple[str, ...]
    outlooks: Outlooks = field(default_factory=dict)
    gaps: Gaps = field(default_factory=dict)
    of_type: dict[str, tuple[Outlooks, Gaps]] = field(default_factory=dict)

    def outlooks_of(self, gpu_type: str) -> Outlooks:
        """What would become of a request of a model, "" for any."""
        return self.of_type[gpu_type][0] if gpu_type in self.of_type else self.outlooks

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
            "outlooks": _as_json(self.outlooks, self.gaps),
            "types": {model: _as_json(*seen) for model, seen in self.of_type.items()},
        }


def make_offers(
    snapshot: Snapshot,
    user: str,
    accounts: Sequence[Subject],
    most: int,
    gettext: Gettext,
    zone: tzinfo | None,
    models: Sequence[str] = (),
    anytime: bool = False,
) -> tuple[Offer, ...]:
    """The offers for a person, for 1 to ``most`` GPUs of any type, then of each of ``models``.

    ``anytime``: they may start in maintenance, too.
    """
    until = time.monotonic() + PATIENCE
    offers = []
    for account in accounts:
        seen = _look(snapshot, user, account, "", most, gettext, zone, until, anytime)
        offers.append(_offer(snapshot, user, account, gettext, *seen))
    # What nobody may choose after all comes last: time is short.
    for model in models:
        for offer in offers:
            if time.monotonic() <= until:
                account = offer.account
                offer.of_type[model] = _look(
                    snapshot, user, account, model, most, gettext, zone, until, anytime
                )
    return tuple(offers)


def _look(
    snapshot: Snapshot,
    user: str,
    account: Subject,
    gpu_type: str,
    most: int,
    gettext: Gettext,
    zone: tzinfo | None,
    until: float,
    anytime: bool,
) -> tuple[Outlooks, Gaps]:
    """What would become of requests of 1 to ``most`` GPUs, as far as time suffices."""
    usual = forecast.usual_time_limit(snapshot, user, account)
    found: dict[int, tuple[Literal["now", "wait", "never"], str]] = {}
    gaps = {}
    for count in range(1, most + 1):
        if time.monotonic() > until:
            break
        request = forecast.probe(user, account, snapshot.now, count, gpu_type, usual)
        request = replace(request, anytime=anytime)
        seen = forecast.outlook(snapshot, request)
        found[count] = _in_words(seen, gettext, zone, snapshot.now)
        if seen.waits is not None and not seen.refused:
            gap = forecast.gap_now(snapshot, request, lambda: time.monotonic() > until)
            if gap is not None:
                at = reasons.moment(gap.until, gettext, zone, snapshot.now)
                gaps[count] = gap.until, gettext(N_("until {time}")).format(time=at)
                found[count] = "now", gettext(_RESERVED if gap.reserved else _LATER).format(time=at)
    return found, gaps


def _as_json(outlooks: Outlooks, gaps: Gaps) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        str(count): {"state": state, "text": text} for count, (state, text) in outlooks.items()
    }
    for count, (until, text) in gaps.items():
        found[str(count)]["until"] = {"value": f"until:{until:.0f}", "text": text}
    return found


def _offer(
    snapshot: Snapshot,
    user: str,
    account: Subject,
    gettext: Gettext,
    outlooks: Outlooks,
    gaps: Gaps,
) -> Offer:
    longest = forecast.longest_time_limit(snapshot, user, account)
    usual = forecast.usual_time_limit(snapshot, user, account)
    return Offer(
        account,
        gettext(N_("Yourself")) if account == own_account(user) else _title(account, gettext),
        None if longest is None else max(1, int(longest // 60)),
        None if usual is None else max(1, int(usual // 60)),
        tuple(_facts(snapshot, user, account, gettext)),
        outlooks,
        gaps,
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
    used = {claim.account for claim in snapshot.claims if claim.user == user and claim.id != PROBE}
    ceiling = person_ceiling(user, {account, *used}, snapshot.quotas)
    if ceiling:
        sentence = N_("Over all accounts, you hold {held} of {most} GPUs.")
        held = forecast.held(snapshot, ceiling.scope)
        facts.append(gettext(sentence).format(held=held, most=ceiling.most))
    for limit in count_limits(user, account, snapshot.quotas):
        if limit.scope.model:
            continue
        held = forecast.held(snapshot, limit.scope)
        sentence = (
            N_("You hold {held} of the {most} GPUs that you may have at once.")
            if limit.scope.user
            else N_("Together, {whom} holds {held} of {most} GPUs.")
        )
        whom = reasons.subject_name(account, gettext)
        facts.append(gettext(sentence).format(held=held, most=limit.most, whom=whom))
    facts += [_budget(one, gettext) for one in forecast.budgets_left(snapshot, user, account)]
    return facts


def _budget(one: BudgetLeft, gettext: Gettext) -> str:
    sentence = (
        N_("You may still use {left} of {all} GPU-hours.")
        if one.user
        else N_("All together may still use {left} of {all} GPU-hours.")
    )
    return gettext(sentence).format(left=f"{one.left:.1f}", all=f"{one.budget.gpu_hours:g}")
