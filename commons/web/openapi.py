"""A REST API described in OpenAPI 3.1, made from its routes and what their methods declare."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from commons.web.operations import VERBS, Operation, Route, Told, declared

_SCHEMAS = "#/components/schemas/{model}"
_FOR = (
    ("admins", "For administrators."),
    ("servers", "A server may ask for it with its own token, for its owner."),
)


class Reason(Told):
    """One reason why something is not done."""

    code: str = Field(description="stable, for programs")
    data: dict[str, Any] = Field(description="what the sentence says; times in seconds since 1970")
    sentence: str


class Problem(BaseModel):
    """What is wrong with one part of what was sent."""

    path: str = Field(description="where, such as groups.vision.max_gpus")
    line: int | None = Field(description="of a text that was sent")
    message: str = Field(description="the sentence, with the hint, in the reader's language")
    code: str = Field(description="stable, for programs; empty for words that are not ours")
    data: dict[str, Any] = Field(description="what the sentence says")
    hint: Reason | None = Field(description="what may have been meant, or what there is")


class ErrorDetails(BaseModel):
    """Why something was refused or failed."""

    code: str = Field(description="stable, for programs")
    message: str = Field(description="cause and remedy, in a sentence, in the reader's language")
    reasons: list[Reason]
    problems: list[Problem] = Field([], description="of a document that was sent")
    keys: list[str] = Field([], description="that may be sent")


class Error(Told):
    """Every answer that is not as asked."""

    error: ErrorDetails


class _Schema(GenerateJsonSchema):
    """Without a title for each key: it would say its name once more."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def operations(routes: Iterable[Route]) -> Iterator[tuple[Route, str, Operation]]:
    """Every method that is declared, with its route and its verb."""
    for route in routes:
        for verb in VERBS:
            found = declared(route.handler, verb)
            if found:
                yield route, verb, found


def document(title: str, prefix: str, routes: Iterable[Route]) -> dict[str, Any]:
    """The description of routes that are served under ``prefix``."""
    found = list(operations(routes))
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Error, "serialization"): None}
    for _, _, one in found:
        if one.answer:
            wanted[one.answer, "serialization"] = None
        for model in (one.body, one.query):
            if model:
                wanted[model, "validation"] = None
    refs, definitions = models_json_schema(
        list(wanted), ref_template=_SCHEMAS, schema_generator=_Schema
    )
    schemas = definitions.get("$defs", {})
    paths: dict[str, Any] = {}
    for route, verb, one in found:
        paths.setdefault(route.path, {})[verb] = _described(route, one, refs, schemas)
    # Of a query's model each key is a parameter.
    used = {ref["$ref"].rpartition("/")[2] for (m, _), ref in refs.items() if m in _queries(found)}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1"},
        "servers": [{"url": prefix.rstrip("/")}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in schemas.items() if name not in used},
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`token TOKEN`, with a token of the hub (Tokens, in the menu)",
                }
            },
        },
    }


def _queries(found: Iterable[tuple[Route, str, Operation]]) -> set[type[BaseModel]]:
    return {one.query for _, _, one in found if one.query}


def _described(
    route: Route, one: Operation, refs: dict[Any, Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    schema = refs[one.answer, "serialization"] if one.answer else {"type": "string"}
    error = refs[Error, "serialization"]
    responses = {str(one.status): _content(one.described, schema, one.media)}
    responses |= {str(status): _content(when, schema) for status, when in one.also.items()}
    responses |= {str(status): _content(when, error) for status, when in one.refusals.items()}
    responses["default"] = _content("refused or failed", error)
    described: dict[str, Any] = {"summary": one.summary, "responses": responses}
    if words := [text for name, text in _FOR if getattr(one, name)]:
        described["description"] = " ".join(words)
    if one.public:
        described["security"] = []
    if one.body:
        content = {"application/json": {"schema": refs[one.body, "validation"]}}
        required = any(item.is_required() for item in one.body.model_fields.values())
        described["requestBody"] = {"required": required, "content": content}
    elif one.sends:
        schema = {"type": "string", "format": "binary"}
        described["requestBody"] = {"required": True, "content": {one.sends: {"schema": schema}}}
    parameters = [*_in_path(route), *_in_headers(one)]
    if one.query:
        name = refs[one.query, "validation"]["$ref"].rpartition("/")[2]
        parameters += _in_query(schemas[name])
    if parameters:
        described["parameters"] = parameters
    return described


def _content(description: str, schema: Any, media: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": schema}}}


def _in_path(route: Route) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)\}", route.path):
        part = route.part(name)
        schema: dict[str, Any] = {"type": "string"}
        if part.choices:
            schema["enum"] = list(part.choices)
        found = {"name": name, "in": "path", "required": True, "schema": schema}
        yield found | ({"description": part.description} if part.description else {})


def _in_headers(one: Operation) -> Iterator[dict[str, Any]]:
    for name, description in one.headers.items():
        schema = {"type": "string"}
        yield {"name": name, "in": "header", "schema": schema, "description": description}


def _in_query(model: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, schema in model.get("properties", {}).items():
        found = {"name": name, "in": "query", "required": name in model.get("required", ())}
        if "description" in schema:
            found["description"] = schema["description"]
        yield found | {"schema": {k: v for k, v in schema.items() if k != "description"}}
