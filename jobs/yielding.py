"""Which preemptible jobs make room: those whose end lets somebody start, the youngest first.

Asked of the policy itself: with some of them gone, who would get GPUs that gets none with them?
So limits, budgets and reservations decide here as everywhere, and nobody is stopped in vain.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from spawner.gpu.policy.decision import decide
from spawner.gpu.policy.state import Snapshot


def victims(
    snapshot: Snapshot, yields: Collection[str], ending: Collection[str] = ()
) -> tuple[str, ...]:
    """Leases of ``yields`` that have to end; the fewest, as far as taking them one by one tells.

    ``ending`` are those that are being ended: these, and what else is, count as gone.
    """
    going = {c.id for c in snapshot.claims if c.stops_at is not None} | {*ending}
    held = [c for c in snapshot.claims if c.id in yields and not c.waits and c.id not in going]
    # Not for others of their kind.
    snapshot = replace(
        snapshot,
        claims=tuple(c for c in snapshot.claims if not (c.waits and c.id in yields)),
    )
    if not held or not any(claim.waits for claim in snapshot.claims):
        return ()

    def served(without: Collection[str]) -> int:
        left = tuple(c for c in snapshot.claims if c.id not in without)
        return len(decide(replace(snapshot, claims=left)).grants)

    held.sort(key=lambda claim: (-(claim.held_at or 0.0), claim.id))
    most = served({*going, *(claim.id for claim in held)})
    chosen: list[str] = []
    while len(chosen) < len(held) and served({*going, *chosen}) < most:
        chosen.append(held[len(chosen)].id)
    # Whose end helps nobody after all goes on.
    for lease in chosen.copy():
        fewer = [one for one in chosen if one != lease]
        if served({*going, *fewer}) >= most:
            chosen = fewer
    return tuple(chosen)
