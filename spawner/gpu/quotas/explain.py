"""What holds for a person, and which subject of the quotas document says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spawner.gpu.policy.limits import person_subjects
from spawner.gpu.policy.state import Subject
from spawner.gpu.quotas.document import Specs, keys_of

# Looked up for a person, each key on its own: the person, the account charged, the default.
PERSON_KEYS = keys_of("default")
# What an account has as a whole.
ACCOUNT_KEYS = tuple(key for key in keys_of("group") if key not in PERSON_KEYS)


@dataclass(frozen=True)
class Setting:
    """One key that holds: its value as the document writes it, and where that stands."""

    key: str
    value: Any
    source: Subject
    # Subjects that say something else of it, which does not count, nearest first.
    hidden: tuple[Subject, ...] = ()


def settings_for(specs: Specs, user: str, account: Subject) -> tuple[Setting, ...]:
    """All that holds for a person whose server is charged to an account.

    The precedence of docs/gpu.md: a limit of the person from ``user:NAME``, else from the
    account, else from ``default``; each GPU type and each key of ``idle`` on its own; the
    account's own limits from the account alone.
    """
    order = person_subjects(user, account)
    return (
        *(s for key in PERSON_KEYS for s in _of_person(specs, order, key)),
        *(
            Setting(key, specs[account][key], account)
            for key in ACCOUNT_KEYS
            if key in specs.get(account, {})
        ),
    )


def _of_person(specs: Specs, order: tuple[Subject, ...], key: str) -> tuple[Setting, ...]:
    if key in ("max_by_type", "idle"):
        where = (*order, "settings") if key == "idle" else order
        parts = dict.fromkeys(part for one in where for part in specs.get(one, {}).get(key, {}))
        found = []
        for part in parts:
            holders = [one for one in where if part in specs.get(one, {}).get(key, {})]
            value = specs[holders[0]][key][part]
            found.append(Setting(f"{key}.{part}", value, holders[0], tuple(holders[1:])))
        return tuple(found)
    holders = [one for one in order if key in specs.get(one, {})]
    if not holders:
        return ()
    return (Setting(key, specs[holders[0]][key], holders[0], tuple(holders[1:])),)
