"""Answers of a REST API held against its own description (``openapi.json``)."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from tornado.httpclient import HTTPResponse
from tornado.web import Application

from commons.web.handlers import Api, ApiNotFound, Described
from commons.web.operations import VERBS, declared

Document = dict[str, Any]


def _unimplemented(handler: Any, verb: str) -> bool:
    return getattr(handler, verb) is handler._unimplemented_method


def undeclared(app: Application) -> list[str]:
    """Methods of the API that no declaration describes."""
    found = []
    for rule in app.wildcard_router.rules:
        handler: Any = rule.target
        if issubclass(handler, Api) and not issubclass(handler, (ApiNotFound, Described)):
            for verb in (*VERBS, "patch"):
                if not _unimplemented(handler, verb) and declared(handler, verb) is None:
                    found.append(f"{verb} {rule.matcher.regex.pattern}")
    return found


def operations(document: Document) -> set[tuple[str, str]]:
    """Verb and address of all that is described."""
    return {(verb, path) for path, verbs in document["paths"].items() for verb in verbs}


def check_schemas(document: Document) -> None:
    """Raises SchemaError for a schema that is none."""
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def check_answer(document: Document, verb: str, path: str, answer: HTTPResponse) -> None:
    """Raises ValidationError for an answer that is not as described, KeyError for none."""
    responses = document["paths"][path][verb]["responses"]
    content = responses.get(str(answer.code), responses["default"])["content"]
    [(media, described)] = content.items()
    assert answer.headers["Content-Type"].startswith(media), (verb, path, answer.body)
    if media == "application/json":
        schema = {**described["schema"], "components": document["components"]}
        Draft202012Validator(schema).validate(json.loads(answer.body))
