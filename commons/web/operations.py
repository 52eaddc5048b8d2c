"""Operations of a REST API, each declared once: what it takes and answers, and who may ask.

A method of a handler (``commons.web.handlers.Api``) gets its declaration with ``operation``::

    @operation("Offer a GPU to nobody new", Drained, body=Drain, admins=True)
    async def post(self, body: Drain) -> None:

By it a request is checked before the method is called, and ``commons.web.openapi`` describes it.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from commons.errors import BadRequest
from commons.i18n import N_, Gettext
from commons.messages import Text
from commons.web.refused import Refused
from kernels.hostile import parse_json

Method = TypeVar("Method", bound=Callable[..., Awaitable[None]])
Model = TypeVar("Model", bound=BaseModel)

VERBS = ("get", "post", "put", "delete")
TIME = {"format": "date-time"}
# A time in ISO 8601, in UTC: "2026-11-26T09:00:00Z".
Time = Annotated[str, Field(json_schema_extra=TIME)]
Count = Annotated[int, Field(ge=0)]

NOT_JSON = Text("not_json", N_("The body must be a JSON object."))
KEY_WRONG = Text("key_wrong", N_("Unknown field “{key}”, or wrong type."))
PARAMETER_WRONG = Text(
    "parameter_wrong",
    N_("The parameter “{name}” cannot be understood."),
    when={"choices": N_("The parameter “{name}” cannot be understood. It may be: {choices}.")},
)


class Handler(Protocol):
    """What is used of a handler: ``commons.web.handlers.Api``."""

    request: HTTPServerRequest
    max_body: int

    @property
    def _(self) -> Gettext: ...
    def need_admin(self) -> None: ...
    def set_status(self, status_code: int) -> None: ...
    def get_query_argument(self, name: str, default: None) -> str | None: ...


class Sent(BaseModel):
    """The JSON object of a request: no other keys; null is as if a key were not there."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, found: Any) -> Any:
        return (
            {k: v for k, v in found.items() if v is not None} if isinstance(found, dict) else found
        )


class Query(BaseModel):
    """Parameters behind an address; others are not looked at."""

    model_config = ConfigDict(extra="ignore")


class Told(BaseModel):
    """An object of an answer: all of these keys, and no others."""

    model_config = ConfigDict(extra="forbid")


# A text that the operation itself looks at, and may refuse in its own words.
AnyText = Annotated[Any, WithJsonSchema({"type": "string"})]


def upto(most: int, least: int = 0) -> Any:
    """A number of a query; a larger one counts as ``most``."""
    return Annotated[
        int,
        Field(ge=least, le=10**9, json_schema_extra={"maximum": most}),
        AfterValidator(lambda number: min(most, number)),
    ]


@dataclass(frozen=True)
class Part:
    """A part of an address: what it is, a regular expression that it matches, and what
    it may be, where the operation itself refuses the rest.
    """

    description: str = ""
    pattern: str = "[^/]{1,255}"
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One method of one address.

    Attributes:
        summary: what it does, in a line.
        answer: the model of the answer; None where that is no JSON.
        status: of the answer.
        described: of the answer, where there is more to say than "as asked".
        media: what the answer is, where it is no JSON.
        body: what is sent: a ``Sent``, which the method gets; of any other model the method gets
            the object itself, with keys of the model, whose values it checks.
        sends: what the body is, where it is no JSON; the method reads it itself.
        reads: whether the body is read before the method is called, which then gets it.
        query: the parameters, which the method gets.
        headers: that it reads: name and description.
        refusals: statuses that are this operation's own, and when they come.
        also: statuses with the same answer, and when they come.
        admins: for administrators alone.
        servers: that a server may ask for with its own token, within its owner's rights.
        exams: of these, that the server of an exam may ask for, too.
        public: without a token.
    """

    summary: str
    answer: Any = None
    status: int = 200
    described: str = "as asked"
    media: str = "application/json"
    body: type[BaseModel] | None = None
    sends: str = ""
    reads: bool = True
    query: type[Query] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[int, str] = field(default_factory=dict)
    also: Mapping[int, str] = field(default_factory=dict)
    admins: bool = False
    servers: bool = False
    exams: bool = False
    public: bool = False


def operation(summary: str, answer: Any = None, **more: Any) -> Callable[[Method], Method]:
    """Declare a method; see ``Operation``."""
    declared = Operation(summary, answer, **more)

    def declare(method: Method) -> Method:
        @functools.wraps(method)
        async def checked(handler: Handler, **parts: str) -> None:
            given: dict[str, Any] = dict(parts)
            if declared.admins:
                handler.need_admin()
            if declared.query:
                given["query"] = read_query(handler, declared.query)
            if declared.body and declared.reads:
                given["body"] = read_body(handler, declared.body)
            handler.set_status(declared.status)
            await method(handler, **given)

        checked.operation = declared  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return declare


def declared(handler: RequestHandler | type[RequestHandler], verb: str) -> Operation | None:
    """The declaration of a method; None where it has none."""
    found: Operation | None = getattr(getattr(handler, verb.lower(), None), "operation", None)
    return found


@dataclass(frozen=True)
class Route:
    """An address below a service's prefix, such as ``/api/v1/leases/{lease}``, and its handler.

    ``parts`` are those in braces; the handler's methods get them by their names.
    """

    path: str
    handler: type[RequestHandler]
    parts: Mapping[str, Part] = field(default_factory=dict)

    def part(self, name: str) -> Part:
        """A part in braces."""
        return self.parts.get(name, Part())

    def regex(self, prefix: str) -> str:
        """The address as tornado looks for it, below ``prefix``, which ends in a slash."""
        pieces = self.path.removeprefix("/").replace(".", r"\.").split("{")
        found = pieces[0]
        for piece in pieces[1:]:
            name, _, rest = piece.partition("}")
            found += f"(?P<{name}>{self.part(name).pattern}){rest}"
        return prefix + found


def read_body(handler: Handler, model: type[BaseModel]) -> Any:
    """The JSON object that was sent, as a model asks for it. Raises Refused."""
    document = read_object(handler)
    keys = sorted(item.alias or name for name, item in model.model_fields.items())
    if not issubclass(model, Sent):
        if wrong := [key for key in document if key not in keys]:
            raise _key_wrong(handler, wrong[0], keys)
        return {key: value for key, value in document.items() if value is not None}
    try:
        return model.model_validate(document)
    except ValidationError as error:
        wrong_at = error.errors(include_url=False)[0]["loc"]
        raise _key_wrong(handler, wrong_at[0] if wrong_at else "", keys) from error


def read_object(handler: Handler) -> dict[str, Any]:
    """The JSON object that was sent. Raises Refused."""
    try:
        document = parse_json(handler.request.body or b"{}", handler.max_body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Refused(BadRequest(NOT_JSON()), handler._)
    return document


def _key_wrong(handler: Handler, key: object, keys: list[str]) -> Refused:
    return Refused(BadRequest(KEY_WRONG(key=str(key)[:40])), handler._, keys=keys)


def read_query(handler: Handler, model: type[Model]) -> Model:
    """The parameters behind the address. Raises Refused."""
    names = [item.alias or name for name, item in model.model_fields.items()]
    given = {name: handler.get_query_argument(name, None) for name in names}
    try:
        return model.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        taken = wrong.get("ctx", {}).get("expected", "")
        message = PARAMETER_WRONG(name=wrong["loc"][0], choices=taken or None)
        raise Refused(BadRequest(message), handler._) from error
