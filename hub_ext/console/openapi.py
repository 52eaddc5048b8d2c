"""The console's REST API, described in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from spawner.gpu.reservation_store import WEEKDAYS

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_TIME = {"type": "string", "format": "date-time"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


_REASON = _object(
    code={**_TEXT, "description": "stable, for programs"},
    data={"type": "object", "description": "what the sentence says; times in seconds since 1970"},
    sentence=_TEXT,
)
_ERROR = _object(
    error=_object(
        code=_TEXT,
        message={**_TEXT, "description": "cause and remedy, in a sentence"},
        reasons=_list(_REASON),
    )
)
_ENVIRONMENT = _object(
    name=_TEXT,
    title=_TEXT,
    description=_TEXT,
    version=_TEXT,
    versions=_list(_TEXT),
    python={"type": ["string", "null"]},
    main_packages=_list(_object(name=_TEXT, version=_TEXT)),
    package_count=_COUNT,
)


def _answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": content}}}


def _operation(
    summary: str, schema: dict[str, Any], status: str = "200", **more: Any
) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {
            status: _answer("as asked", schema),
            "default": _answer("refused or failed", _ERROR),
        },
    } | more


def _get(summary: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"get": _operation(summary, schema, **more)}


def _takes(**properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def _named(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": _TEXT,
        "description": description,
    }


def document(prefix: str) -> dict[str, Any]:
    """The description, for a console served under ``prefix``."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "LabCommons console", "version": "1"},
        "servers": [{"url": prefix.rstrip("/")}],
        "security": [{"token": []}],
        "paths": {
            **_gpu_paths(),
            **_quota_paths(),
            **_reservation_paths(),
            "/api/v1/environments": _get(
                "Environments that can be started", _object(environments=_list(_ENVIRONMENT))
            ),
            "/health": _get(
                "Whether the console and its database work", _object(status=_TEXT), security=[]
            ),
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`token TOKEN`, with a token of the hub (Tokens, in the menu)",
                }
            }
        },
    }


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
_GPU_TYPE = _object(model=_TEXT, memory=_TEXT, memory_bytes=_COUNT, total=_COUNT, free=_COUNT)
_GPU = _object(
    id=_TEXT,
    model=_TEXT,
    node=_TEXT,
    slot=_COUNT,
    simulated=_YES,
    shared={**_YES, "description": "by time-slicing or MPS: not isolated"},
)
_WAITING = _object(
    position={**_MAYBE_COUNT, "description": "1 is next"},
    expected_start=_MAYBE_TIME,
    reasons=_list(_REASON),
)
_LEASE = _object(
    id=_TEXT,
    user=_TEXT,
    server={**_TEXT, "description": "empty for the person's default server"},
    account={**_TEXT, "description": "who is charged: user:NAME, group:NAME or course:NAME"},
    state={"type": "string", "enum": ["requested", "queued", "held", "active", "ended"]},
    count=_COUNT,
    gpu_type={**_TEXT, "description": "what was asked for; empty for any"},
    gpus=_list(_GPU),
    requested_at=_TIME,
    since=_TIME,
    time_limit={**_MAYBE_COUNT, "description": "seconds"},
    ends_at=_MAYBE_TIME,
    keep_until=_MAYBE_TIME,
    borrowed=_COUNT,
    stop={
        "oneOf": [_object(reason=_TEXT, at=_MAYBE_TIME), {"type": "null"}],
        "description": "why and when it is going to be stopped",
    },
    waiting={"oneOf": [_WAITING, {"type": "null"}]},
)
_DEVICE = {
    "type": "object",
    "required": ["id", "node", "model", "state"],
    "properties": {
        "id": _TEXT,
        "node": _TEXT,
        "model": _TEXT,
        "memory_bytes": _COUNT,
        "slots": _COUNT,
        "slots_held": _COUNT,
        "drained": _YES,
        "reason": _MAYBE_TEXT,
        "state": {
            "type": "string",
            "enum": ["free", "shared", "leased", "drained", "failing", "lost", "gone"],
        },
        "leases": {**_list(_TEXT), "description": "for administrators"},
    },
}
_BUDGET = _object(
    subject={**_TEXT, "description": "where the budget is set"},
    user={**_MAYBE_TEXT, "description": "whose it is; null: of all together"},
    gpu_hours=_NUMBER,
    window=_MAYBE_TEXT,
    half_life={"type": ["number", "null"], "description": "seconds"},
    used=_NUMBER,
    promised={"type": ["number", "null"], "description": "to what runs; null: without end"},
    left=_NUMBER,
)
_LIMIT = _object(
    key=_TEXT, value={}, source=_TEXT, instead_of={**_list(_TEXT), "description": "hidden by it"}
)
_ACCOUNT: dict[str, Any] = {
    "account": _TEXT,
    "held": _COUNT,
    "held_by_all": _COUNT,
    "time_limit": {"type": ["number", "null"], "description": "the most, in seconds"},
    "default_time_limit": {"type": ["number", "null"]},
    "limits": _list(_LIMIT),
    "budgets": _list(_BUDGET),
}
_LEASE_ID = {"parameters": [_named("id", "of the lease")]}


def _gpu_paths() -> dict[str, Any]:
    drained = _object(kind=_TEXT, target=_TEXT, devices=_list(_TEXT), running=_COUNT)
    act = "by its holder, by who leads its team or course, or by an administrator"
    return {
        "/api/v1/gpus": _get(
            "GPUs: models, how many there are, how many are free, how many people wait",
            _object(
                simulated=_YES,
                total=_COUNT,
                free=_COUNT,
                types=_list(_GPU_TYPE),
                waiting=_object(requests=_COUNT, gpus=_COUNT),
            ),
        ),
        "/api/v1/gpus/devices": _get("Every GPU and its state", _object(devices=_list(_DEVICE))),
        "/api/v1/gpus/drain": {
            "post": _operation(
                "Offer a GPU, or all of a machine, to nobody new (administrators)",
                drained,
                **_takes(target={**_TEXT, "description": "a GPU's id or a machine"}, reason=_TEXT),
            )
        },
        "/api/v1/gpus/undrain": {
            "post": _operation("Offer it again (administrators)", drained, **_takes(target=_TEXT))
        },
        "/api/v1/leases": _get(
            "Who holds GPUs: oneself, one's team for leads, everybody for administrators",
            _object(everyone=_YES, total=_COUNT, leases=_list(_LEASE)),
        ),
        "/api/v1/leases/{id}": _get("One lease", _LEASE) | _LEASE_ID,
        "/api/v1/leases/{id}/cancel": {
            "post": _operation(f"Leave the queue, or stop the server, {act}", _LEASE)
        }
        | _LEASE_ID,
        "/api/v1/leases/{id}/extend": {
            "post": _operation(
                f"Let it run longer, {act}; 409 with the reasons against it",
                _LEASE,
                **_takes(by=_DURATION),
            )
        }
        | _LEASE_ID,
        "/api/v1/leases/{id}/keep": {
            "post": _operation(f"Do not stop it for idle GPUs, for a while, {act}", _LEASE)
        }
        | _LEASE_ID,
        "/api/v1/queue": _get(
            "Who waits, in order, and why",
            _object(everyone=_YES, total=_COUNT, total_gpus=_COUNT, requests=_list(_LEASE)),
        ),
        "/api/v1/usage": _get(
            "GPU-hours used (decayed, as fair share counts them) and budgets",
            _object(
                half_life=_NUMBER,
                accounts=_list(_object(account=_TEXT, user=_MAYBE_TEXT, gpu_hours=_NUMBER)),
                budgets=_list(_BUDGET),
            ),
        ),
        "/api/v1/me": _get(
            "What one may use, holds and waits for",
            _object(
                name=_TEXT,
                admin=_YES,
                leads=_list(_TEXT),
                accounts=_list(_object(**_ACCOUNT)),
                held=_COUNT,
                leases=_list(_LEASE),
            ),
        ),
        "/api/v1/explain/{user}": _get(
            "Which limits hold for a person, where each stands, and what is used",
            _object(user=_TEXT, **_ACCOUNT),
        )
        | {
            "parameters": [
                _named("user", "a person"),
                {
                    "name": "account",
                    "in": "query",
                    "schema": _TEXT,
                    "description": "who is charged; the person by default",
                },
            ]
        },
        "/api/v1/notices": _get(
            "What one has to be told, newest first",
            _object(notices=_list({"type": "object"}), leases=_list(_LEASE), words={}),
        ),
        "/api/v1/notices/seen": {
            "post": _operation(
                "Notices have been seen",
                _object(changed=_COUNT),
                **_takes(ids=_list({"type": "integer"})),
            )
        },
    }


# -- quotas and reservations -------------------------------------------------------------------

_SPEC = {"type": "object", "description": "keys as in quotas.yaml"}
_CHANGE = _object(subject=_TEXT, key=_TEXT, before={}, after={})


def _quota_paths() -> dict[str, Any]:
    one = _object(subject=_TEXT, quota=_SPEC, changes=_list(_CHANGE))
    subject = _named("subject", "default, settings, user:NAME, group:NAME or course:NAME")
    match = {
        "name": "If-Match",
        "in": "header",
        "schema": _TEXT,
        "description": "the ETag of a GET: 412 where somebody has changed it since",
    }
    return {
        "/api/v1/quotas": _get(
            "What is set: all for administrators, one's own for others",
            _object(quotas=_SPEC, document=_SPEC),
        ),
        "/api/v1/quotas/apply": {
            "post": _operation(
                "Apply a quotas document (administrators)",
                _object(applied=_YES, changes=_list(_CHANGE), warnings=_list(_TEXT)),
                **_takes(
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
        "/api/v1/quotas/history": _get(
            "Who changed what (administrators)", _object(changes=_list({"type": "object"}))
        ),
        "/api/v1/quotas/{subject}": {
            "get": _operation("What is set for one subject", one),
            "put": _operation(
                "Make it exactly this (administrators)",
                one,
                parameters=[match],
                requestBody={"content": {"application/json": {"schema": _SPEC}}},
            ),
            "delete": _operation("Remove all of it (administrators)", one, parameters=[match]),
            "parameters": [subject],
        },
    }


def _reservation_paths() -> dict[str, Any]:
    window = _object(start=_TIME, end=_TIME, day=_TEXT)
    fields: dict[str, Any] = {
        "name": _TEXT,
        "subject": _TEXT,
        "gpus": _COUNT,
        "gpu_type": _TEXT,
        "devices": {**_list(_TEXT), "description": "certain GPUs, instead of gpus"},
        "starts": {**_TEXT, "description": "wall time in the time zone: 2026-11-24T10:00"},
        "duration": _DURATION,
        "timezone": {**_TEXT, "description": "IANA name, such as Europe/Berlin"},
        "repeat": {"type": "string", "enum": ["once", "daily", "weekly"]},
        "weekdays": _list({"type": "string", "enum": list(WEEKDAYS)}),
        "until": {**_MAYBE_TEXT, "description": "the last day"},
    }
    one = _object(
        id=_TEXT,
        **fields,
        skipped=_list(_TEXT),
        created_by=_TEXT,
        windows={**_list(window), "description": "of the next seven days"},
    )
    reservation_id = {"parameters": [_named("id", "of the reservation")]}
    return {
        "/api/v1/reservations": {
            "get": _operation("All that stand", _object(reservations=_list(one))),
            "post": _operation(
                "Reserve (administrators); 409 with the clash named in error.clashes",
                one,
                "201",
                **_takes(**fields),
            ),
        },
        "/api/v1/reservations/{id}": {
            "get": _operation("One reservation", one),
            "delete": _operation(
                "Cancel it (administrators, and who leads its team or course)",
                _object(id=_TEXT, name=_TEXT, cancelled=_YES),
            ),
        }
        | reservation_id,
        "/api/v1/reservations/{id}/skip": {
            "post": _operation(
                "Leave out a day (administrators, and who leads its team or course)",
                one,
                **_takes(day={**_TEXT, "description": "such as 2026-12-24"}),
            )
        }
        | reservation_id,
    }
