"""A sentence for every reason why something waits, or is refused. Pure.

``data`` of a reason holds plain values; here they become words: times in a time zone, subjects
as "team vision", GPU-hours without trailing zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from hub_ext.i18n import N_, Gettext
from spawner.gpu.state import Reason

# By code; where the second is given, it is for reasons that are known to be over some time.
SENTENCES: Mapping[str, tuple[str, str | None]] = {
    # At the door: never possible as it is asked.
    "gpus_invalid": (N_("{gpus} GPUs cannot be asked for: ask for 1 or more."), None),
    "no_gpus": (N_("This site has no GPUs. Ask for 0 GPUs."), None),
    "type_unknown": (N_("There is no GPU type “{type}” here. Types: {known}."), None),
    "more_than_exist": (
        N_("{gpus} {what} were asked for, but a machine has {most} of one type at most."),
        None,
    ),
    "person_gpus_never": (
        N_("{gpus} GPUs were asked for, but one person may hold {limit} at once ({subject})."),
        None,
    ),
    "person_type_never": (
        N_("{gpus} {what} were asked for, but one person may hold {limit} at once ({subject})."),
        None,
    ),
    "group_gpus_never": (
        N_("{gpus} GPUs were asked for, but all of {subject} may hold {limit} at once."),
        None,
    ),
    "group_type_never": (
        N_("{gpus} {what} were asked for, but all of {subject} may hold {limit} at once."),
        None,
    ),
    "nominal_never": (
        N_("{gpus} GPUs were asked for, but {subject} may hold {limit}, borrowed ones included."),
        None,
    ),
    "time_limit_needed": (
        N_("A time limit is needed: at most {limit_time} ({subject})."),
        None,
    ),
    "time_limit_most": (
        N_(
            "A time limit of {asked_time} was asked for; at most {limit_time} is allowed "
            "({subject})."
        ),
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
    "person_gpus": (
        N_("You hold {held} of the {limit} GPUs that one person may hold ({subject})."),
        N_(
            "You hold {held} of the {limit} GPUs that one person may hold ({subject}), until "
            "{until}."
        ),
    ),
    "person_type": (
        N_("You hold {held} of the {limit} {what} that one person may hold ({subject})."),
        N_(
            "You hold {held} of the {limit} {what} that one person may hold ({subject}), until "
            "{until}."
        ),
    ),
    "group_gpus": (
        N_("The people of {subject} hold {held} of their {limit} GPUs."),
        N_("The people of {subject} hold {held} of their {limit} GPUs, until {until}."),
    ),
    "group_type": (
        N_("The people of {subject} hold {held} of their {limit} {what}."),
        N_("The people of {subject} hold {held} of their {limit} {what}, until {until}."),
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
    "gpus_busy": (N_("{free} of {total} {what} are free, {gpus} needed."), None),
    "one_node": (
        N_("{free} {what} are free, but {gpus} of one type on one machine are needed."),
        None,
    ),
    "out_of_service": (
        N_("{offered} of {total} {what} are in service, {gpus} on one machine are needed."),
        None,
    ),
    "reserved": (
        N_("The free GPUs are reserved for “{name}” ({subject}) from {start} to {end}."),
        None,
    ),
    "behind": (N_("{count} requests come first."), None),
    # A running lease is not extended.
    "extend_over": (N_("This lease does not run: there is nothing to extend."), None),
    "extend_endless": (N_("This lease has no end: there is nothing to extend."), None),
    "extend_stopping": (
        N_("The server is going to be stopped."),
        N_("The server is going to be stopped at {until}."),
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
_SUBJECTS = {
    "group": N_("team {name}"),
    "course": N_("course {name}"),
    "user": N_("{name}"),
    "default": N_("this site"),
}
_TIMES = ("until", "start", "end")
_HOURS = ("budget", "used", "promised", "need")


def sentence(
    reason: Reason,
    gettext: Gettext,
    timezone: tzinfo | None = None,
    now: float | None = None,
) -> str:
    """A reason in a language. Times are shown in ``timezone`` (UTC without), near ones shorter.

    A code that is not in the table, as a newer writer may use, is shown as it is.
    """
    plain, timed = SENTENCES.get(reason.code, (reason.code.replace("{", "").replace("}", ""), None))
    message = timed if timed is not None and reason.data.get("until") is not None else plain
    if reason.code == "behind" and reason.data.get("count") == 0:
        message = N_("It comes next.")
    if reason.code == "behind" and reason.data.get("count") == 1:
        message = N_("One request comes first.")
    words = {
        name: _word(name, value, gettext, timezone, now) for name, value in reason.data.items()
    }
    words["what"] = words.get("type") or gettext(N_("GPUs"))
    for name in ("limit", "asked"):
        if reason.code.startswith("time_limit") and name in reason.data:
            words[f"{name}_time"] = duration(float(reason.data[name]), gettext)
    return gettext(message).format_map(_Words(words))


class _Words(dict[str, str]):
    """What is missing from a reason's data shows as a dash."""

    def __missing__(self, key: str) -> str:
        return "–"


def _word(
    name: str, value: Any, gettext: Gettext, timezone: tzinfo | None, now: float | None
) -> str:
    if value is None:
        return "–"
    if name in _TIMES:
        return moment(float(value), gettext, timezone, now)
    if name in _HOURS:
        return f"{float(value):.1f}".removesuffix(".0")
    if name == "subject":
        return subject_name(str(value), gettext)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def subject_name(subject: str, gettext: Gettext) -> str:
    """``group:vision`` as "team vision"."""
    kind, _, name = subject.partition(":")
    words = _SUBJECTS.get(kind)
    return gettext(words).replace("{name}", name) if words else subject


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
    zone = "" if timezone else " UTC"
    clock = f"{there:%H:%M}{zone}"
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
