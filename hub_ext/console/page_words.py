"""Words and times that every page of the console uses, for one reader."""

from __future__ import annotations

import time
from datetime import datetime, tzinfo
from typing import Any

from commons.i18n import N_, Gettext
from commons.scopes import Keeper, of_account
from spawner.gpu.policy import reasons
from spawner.gpu.quotas.document import show_value

# Keys of the quotas document that a person wants to know.
_LIMITS = {
    "max_gpus": N_("GPUs at once"),
    "max_by_type": N_("GPUs at once"),
    "ceiling": N_("GPUs at once over all accounts"),
    "own_gpus": N_("GPUs at once on their own account"),
    "max_queued": N_("Requests waiting at once"),
    "time_limit": N_("Longest time limit"),
    "default_time_limit": N_("Time limit where none is asked for"),
    "grp_gpus": N_("GPUs of all together"),
    "grp_by_type": N_("GPUs of all together"),
}
_WINDOWS = {
    "day": N_("each day"),
    "week": N_("each week"),
    "month": N_("each month"),
    "total": N_("in all"),
}
# By a lease's stop_reason.
_STOPS = {
    "time_limit": N_("its time limit is over"),
    "idle": N_("its GPUs are not used"),
    "preempted": N_("its borrowed GPUs go back"),
    "not_opened": N_("nobody has opened it"),
    "cancelled": N_("it is being stopped"),
}


def for_page(_: Gettext, zone: tzinfo) -> dict[str, Any]:
    """Functions and tables for a template, in a language and a time zone."""
    now = time.time()

    def when(at: str | float | None) -> str:
        """A time, near ones shorter."""
        if at is None:
            return "–"
        if isinstance(at, str):
            at = datetime.fromisoformat(at).timestamp()
        return reasons.moment(at, _, zone, now)

    def whom(subject: str) -> str:
        """A subject of the quotas document, as a heading."""
        special = {"settings": N_("Settings of all"), "default": N_("Everybody (default)")}
        return _(special[subject]) if subject in special else reasons.subject_name(subject, _)

    def is_own(account: str) -> bool:
        """Whether a person is charged, and no group."""
        scope = of_account(account)
        return scope is not None and scope.keeper is Keeper.PERSON

    return {
        "when": when,
        "whom": whom,
        "show_value": show_value,
        "is_own": is_own,
        "subject_name": lambda subject: reasons.subject_name(subject, _),
        "duration": lambda seconds: reasons.duration(seconds, _),
        "limit_words": {key: _(words) for key, words in _LIMITS.items()},
        "window_words": {key: _(words) for key, words in _WINDOWS.items()},
        "stop_words": {key: _(words) for key, words in _STOPS.items()},
    }
