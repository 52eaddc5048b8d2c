"""The service's REST API, described in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from kernels.service.counting import MAX_ITEMS, MAX_STARTS
from kernels.service.entries import State

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_MAYBE = {"type": ["string", "null"]}
_TIME = {"type": ["string", "null"], "format": "date-time"}
_STATE = {"type": "string", "enum": [state.value for state in State]}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


_ERROR = _object(
    error=_object(code=_TEXT, message={**_TEXT, "description": "cause and remedy, in a sentence"})
)
_SOURCE = {**_TEXT, "description": "image, shared, team-NAME or course-NAME"}
_PLACE = {"source": _SOURCE, "environment": _TEXT, "version": _TEXT}
_ENVIRONMENT = _object(
    **_PLACE,
    label={**_TEXT, "description": "the source, for people; empty for images"},
    prefix={**_TEXT, "description": "its path in a user's server"},
    python=_MAYBE,
    state=_STATE,
    reason={**_TEXT, "description": "why it is not healthy, and what to do"},
    kernels=_list(_object(name=_TEXT, display_name=_TEXT, language=_TEXT)),
    last_used=_TIME,
)
_KERNEL = _object(
    name=_TEXT,
    display_name=_TEXT,
    language=_TEXT,
    **_PLACE,
    python=_MAYBE,
    prefix=_TEXT,
    state=_STATE,
)
_USE = _object(kernel=_TEXT, **_PLACE, starts=_COUNT, people=_COUNT, last_used=_TIME)
_START = {
    "type": "object",
    "required": ["kernel", "source", "environment"],
    "properties": {
        "kernel": _TEXT,
        **_PLACE,
        "count": {"type": "integer", "minimum": 1, "maximum": MAX_STARTS},
    },
}


def _answers(schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    def answer(description: str, content: dict[str, Any], media: str) -> dict[str, Any]:
        return {"description": description, "content": {media: {"schema": content}}}

    return {
        "200": answer("as asked", schema, kind),
        "default": answer("refused or failed", _ERROR, "application/json"),
    }


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT}


def document(prefix: str) -> dict[str, Any]:
    """The description, for a service under ``prefix``."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "LabCommons kernels", "version": "1"},
        "servers": [{"url": prefix.rstrip("/")}],
        "security": [{"token": []}],
        "paths": {
            "/api/v1/environments": {
                "get": {
                    "summary": "Environments that one may see",
                    "parameters": [
                        _query("q", "words to look for", _TEXT),
                        _query("source", "of this source alone", _TEXT),
                        _query("state", "in this state alone", _STATE),
                        _query("offset", "how many to pass over", _COUNT),
                        _query("limit", "how many at most", {"type": "integer", "default": 1000}),
                    ],
                    "responses": _answers(
                        _object(
                            total=_COUNT,
                            offset=_COUNT,
                            limit=_COUNT,
                            environments=_list(_ENVIRONMENT),
                        )
                    ),
                }
            },
            "/api/v1/environments/{source}/{name}": {
                "get": {
                    "summary": "One environment, each version of it",
                    "parameters": [_in_path("source"), _in_path("name")],
                    "responses": _answers(_object(versions=_list(_ENVIRONMENT))),
                }
            },
            "/api/v1/kernels": {
                "get": {
                    "summary": "Kernels that one may see",
                    "responses": _answers(_object(kernels=_list(_KERNEL))),
                }
            },
            "/api/v1/kernels/{name}": {
                "get": {
                    "summary": "The kernels of a name, one for each version that has it",
                    "parameters": [_in_path("name")],
                    "responses": _answers(_object(kernels=_list(_KERNEL))),
                }
            },
            "/api/v1/refresh": {
                "post": {
                    "summary": "Look at everything now (administrators)",
                    "responses": _answers(
                        _object(
                            written=_COUNT,
                            removed=_COUNT,
                            environments=_COUNT,
                            failed=_list(_TEXT),
                            problems=_list(_TEXT),
                        )
                    ),
                }
            },
            "/api/v1/events": {
                "get": {
                    "summary": "Changes as they happen: server-sent events added, changed, "
                    "removed (an environment), source, hello, reset (read the list again)",
                    "parameters": [
                        {"name": "Last-Event-ID", "in": "header", "schema": _TEXT},
                        _query("last_event_id", "the same, for who cannot set headers", _TEXT),
                    ],
                    "responses": _answers(_TEXT, "text/event-stream"),
                }
            },
            "/api/v1/usage": {
                "get": {
                    "summary": "How often kernels were started: by oneself; by everybody, for "
                    "administrators",
                    "parameters": [_query("days", "how many days back", {"type": "integer"})],
                    "responses": _answers(
                        _object(since=_TEXT, everyone={"type": "boolean"}, uses=_list(_USE))
                    ),
                },
                "post": {
                    "summary": "Report starts of one's own (a server's token is enough)",
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/json": {
                                "schema": _object(starts=_list(_START) | {"maxItems": MAX_ITEMS})
                            }
                        },
                    },
                    "responses": _answers(_object(counted=_COUNT, ignored=_COUNT)),
                },
            },
            "/health": {
                "get": {
                    "summary": "Whether the registry is up to date",
                    "security": [],
                    "responses": _answers(_object(status=_TEXT)),
                }
            },
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
