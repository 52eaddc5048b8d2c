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
_FINDING = _object(level=_TEXT, code=_TEXT, message=_TEXT, remedy=_TEXT)
_ENVIRONMENT = _object(
    source={**_TEXT, "description": "image, shared, team-NAME, course-NAME or personal"},
    owner={**_TEXT, "description": "the person, team or course; empty for image and shared"},
    name=_TEXT,
    title=_TEXT,
    description=_TEXT,
    version=_TEXT,
    versions=_list(_TEXT),
    python={"type": ["string", "null"]},
    main_packages=_list(_object(name=_TEXT, version=_TEXT)),
    package_count=_COUNT,
    package_names=_list(_TEXT),
    size_bytes={"type": ["integer", "null"]},
    built_by=_TEXT,
    created=_TIME,
    findings=_list(_FINDING),
    may=_object(delete={"type": "boolean"}, copy={"type": "boolean"}),
)
_DETAILS = _object(
    name=_TEXT,
    source=_TEXT,
    packages=_list(_object(name=_TEXT, version=_TEXT, channel=_TEXT)),
    history=_list(
        _object(
            version=_TEXT,
            current={"type": "boolean"},
            created=_TIME,
            built_by=_TEXT,
            lock_digest=_TEXT,
        )
    ),
)
_BUILD = _object(
    id=_TEXT,
    action={"type": "string", "enum": ["create", "publish", "promote", "delete"]},
    source=_TEXT,
    name=_TEXT,
    requested_by=_TEXT,
    state={"type": "string", "enum": ["queued", "running", "done", "failed", "cancelled"]},
    percent={"type": "integer", "minimum": 0, "maximum": 100},
    message=_TEXT,
    version={"type": ["string", "null"]},
    queued=_TIME,
    ended={"type": ["string", "null"], "format": "date-time"},
)
_NEW = {
    "type": "object",
    "required": ["source", "name", "spec"],
    "properties": {
        "source": _TEXT,
        "name": _TEXT,
        "spec": {**_TEXT, "description": "contents of an environment.yml"},
        "words": {**_TEXT, "description": "contents of a labcommons.yml"},
    },
}
_COPY = {
    "type": "object",
    "required": ["to"],
    "properties": {"to": _TEXT, "name": {**_TEXT, "description": "its own name by default"}},
}


def _parameter(name: str, where: str = "path", **more: Any) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": _TEXT | more}


_WHICH = [_parameter("source"), _parameter("name")]


def _asks(summary: str, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An operation that puts a build into the queue."""
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "202": {
                "description": "it will be done; Location says where to look",
                "content": {"application/json": {"schema": _object(build=_BUILD)}},
            },
            "default": {
                "description": "refused or failed",
                "content": {"application/json": {"schema": _ERROR}},
            },
        },
    }
    if body:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return operation | more


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
                "Environments that one may use", _object(environments=_list(_ENVIRONMENT))
            )
            | {"post": _asks("Build an environment", _NEW)},
            "/api/v1/environments/{source}/{name}": _get(
                "One environment with its packages and versions",
                _object(environment=_DETAILS),
                parameters=_WHICH,
            )
            | {"delete": _asks("Delete an environment, unless it is in use", parameters=_WHICH)},
            "/api/v1/environments/{source}/{name}/copy": {
                "post": _asks("Clone, publish or promote an environment", _COPY, parameters=_WHICH)
            },
            "/api/v1/environments/{source}/{name}/export": _get(
                "A file to rebuild it elsewhere",
                _TEXT,
                parameters=[*_WHICH, _parameter("format", "query")],
            ),
            "/api/v1/builds": _get("One's newest builds", _object(builds=_list(_BUILD))),
            "/api/v1/builds/{id}": _get(
                "How far a build is, and its log from an offset on",
                _object(build=_BUILD, log=_TEXT, offset=_COUNT),
                parameters=[_parameter("id"), _parameter("offset", "query", type="integer")],
            ),
            "/api/v1/builds/{id}/cancel": {
                "post": _asks("Cancel a build", parameters=[_parameter("id")])
            },
            "/api/v1/builds/{id}/retry": {
                "post": _asks("Ask for a build again", parameters=[_parameter("id")])
            },
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
