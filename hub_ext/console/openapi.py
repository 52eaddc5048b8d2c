"""The console's REST API, described in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_TIME = {"type": "string", "format": "date-time"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


_ERROR = _object(
    error=_object(code=_TEXT, message={**_TEXT, "description": "cause and remedy, in a sentence"})
)
_GPU_TYPE = _object(model=_TEXT, memory=_TEXT, memory_bytes=_COUNT, total=_COUNT, free=_COUNT)
_LEASE = _object(
    id=_TEXT,
    user=_TEXT,
    server={**_TEXT, "description": "empty for the person's default server"},
    state={"type": "string", "enum": ["held", "active"]},
    since=_TIME,
    gpus=_list(_object(id=_TEXT, model=_TEXT, simulated={"type": "boolean"})),
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


def _get(summary: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    def answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
        return {
            "description": description,
            "content": {"application/json": {"schema": content}},
        }

    operation = {
        "summary": summary,
        "responses": {
            "200": answer("as asked", schema),
            "default": answer("refused or failed", _ERROR),
        },
    }
    return {"get": operation | more}


def document(prefix: str) -> dict[str, Any]:
    """The description, for a console served under ``prefix``."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "LabCommons console", "version": "1"},
        "servers": [{"url": prefix.rstrip("/")}],
        "security": [{"token": []}],
        "paths": {
            "/api/v1/gpus": _get(
                "GPUs: models, how many there are, how many are free",
                _object(
                    simulated={"type": "boolean"}, total=_COUNT, free=_COUNT, types=_list(_GPU_TYPE)
                ),
            ),
            "/api/v1/leases": _get(
                "Leases that have not ended: one's own, everybody's for administrators",
                _object(everyone={"type": "boolean"}, total=_COUNT, leases=_list(_LEASE)),
            ),
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
