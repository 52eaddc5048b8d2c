"""A sentence for every reason why something waits, or is refused. Pure.

``data`` of a reason holds plain values; here they become words: times in a time zone, subjects
as "team vision", GPU-hours without trailing zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from commons.i18n import N_, NN_, Gettext, zone_after
from commons.messages import Locale, Show, Text
from commons.scopes import of_subject
from spawner.gpu.policy.state import Reason

# By code; where the second is given, it is for reasons that are known to be over some time.
SENTENCES: Mapping[str, tuple[str | tuple[str, str], str | None]] = {
    # At the door: never possible as it is asked.
    "gpus_invalid": (N_("{gpus} GPUs cannot be asked for: ask for 1 or more."), None),
    "no_gpus": (N_("This site has no GPUs. Ask for 0 GPUs."), None),
    "type_unknown": (N_("There is no GPU type “{type}” here. Types: {known}."), None),
    "more_than_exist": (
        N_("{gpus} {type} were asked for, but a machine has {most} of one type at most."),
        None,
    ),
    "person_gpus_never": (
        N_("{gpus} GPUs were asked for, but one person may hold {limit} at once ({subject})."),
        None,
    ),
    "person_type_never": (
        N_("{gpus} {type} were asked for, but one person may hold {limit} at once ({subject})."),
        None,
    ),
    "person_own_never": (
        N_(
            "{gpus} GPUs were asked for, but one person may hold {limit} at once on their own "
            "account ({subject}). Charge a team or a course."
        ),
        None,
    ),
    "person_ceiling_never": (
        N_(
            "{gpus} GPUs were asked for, but one person may hold {limit} at once over all "
            "accounts ({subject})."
        ),
        None,
    ),
    "group_gpus_never": (
        N_("{gpus} GPUs were asked for, but all of {subject} may hold {limit} at once."),
        None,
    ),
    "group_type_never": (
        N_("{gpus} {type} were asked for, but all of {subject} may hold {limit} at once."),
        None,
    ),
    "nominal_never": (
        N_("{gpus} GPUs were asked for, but {subject} may hold {limit}, borrowed ones included."),
        None,
    ),
    "time_limit_needed": (
        N_("A time limit is needed: at most {limit} ({subject})."),
        None,
    ),
    "time_limit_most": (
        N_("A time limit of {asked} was asked for; at most {limit} is allowed ({subject})."),
        None,
    ),
    "budget_needs_limit": (
        N_("A time limit is needed, because GPU-hours are limited ({subject})."),
        None,
    ),
    "person_budget_never": (
        N_("This needs {need} GPU-hours, but one person has {budget} in all ({subject})."),
        None,
    ),
    "group_budget_never": (
        N_("This needs {need} GPU-hours, but {subject} has {budget} in all."),
        None,
    ),
    "queued_most": (
        N_("{waiting} of your requests wait already; {limit} may wait at once ({subject})."),
        None,
    ),
    # In the queue.
    "maintenance_waits": (
        N_("Waits for the end of the maintenance."),
        N_("Waits for the end of the maintenance (until {until})."),
    ),
    "person_gpus": (
        N_("You hold {held} of the {limit} GPUs that one person may hold ({subject})."),
        N_(
            "You hold {held} of the {limit} GPUs that one person may hold ({subject}), until "
            "{until}."
        ),
    ),
    "person_type": (
        N_("You hold {held} of the {limit} {type} that one person may hold ({subject})."),
        N_(
            "You hold {held} of the {limit} {type} that one person may hold ({subject}), until "
            "{until}."
        ),
    ),
    "person_own": (
        N_(
            "You hold {held} of the {limit} GPUs that one person may hold on their own account "
            "({subject})."
        ),
        N_(
            "You hold {held} of the {limit} GPUs that one person may hold on their own account "
            "({subject}), until {until}."
        ),
    ),
    "person_ceiling": (
        N_(
            "You hold {held} of the {limit} GPUs that one person may hold over all accounts "
            "({subject})."
        ),
        N_(
            "You hold {held} of the {limit} GPUs that one person may hold over all accounts "
            "({subject}), until {until}."
        ),
    ),
    "group_gpus": (
        N_("The people of {subject} hold {held} of their {limit} GPUs."),
        N_("The people of {subject} hold {held} of their {limit} GPUs, until {until}."),
    ),
    "group_type": (
        N_("The people of {subject} hold {held} of their {limit} {type}."),
        N_("The people of {subject} hold {held} of their {limit} {type}, until {until}."),
    ),
    "nominal": (
        N_("The people of {subject} hold {held} of its quota of {limit} GPUs."),
        N_("The people of {subject} hold {held} of its quota of {limit} GPUs, until {until}."),
    ),
    "borrowing_limit": (
        N_("The people of {subject} hold {held} of {limit} GPUs, borrowed ones included."),
        N_(
            "The people of {subject} hold {held} of {limit} GPUs, borrowed ones included, until "
            "{until}."
        ),
    ),
    "cohort_full": (
        N_("The teams of “{cohort}” hold {held} of the {limit} GPUs that they share."),
        N_(
            "The teams of “{cohort}” hold {held} of the {limit} GPUs that they share, "
            "until {until}."
        ),
    ),
    "person_budget": (
        N_(
            "Your GPU-hours are used up: {used} of {budget} used, {promised} promised to what "
            "runs, {need} needed ({subject})."
        ),
        N_(
            "Your GPU-hours are used up until {until}: {used} of {budget} used, {promised} "
            "promised to what runs, {need} needed ({subject})."
        ),
    ),
    "group_budget": (
        N_(
            "The GPU-hours of {subject} are used up: {used} of {budget} used, {promised} "
            "promised to what runs, {need} needed."
        ),
        N_(
            "The GPU-hours of {subject} are used up until {until}: {used} of {budget} used, "
            "{promised} promised to what runs, {need} needed."
        ),
    ),
    "gpus_busy": (N_("{free} of {total} {type} are free, {gpus} needed."), None),
    "one_node": (
        N_(
            "{free} {type} are free, but {gpus} different GPUs of one type on one machine are "
            "needed."
        ),
        None,
    ),
    "out_of_service": (
        N_("{offered} of {total} {type} are in service, {gpus} on one machine are needed."),
        None,
    ),
    "reserved": (
        N_("The free GPUs are reserved for “{name}” ({subject}) from {start} to {end}."),
        N_(
            "The free GPUs are reserved for “{name}” ({subject}) from {start} to {end}. With a "
            "time limit that ends by {until} it can start sooner."
        ),
    ),
    "behind": (NN_("One request comes first.", "{count} requests come first."), None),
    "queue_paused": (
        N_(
            "{by} lets this request wait until it is released: {why} Ask them, or an administrator."
        ),
        None,
    ),
    "queue_behind_all": (N_("{by} put this request behind all others: {why}"), None),
    # A reservation cannot be kept.
    "reserved_out_of_service": (
        NN_(
            "At {start} one of its GPUs is missing: it is drained or failing.",
            "At {start} {count} of its GPUs are missing: they are drained or failing.",
        ),
        None,
    ),
    "reserved_in_use": (
        N_("At {start} leases without an end hold {count} of its GPUs."),
        N_("At {start} leases that end later hold {count} of its GPUs, until {until}."),
    ),
    "reserved_over_limit": (
        N_("{gpus} GPUs are reserved for {subject}, who may hold {limit} at once."),
        None,
    ),
    # A running lease is not extended.
    "extend_over": (N_("This lease does not run: there is nothing to extend."), None),
    "extend_endless": (N_("This lease has no end: there is nothing to extend."), None),
    "extend_stopping": (
        N_("The server is going to be stopped."),
        N_("The server is going to be stopped at {until}."),
    ),
    "extend_reserved": (
        N_("GPUs that it holds are reserved for “{name}” ({subject}) from {start} to {end}."),
        None,
    ),
    "extend_delays": (N_("{count} of those who wait would start later."), None),
}

_WEEKDAYS = (
    N_("Monday"),
    N_("Tuesday"),
    N_("Wednesday"),
    N_("Thursday"),
    N_("Friday"),
    N_("Saturday"),
    N_("Sunday"),
)


def sentence(
    reason: Reason, gettext: Gettext, timezone: tzinfo | None = None, now: float | None = None
) -> str:
    """A reason in a language. Times are shown in ``timezone`` (UTC without), near ones shorter."""
    return reason.in_words(Locale(gettext, timezone, now))


def subject_name(subject: str, gettext: Gettext) -> str:
    """``group:vision`` as "team vision"."""
    scope = of_subject(subject)
    return scope.phrase(gettext) if scope else subject


def duration(seconds: float, gettext: Gettext) -> str:
    """A length of time: "8 h", "90 min", "2 d"."""
    minutes = round(seconds / 60)
    if minutes and minutes % (24 * 60) == 0:
        return gettext(N_("{count} d")).replace("{count}", str(minutes // (24 * 60)))
    if minutes and minutes % 60 == 0:
        return gettext(N_("{count} h")).replace("{count}", str(minutes // 60))
    return gettext(N_("{count} min")).replace("{count}", str(minutes))


def moment(
    at: float, gettext: Gettext, timezone: tzinfo | None = None, now: float | None = None
) -> str:
    """A time of day: "14:30", "tomorrow 08:00", "Monday 08:00" or "2026-12-03 08:00"."""
    try:
        there = datetime.fromtimestamp(at, timezone or UTC)
    except (OverflowError, ValueError, OSError):
        return "–"
    clock = f"{there:%H:%M}{zone_after(there)}"
    if now is None:
        return f"{there:%Y-%m-%d} {clock}"
    days = (there.date() - datetime.fromtimestamp(now, timezone or UTC).date()) // timedelta(days=1)
    if days == 0:
        return clock
    if days == 1:
        return gettext(N_("tomorrow {time}")).replace("{time}", clock)
    if 1 < days < 7:
        return f"{gettext(_WEEKDAYS[there.weekday()])} {clock}"
    return f"{there:%Y-%m-%d} {clock}"


def shown_moment(at: Any, locale: Locale) -> str:
    """A time in a message."""
    return moment(float(at), locale.gettext, locale.timezone, locale.now)


def _duration(seconds: Any, locale: Locale) -> str:
    return duration(float(seconds), locale.gettext)


def _sentence(said: Any, locale: Locale) -> str:
    """What somebody wrote, with an end."""
    text = str(said).strip()
    return text if text.endswith((".", "!", "?", "。", "！", "？")) else f"{text}."


def _hours(hours: Any, locale: Locale) -> str:
    return f"{float(hours):.1f}".removesuffix(".0")


_SHOWN: Mapping[str, Show] = {
    **dict.fromkeys(("until", "start", "end"), shown_moment),
    **dict.fromkeys(("budget", "used", "promised", "need"), _hours),
    "subject": lambda subject, locale: subject_name(str(subject), locale.gettext),
    "type": lambda model, locale: str(model) if model else locale.gettext(N_("GPUs")),
    "why": _sentence,
}
_TIME_LIMITS: Mapping[str, Show] = {"limit": _duration, "asked": _duration}
REASONS = {
    code: Text(
        code,
        plain,
        {**_SHOWN, **(_TIME_LIMITS if code.startswith("time_limit") else {})},
        {"until": timed} if timed else {},
        N_("It comes next.") if code == "behind" else "",
    )
    for code, (plain, timed) in SENTENCES.items()
}
