"""Why a request waits: every limit, lack and reservation that keeps it from starting now."""

from __future__ import annotations

from spawner.gpu.plan import Placement, Plan, Request
from spawner.gpu.state import Reason, Window
from spawner.gpu.timeline import Kind, Pool


def reasons_of(plan: Plan, request: Request, found: Placement, position: int) -> tuple[Reason, ...]:
    """Everything that keeps a request from starting now."""
    kind = found.kind
    if kind is None:
        return (_out_of_service(plan, request),)
    reasons = []
    behind = False
    for gate, until in found.gates.items():
        why = gate.reason(request.count, kind.weight, request.duration, until)
        if why is None:
            behind = True
        else:
            reasons.append(why)
    if found.kinds:
        why = _no_devices(plan, request, found.kinds)
        if why is None:
            behind = True
        else:
            reasons.append(why)
    if behind or not reasons:
        reasons.append(Reason("behind", {"count": position - 1}))
    return tuple(reasons)


def could_start(plan: Plan, request: Request, found: Placement) -> bool:
    """Whether only what is kept for others, not a limit or a lack, is in the way now."""
    return (
        found.kind is not None
        and plan.free_of(request.kinds)[1] >= request.count
        and not any(
            gate.reason(request.count, found.kind.weight, request.duration, until)
            for gate, until in found.gates.items()
        )
    )


def _no_devices(plan: Plan, request: Request, kinds: list[Kind]) -> Reason | None:
    """Why there are no devices now; None when they are kept for earlier requests."""
    free, most, total = plan.free_of(tuple(kinds))
    if most < request.count:
        return Reason(
            "one_node" if free >= request.count else "gpus_busy",
            {
                "gpus": request.count,
                "free": free,
                "total": total,
                "type": request.claim.gpu_type,
            },
        )
    if not plan.snapshot.windows:
        return None
    return _reserved(plan, request, [p for kind in kinds for p in plan.slots.kinds[kind]])


def _reserved(plan: Plan, request: Request, pools: list[Pool]) -> Reason | None:
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
        },
    )


def _out_of_service(plan: Plan, request: Request) -> Reason:
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
