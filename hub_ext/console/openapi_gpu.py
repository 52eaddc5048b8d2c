"""GPUs, leases, the queue, quotas and reservations of the REST API, described."""

from __future__ import annotations

from typing import Any

from hub_ext.console.openapi_parts import (
    COUNT,
    REASON,
    TEXT,
    TIME,
    get,
    list_of,
    named,
    object_of,
    operation,
    takes,
)
from spawner.gpu.reservation_store import WEEKDAYS

# -- GPUs, leases, the queue -------------------------------------------------------------------

_MAYBE_TEXT = {"type": ["string", "null"]}
_MAYBE_TIME = {"type": ["string", "null"], "format": "date-time"}
_MAYBE_COUNT = {"type": ["integer", "null"], "minimum": 0}
_NUMBER = {"type": "number"}
_YES = {"type": "boolean"}
_DURATION = {
    "type": ["string", "integer"],
    "description": "90m, 8h, 2d, or whole seconds",
}
_GPU_TYPE = object_of(model=TEXT, memory=TEXT, memory_bytes=COUNT, total=COUNT, free=COUNT)
_GPU = object_of(
    id=TEXT,
    model=TEXT,
    node=TEXT,
    slot=COUNT,
    simulated=_YES,
    shared={**_YES, "description": "by time-slicing or MPS: not isolated"},
)
_WAITING = object_of(
    position={**_MAYBE_COUNT, "description": "1 is next"},
    expected_start=_MAYBE_TIME,
    reasons=list_of(REASON),
)
_LEASE = object_of(
    id=TEXT,
    user=TEXT,
    server={**TEXT, "description": "empty for the person's default server"},
    account={**TEXT, "description": "who is charged: user:NAME, group:NAME or course:NAME"},
    state={"type": "string", "enum": ["requested", "queued", "held", "active", "ended"]},
    count=COUNT,
    gpu_type={**TEXT, "description": "what was asked for; empty for any"},
    gpus=list_of(_GPU),
    requested_at=TIME,
    since=TIME,
    time_limit={**_MAYBE_COUNT, "description": "seconds"},
    ends_at=_MAYBE_TIME,
    keep_until=_MAYBE_TIME,
    borrowed=COUNT,
    stop={
        "oneOf": [object_of(reason=TEXT, at=_MAYBE_TIME), {"type": "null"}],
        "description": "why and when it is going to be stopped",
    },
    waiting={"oneOf": [_WAITING, {"type": "null"}]},
)
_DEVICE = {
    "type": "object",
    "required": ["id", "node", "model", "state"],
    "properties": {
        "id": TEXT,
        "node": TEXT,
        "model": TEXT,
        "memory_bytes": COUNT,
        "slots": COUNT,
        "slots_held": COUNT,
        "drained": _YES,
        "reason": _MAYBE_TEXT,
        "state": {
            "type": "string",
            "enum": ["free", "shared", "leased", "drained", "failing", "lost", "gone"],
        },
        "leases": {**list_of(TEXT), "description": "for administrators"},
    },
}
_BUDGET = object_of(
    subject={**TEXT, "description": "where the budget is set"},
    user={**_MAYBE_TEXT, "description": "whose it is; null: of all together"},
    gpu_hours=_NUMBER,
    window=_MAYBE_TEXT,
    half_life={"type": ["number", "null"], "description": "seconds"},
    used=_NUMBER,
    promised={"type": ["number", "null"], "description": "to what runs; null: without end"},
    left=_NUMBER,
)
_LIMIT = object_of(
    key=TEXT, value={}, source=TEXT, instead_of={**list_of(TEXT), "description": "hidden by it"}
)
_ACCOUNT: dict[str, Any] = {
    "account": TEXT,
    "held": COUNT,
    "held_by_all": COUNT,
    "time_limit": {"type": ["number", "null"], "description": "the most, in seconds"},
    "default_time_limit": {"type": ["number", "null"]},
    "limits": list_of(_LIMIT),
    "budgets": list_of(_BUDGET),
}
_LEASE_ID = {"parameters": [named("id", "of the lease")]}


def gpu_paths() -> dict[str, Any]:
    drained = object_of(kind=TEXT, target=TEXT, devices=list_of(TEXT), running=COUNT)
    act = "by its holder, by who leads its team or course, or by an administrator"
    return {
        "/api/v1/gpus": get(
            "GPUs: models, how many there are, how many are free, how many people wait",
            object_of(
                simulated=_YES,
                total=COUNT,
                free=COUNT,
                types=list_of(_GPU_TYPE),
                waiting=object_of(requests=COUNT, gpus=COUNT),
            ),
        ),
        "/api/v1/gpus/devices": get("Every GPU and its state", object_of(devices=list_of(_DEVICE))),
        "/api/v1/gpus/drain": {
            "post": operation(
                "Offer a GPU, or all of a machine, to nobody new (administrators)",
                drained,
                **takes(target={**TEXT, "description": "a GPU's id or a machine"}, reason=TEXT),
            )
        },
        "/api/v1/gpus/undrain": {
            "post": operation("Offer it again (administrators)", drained, **takes(target=TEXT))
        },
        "/api/v1/leases": get(
            "Who holds GPUs: oneself, one's team for leads, everybody for administrators",
            object_of(everyone=_YES, total=COUNT, leases=list_of(_LEASE)),
        ),
        "/api/v1/leases/{id}": get("One lease", _LEASE) | _LEASE_ID,
        "/api/v1/leases/{id}/cancel": {
            "post": operation(f"Leave the queue, or stop the server, {act}", _LEASE)
        }
        | _LEASE_ID,
        "/api/v1/leases/{id}/extend": {
            "post": operation(
                f"Let it run longer, {act}; 409 with the reasons against it",
                _LEASE,
                **takes(by=_DURATION),
            )
        }
        | _LEASE_ID,
        "/api/v1/leases/{id}/keep": {
            "post": operation(f"Do not stop it for idle GPUs, for a while, {act}", _LEASE)
        }
        | _LEASE_ID,
        "/api/v1/queue": get(
            "Who waits, in order, and why",
            object_of(everyone=_YES, total=COUNT, total_gpus=COUNT, requests=list_of(_LEASE)),
        ),
        "/api/v1/usage": get(
            "GPU-hours used (decayed, as fair share counts them) and budgets",
            object_of(
                half_life=_NUMBER,
                accounts=list_of(object_of(account=TEXT, user=_MAYBE_TEXT, gpu_hours=_NUMBER)),
                budgets=list_of(_BUDGET),
            ),
        ),
        "/api/v1/me": get(
            "What one may use, holds and waits for",
            object_of(
                name=TEXT,
                admin=_YES,
                leads=list_of(TEXT),
                accounts=list_of(object_of(**_ACCOUNT)),
                held=COUNT,
                leases=list_of(_LEASE),
            ),
        ),
        "/api/v1/explain/{user}": get(
            "Which limits hold for a person, where each stands, and what is used",
            object_of(user=TEXT, **_ACCOUNT),
        )
        | {
            "parameters": [
                named("user", "a person"),
                {
                    "name": "account",
                    "in": "query",
                    "schema": TEXT,
                    "description": "who is charged; the person by default",
                },
            ]
        },
        "/api/v1/notices": get(
            "What one has to be told, newest first",
            object_of(notices=list_of({"type": "object"}), leases=list_of(_LEASE), words={}),
        ),
        "/api/v1/notices/seen": {
            "post": operation(
                "Notices have been seen",
                object_of(changed=COUNT),
                **takes(ids=list_of({"type": "integer"})),
            )
        },
    }


# -- quotas and reservations -------------------------------------------------------------------

_SPEC = {"type": "object", "description": "keys as in quotas.yaml"}
_CHANGE = object_of(subject=TEXT, key=TEXT, before={}, after={})


def quota_paths() -> dict[str, Any]:
    one = object_of(subject=TEXT, quota=_SPEC, changes=list_of(_CHANGE))
    subject = named("subject", "default, settings, user:NAME, group:NAME or course:NAME")
    match = {
        "name": "If-Match",
        "in": "header",
        "schema": TEXT,
        "description": "the ETag of a GET: 412 where somebody has changed it since",
    }
    return {
        "/api/v1/quotas": get(
            "What is set: all for administrators, one's own for others",
            object_of(quotas=_SPEC, document=_SPEC),
        ),
        "/api/v1/quotas/apply": {
            "post": operation(
                "Apply a quotas document (administrators)",
                object_of(applied=_YES, changes=list_of(_CHANGE), warnings=list_of(TEXT)),
                **takes(
                    document={
                        "type": ["object", "string"],
                        "description": "quotas.yaml as a mapping, or its text",
                    },
                    dry_run=_YES,
                    prune={**_YES, "description": "remove what it does not name"},
                    strict={**_YES, "description": "refuse unknown people and GPU types"},
                ),
            )
        },
        "/api/v1/quotas/history": get(
            "Who changed what (administrators)", object_of(changes=list_of({"type": "object"}))
        ),
        "/api/v1/quotas/{subject}": {
            "get": operation("What is set for one subject", one),
            "put": operation(
                "Make it exactly this (administrators)",
                one,
                parameters=[match],
                requestBody={"content": {"application/json": {"schema": _SPEC}}},
            ),
            "delete": operation("Remove all of it (administrators)", one, parameters=[match]),
            "parameters": [subject],
        },
    }


def reservation_paths() -> dict[str, Any]:
    window = object_of(start=TIME, end=TIME, day=TEXT)
    fields: dict[str, Any] = {
        "name": TEXT,
        "subject": TEXT,
        "gpus": COUNT,
        "gpu_type": TEXT,
        "devices": {**list_of(TEXT), "description": "certain GPUs, instead of gpus"},
        "starts": {**TEXT, "description": "wall time in the time zone: 2026-11-24T10:00"},
        "duration": _DURATION,
        "timezone": {**TEXT, "description": "IANA name, such as Europe/Berlin"},
        "repeat": {"type": "string", "enum": ["once", "daily", "weekly"]},
        "weekdays": list_of({"type": "string", "enum": list(WEEKDAYS)}),
        "until": {**_MAYBE_TEXT, "description": "the last day"},
    }
    one = object_of(
        id=TEXT,
        **fields,
        skipped=list_of(TEXT),
        created_by=TEXT,
        windows={**list_of(window), "description": "of the next seven days"},
    )
    reservation_id = {"parameters": [named("id", "of the reservation")]}
    return {
        "/api/v1/reservations": {
            "get": operation("All that stand", object_of(reservations=list_of(one))),
            "post": operation(
                "Reserve (administrators); 409 with the clash named in error.clashes",
                one,
                "201",
                **takes(**fields),
            ),
        },
        "/api/v1/reservations/{id}": {
            "get": operation("One reservation", one),
            "delete": operation(
                "Cancel it (administrators, and who leads its team or course)",
                object_of(id=TEXT, name=TEXT, cancelled=_YES),
            ),
        }
        | reservation_id,
        "/api/v1/reservations/{id}/skip": {
            "post": operation(
                "Leave out a day (administrators, and who leads its team or course)",
                one,
                **takes(day={**TEXT, "description": "such as 2026-12-24"}),
            )
        }
        | reservation_id,
    }
