"""The protocol on its way between hub and agent: one table of calls, made from the protocol itself.

``POST /v1/NAME`` with a JSON object of the arguments. docs/runtime.md has the whole of it; client
and agent both read it from here, so that they cannot differ.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, create_model

from commons.errors import LabError, RuntimeRefused, RuntimeSilent
from commons.messages import Message
from spawner.runtime.messages import AGENT_FAILED, OTHER_VERSION, TOO_MUCH_SAID
from spawner.runtime.protocol import ImageStore, Runtime, TooMuchSaid
from spawner.runtime.spec import Said

PREFIX = "/v1/"
# Of whoever asks; the agent answers 426 where it has another.
VERSION_HEADER = "LabCommons-Protocol"
# Seconds between two signs of life in a stream that has nothing to say: an empty line.
HEARTBEAT = 10.0
MAX_MESSAGE = 64 * 2**20  # bytes of one request or answer: a job with its lock and files


@dataclass(frozen=True)
class Call:
    """One call: what it takes, and what it answers (each time, where it is a stream).

    ``whole`` is the body of a good answer, ``{"result": …}``.
    """

    name: str
    arguments: type[BaseModel]
    answer: TypeAdapter[Any]
    whole: TypeAdapter[dict[str, Any]]
    stream: bool = False

    @property
    def method(self) -> str:
        """The method's name in its protocol."""
        return self.name.rpartition("/")[2]


def _calls(protocol: type, prefix: str = "") -> dict[str, Call]:
    found = {}
    for method, function in inspect.getmembers(protocol, inspect.isfunction):
        if method.startswith("_") or method == "close":
            continue
        hints = get_type_hints(function, include_extras=True)
        answer = hints.pop("return")
        stream = get_origin(answer) is AsyncIterator
        fields: dict[str, Any] = {
            name: (hints[name], ... if one.default is one.empty else one.default)
            for name, one in inspect.signature(function).parameters.items()
            if name != "self"
        }
        found[prefix + method] = Call(
            prefix + method,
            create_model(f"{method}_arguments", __base__=Said, **fields),
            TypeAdapter(get_args(answer)[0] if stream else answer),
            TypeAdapter(_whole(Any if stream else answer)),
            stream,
        )
    return found


def _whole(answer: Any) -> Any:
    return dict[Literal["result"], answer]  # type: ignore[valid-type]


CALLS: Mapping[str, Call] = _calls(Runtime) | _calls(ImageStore, "images/")


# Of all messages as they are now. It stands here since a hub that starts would need 0.1 s for it;
# test_wire.py says what it has to be.
MESSAGES = "e6d48796a071"


@cache
def protocol_version() -> str:
    """Ours, with a digest of all messages: who has the same one can understand it."""
    return f"{version('labcommons')}+{MESSAGES}"


def digest() -> str:
    """What ``MESSAGES`` has to be."""
    schemas = [
        [name, call.stream, call.arguments.model_json_schema(), _schema(call.answer)]
        for name, call in sorted(CALLS.items())
    ]
    raw = json.dumps(_without_words(schemas), sort_keys=True).encode()
    return hashlib.sha256(raw).hexdigest()[:12]


def _schema(adapter: TypeAdapter[Any]) -> Any:
    return adapter.json_schema(mode="serialization")


def _without_words(value: Any) -> Any:
    if isinstance(value, dict):
        words = ("description", "title")
        return {k: _without_words(v) for k, v in value.items() if k not in words}
    return [_without_words(item) for item in value] if isinstance(value, list) else value


def other_version(agent: str, hub: str) -> RuntimeSilent:
    """What both say while they wait for each other."""
    return RuntimeSilent(OTHER_VERSION(agent=agent, hub=hub))


def tell(error: LabError) -> tuple[int, dict[str, Any]]:
    """An error as it is answered: HTTP status, and the value of ``error``."""
    return error.status, error.message.as_json()


def told(status: int, error: Any) -> LabError:
    """The other way round. 503 and 426: as if nobody had answered; all else is a refusal."""
    message = Message.from_json(error) if isinstance(error, dict) else AGENT_FAILED()
    if message.code == TOO_MUCH_SAID.code:
        return TooMuchSaid()
    kind = RuntimeSilent if status in (426, 503) else RuntimeRefused
    found = kind(message)
    if kind is RuntimeRefused:
        found.status = status
    return found
