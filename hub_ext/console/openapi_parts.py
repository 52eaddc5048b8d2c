"""Pieces that descriptions in OpenAPI 3.1 are made of."""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
TIME = {"type": "string", "format": "date-time"}


def object_of(**properties: Any) -> dict[str, Any]:
    """An object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": properties}


def list_of(items: Any) -> dict[str, Any]:
    """Any number of these."""
    return {"type": "array", "items": items}


REASON = object_of(
    code={**TEXT, "description": "stable, for programs"},
    data={"type": "object", "description": "what the sentence says; times in seconds since 1970"},
    sentence=TEXT,
)
ERROR = object_of(
    error=object_of(
        code=TEXT,
        message={**TEXT, "description": "cause and remedy, in a sentence"},
        reasons=list_of(REASON),
    )
)


def answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
    """An answer in JSON."""
    return {"description": description, "content": {"application/json": {"schema": content}}}


def operation(
    summary: str, schema: dict[str, Any], status: str = "200", **more: Any
) -> dict[str, Any]:
    """One method of a path: what it answers as asked, and else an error."""
    return {
        "summary": summary,
        "responses": {
            status: answer("as asked", schema),
            "default": answer("refused or failed", ERROR),
        },
    } | more


def get(summary: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A path that is only read."""
    return {"get": operation(summary, schema, **more)}


def takes(**properties: Any) -> dict[str, Any]:
    """What a request may have in its body."""
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def named(name: str, description: str) -> dict[str, Any]:
    """A part of the path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": TEXT,
        "description": description,
    }
