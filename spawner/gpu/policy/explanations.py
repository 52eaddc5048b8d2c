"""Why a request waits: every limit, lack and reservation that keeps it from starting now."""

from __future__ import annotations

from spawner.gpu.policy.plan import Placement, Plan, WaitingLease
from spawner.gpu.policy.state import Reason, Window
from spawner.gpu.policy.timeline import DeviceKind, Pool

SOON = 600.0  # seconds: before a reservation that begins later something short can start


class Explainer:
    """Why requests wait, for a plan that does not change any more."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lacking: dict[tuple[object, ...], Reason | None] = {}  # many lack the same

    def reasons(self, request: WaitingLease, found: Placement, position: int) -> tuple[Reason, ...]:
        """Everything that keeps a request from starting now."""
        kind = found.kind
        if kind is None:
            closed = self._plan.closed_for(request.claim)
            return (*([closed] if closed else []), _out_of_service(self._plan, request))
        whys = [
            gate.reason(request.count, kind.weight, request.duration, until)
            for gate, until in found.gates.items()
        ]
        if found.kinds:
            whys.append(self._no_devices(request, tuple(found.kinds)))
        reasons = tuple([why for why in whys if why is not None])
        if len(reasons) < max(1, len(whys)):
            return (*reasons, Reason("behind", {"count": position - 1}))
        return reasons

    def _no_devices(self, request: WaitingLease, kinds: tuple[DeviceKind, ...]) -> Reason | None:
        gpu_type = request.claim.gpu_type
        asked: tuple[object, ...] = kinds, gpu_type, request.count
        if self._plan.snapshot.windows:
            asked = *asked, request.duration, request.audience
        if asked not in self._lacking:
            self._lacking[asked] = _no_devices(self._plan, request, kinds)
        return self._lacking[asked]


def could_start(plan: Plan, request: WaitingLease, found: Placement) -> bool:
    """Whether only what is kept for others, not a limit or a lack, is in the way now."""
    return (
        found.kind is not None
        and plan.most_free(request.kinds) >= request.count
        and not any(
            gate.reason(request.count, found.kind.weight, request.duration, until)
            for gate, until in found.gates.items()
        )
    )


def _no_devices(plan: Plan, request: WaitingLease, kinds: tuple[DeviceKind, ...]) -> Reason | None:
    """Why there are no devices now; None when they are kept for earlier requests."""
    if plan.most_free(kinds) < request.count:
        free, total = plan.counted(kinds)
        return Reason(
            "one_node" if free >= request.count else "gpus_busy",
            {
                "gpus": request.count,
                "free": free,
                "total": total,
                "type": request.claim.gpu_type or _models(plan, kinds),
            },
        )
    if not plan.snapshot.windows:
        return None
    return _reserved(plan, request, [p for kind in kinds for p in plan.slots.kinds[kind]])


def _models(plan: Plan, kinds: tuple[DeviceKind, ...]) -> str:
    """The models that a request for any lacks, where others are kept from it by something else."""
    models = {kind.model for kind in kinds}
    return "" if models == {kind.model for kind in plan.slots.kinds} else ", ".join(sorted(models))


def _reserved(plan: Plan, request: WaitingLease, pools: list[Pool]) -> Reason | None:
    end = plan.now + request.duration
    first: Window | None = None
    for pool in pools:
        if pool.free < request.count:
            continue
        open_now = 0
        for place in pool.places:
            if not any(gaps and gaps[0][0] <= plan.now for gaps in place.gaps):
                continue
            foreign = [
                window
                for window in place.windows
                if window.subject not in request.audience.subjects
                and window.start < end
                and window.end > plan.now
            ]
            if foreign:
                window = min(foreign, key=lambda w: w.start)
                if first is None or window.start < first.start:
                    first = window
            else:
                open_now += 1
        if open_now >= request.count:
            return None
    if first is None:
        return None
    return Reason(
        "reserved",
        {
            "name": first.name,
            "subject": first.subject,
            "start": first.start,
            "end": first.end,
            **({"until": first.start} if first.start - plan.now >= SOON else {}),
        },
    )


def _out_of_service(plan: Plan, request: WaitingLease) -> Reason:
    """No node has enough offered devices of a kind that fits."""
    fitting = [d for d in plan.snapshot.devices if request.claim.gpu_type in ("", d.model)]
    return Reason(
        "out_of_service",
        {
            "gpus": request.count,
            "type": request.claim.gpu_type,
            "offered": sum(d.offered for d in fitting),
            "total": len(fitting),
        },
    )
