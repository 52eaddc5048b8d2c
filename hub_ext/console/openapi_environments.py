"""The part of the console's REST API about environments, described in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from hub_ext.console.openapi_parts import COUNT, ERROR, TEXT, TIME, get, list_of, object_of

_FINDING = object_of(level=TEXT, code=TEXT, message=TEXT, remedy=TEXT, sentence=TEXT)
_MAYBE = {"type": ["string", "null"]}
_VERSION_FACTS = object_of(
    version=TEXT,
    tag=_MAYBE,
    state={"type": "string", "enum": ["offered", "deprecated", "withdrawn", "removed"]},
    current={"type": "boolean"},
    pinned={"type": "boolean"},
    deprecated=_MAYBE,
    deprecated_reason=_MAYBE,
    withdrawn=_MAYBE,
    withdrawn_reason=_MAYBE,
    created=TIME,
    built_by=TEXT,
    lock_digest=TEXT,
    size_bytes={"type": ["integer", "null"]},
)
_DECISION = {
    "type": "object",
    "properties": {
        "reason": {**TEXT, "description": "to deprecate or withdraw; shown to those who use it"},
        "tag": {**TEXT, "description": "a semantic version"},
        "undo": {"type": "boolean", "description": "take it back"},
    },
}
_ENVIRONMENT = object_of(
    source={**TEXT, "description": "image, shared, team-NAME, course-NAME or personal"},
    owner={**TEXT, "description": "the person, team or course; empty for image and shared"},
    name=TEXT,
    title=TEXT,
    description=TEXT,
    version=TEXT,
    versions=list_of(TEXT),
    now=_VERSION_FACTS,
    python={"type": ["string", "null"]},
    python_state={"type": "string", "enum": ["ok", "ending", "ended"]},
    python_end=_MAYBE,
    main_packages=list_of(object_of(name=TEXT, version=TEXT)),
    package_count=COUNT,
    package_names=list_of(TEXT),
    size_bytes={"type": ["integer", "null"]},
    built_by=TEXT,
    created=TIME,
    findings=list_of(_FINDING),
    may=object_of(delete={"type": "boolean"}, copy={"type": "boolean"}, decide={"type": "boolean"}),
)
_DETAILS = object_of(
    name=TEXT,
    source=TEXT,
    packages=list_of(object_of(name=TEXT, version=TEXT, channel=TEXT)),
    history=list_of(_VERSION_FACTS),
)
_BUILD = object_of(
    id=TEXT,
    action={"type": "string", "enum": ["create", "publish", "promote", "delete", "decide"]},
    source=TEXT,
    name=TEXT,
    requested_by=TEXT,
    state={"type": "string", "enum": ["queued", "running", "done", "failed", "cancelled"]},
    percent={"type": "integer", "minimum": 0, "maximum": 100},
    message={**TEXT, "description": "in English"},
    sentence={**_MAYBE, "description": "the same in the language of the request, where it differs"},
    explained={"type": "boolean", "description": "whether the sentence says all of the message"},
    version={"type": ["string", "null"]},
    queued=TIME,
    ended={"type": ["string", "null"], "format": "date-time"},
)
_NEW = {
    "type": "object",
    "required": ["source", "name", "spec"],
    "properties": {
        "source": TEXT,
        "name": TEXT,
        "spec": {**TEXT, "description": "contents of an environment.yml"},
        "words": {**TEXT, "description": "contents of a labcommons.yml"},
    },
}
_COPY = {
    "type": "object",
    "required": ["to"],
    "properties": {"to": TEXT, "name": {**TEXT, "description": "its own name by default"}},
}


def _parameter(name: str, where: str = "path", **more: Any) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": TEXT | more}


_WHICH = [_parameter("source"), _parameter("name")]


def _asks(summary: str, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An operation that puts a build into the queue."""
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "202": {
                "description": "it will be done; Location says where to look",
                "content": {"application/json": {"schema": object_of(build=_BUILD)}},
            },
            "default": {
                "description": "refused or failed",
                "content": {"application/json": {"schema": ERROR}},
            },
        },
    }
    if body:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return operation | more


def environment_paths() -> dict[str, Any]:
    """Environments of all tiers, and what is being built."""
    return {
        "/api/v1/environments": get(
            "Environments that one may use", object_of(environments=list_of(_ENVIRONMENT))
        )
        | {"post": _asks("Build an environment", _NEW)},
        "/api/v1/environments/look": get(
            "Whether the list is as it was: a digest of names, versions and states",
            object_of(digest=TEXT),
        )
        | {
            "post": {
                "summary": "Find out what was made and removed in a terminal, at one's home",
                "responses": {
                    "202": {
                        "description": "it is being looked; false: it was, just now",
                        "content": {
                            "application/json": {"schema": object_of(looking={"type": "boolean"})}
                        },
                    },
                    "default": {
                        "description": "refused or failed",
                        "content": {"application/json": {"schema": ERROR}},
                    },
                },
            }
        },
        "/api/v1/environments/{source}/{name}": get(
            "One environment with its packages and versions",
            object_of(environment=_DETAILS),
            parameters=_WHICH,
        )
        | {"delete": _asks("Delete an environment, unless it is in use", parameters=_WHICH)},
        "/api/v1/environments/{source}/{name}/copy": {
            "post": _asks("Clone, publish or promote an environment", _COPY, parameters=_WHICH)
        },
        "/api/v1/environments/{source}/{name}/export": get(
            "A file to rebuild it elsewhere",
            TEXT,
            parameters=[*_WHICH, _parameter("format", "query"), _parameter("version", "query")],
        ),
        "/api/v1/environments/{source}/{name}/diff": get(
            "Which packages differ between two versions, by default the last two",
            object_of(
                **{"from": TEXT, "to": TEXT},
                changes=list_of(object_of(name=TEXT, before=_MAYBE, after=_MAYBE)),
            ),
            parameters=[*_WHICH, _parameter("from", "query"), _parameter("to", "query")],
        ),
        "/api/v1/environments/{source}/{name}/versions/{version}/{what}": {
            "post": {
                "summary": "Decide about a version",
                "parameters": [
                    *_WHICH,
                    _parameter("version"),
                    _parameter("what", enum=["pin", "tag", "deprecate", "withdraw"]),
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": _DECISION}},
                },
                "responses": {
                    "200": {
                        "description": "the version now, and the job that tells its folder",
                        "content": {
                            "application/json": {
                                "schema": object_of(version=_VERSION_FACTS, build=_BUILD)
                            }
                        },
                    },
                    "default": {
                        "description": "refused or failed",
                        "content": {"application/json": {"schema": ERROR}},
                    },
                },
            }
        },
        "/api/v1/builds": get("One's newest builds", object_of(builds=list_of(_BUILD))),
        "/api/v1/builds/{id}": get(
            "How far a build is, and its log from an offset on",
            object_of(build=_BUILD, log=TEXT, offset=COUNT),
            parameters=[_parameter("id"), _parameter("offset", "query", type="integer")],
        ),
        "/api/v1/builds/{id}/cancel": {
            "post": _asks("Cancel a build", parameters=[_parameter("id")])
        },
        "/api/v1/builds/{id}/retry": {
            "post": _asks("Ask for a build again", parameters=[_parameter("id")])
        },
    }
