"""What was done by hand to an environment after it was built, as a finding of its version.

A look at a person's folder says it (``prefix_scan``); it is their word, so every part is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from commons.i18n import N_
from commons.messages import Text
from kernels.current import told

CODE = "changed-by-hand"
_MOST = 300  # packages
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_~-]{0,99}")

CHANGED = Text(
    "env_changed_by_hand",
    N_("Changed by hand since it was built: {changes}; its lock and exports do not have that"),
)
KEEP = Text(
    "env_keep_changes",
    N_("“Keep” makes a new version of it, as does “labcommons env keep {name}” in a terminal"),
)


def checked(found: object) -> dict[str, dict[str, tuple[str | None, str | None]]]:
    """Changes by kind and name, then and now; what is none of that is left out."""
    changes: dict[str, dict[str, tuple[str | None, str | None]]] = {}
    for kind in ("conda", "pip"):
        pairs = found.get(kind) if isinstance(found, Mapping) else None
        for name, pair in list(pairs.items())[:_MOST] if isinstance(pairs, Mapping) else ():
            if isinstance(name, str) and _NAME.fullmatch(name) and _is_pair(pair):
                changes.setdefault(kind, {})[name] = (pair[0], pair[1])
    return changes


def _is_pair(pair: object) -> bool:
    return (
        isinstance(pair, Sequence)
        and not isinstance(pair, str)
        and len(pair) == 2
        and all(
            each is None or (isinstance(each, str) and _VERSION.fullmatch(each)) for each in pair
        )
        and pair[0] != pair[1]
    )


def with_drift(
    name: str, findings: Sequence[Mapping[str, Any]], found: object
) -> list[dict[str, Any]]:
    """A version's findings with what a look found now in the place of what one found before."""
    kept = [dict(item) for item in findings if item.get("code") != CODE]
    changes = checked(found)
    if not changes:
        return kept
    words = told({kind: {n: list(pair) for n, pair in of.items()} for kind, of in changes.items()})
    what, advice = CHANGED(changes=words), KEEP(name=name)
    finding = {
        "level": "warn",
        "code": CODE,
        "message": str(what),
        "remedy": str(advice),
        "data": {"what": what.as_json(), "advice": advice.as_json()},
        "change": as_change(changes),
    }
    return [*kept, finding]


def change_of(findings: Sequence[Mapping[str, Any]]) -> dict[str, list[str]] | None:
    """What was done by hand, as a version's findings have it."""
    return next((item.get("change") for item in findings if item.get("code") == CODE), None)


def as_change(
    changes: Mapping[str, Mapping[str, tuple[str | None, str | None]]],
) -> dict[str, list[str]]:
    """What makes a version of it: for ``…/derive``."""
    change: dict[str, list[str]] = {"add": [], "pip": [], "remove": []}
    for kind, where, exactly in (("conda", "add", "="), ("pip", "pip", "==")):
        for name, (_, now) in changes.get(kind, {}).items():
            if name == "pip":
                continue
            if now is None:
                change["remove"].append(name)
            else:
                change[where].append(f"{name}{exactly}{now}")
    return change
