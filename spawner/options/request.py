"""The options of a server, declared once: the contract of ``user_options``.

Form and REST end in the same check; nothing else passes, least of all an image name. Whether a
request can be filled is another question (``choice``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text as Sentence
from spawner.options.fields import Option, Text, Whole, YesNo

MOST_GPUS = 9999
MOST_MINUTES = 366 * 24 * 60

OPTION_UNKNOWN = Sentence(
    "option_unknown", N_("There is no option “{option}”. The options are: {known}.")
)
GPUS_NOT_A_NUMBER = Sentence("gpus_not_a_number", N_("“gpus” must be a whole number, 0 or more."))
TIME_LIMIT_NOT_MINUTES = Sentence(
    "time_limit_not_minutes", N_("“time_limit” must be a whole number of minutes, 1 or more.")
)
WAIT_NOT_BOOLEAN = Sentence("wait_not_boolean", N_("“wait” must be true or false."))

ENVIRONMENT = Text(
    "environment",
    N_("Environment"),
    "name of an environment, or name:version; of one outside images SOURCE/NAME, such as "
    "team-vision/torch or personal/study; the site's default (for a student the course's), and the "
    "newest version",
)
GPUS: Whole[int] = Whole("gpus", N_("GPUs"), "how many GPUs", 0, 0, MOST_GPUS, GPUS_NOT_A_NUMBER)
GPU_TYPE = Text("gpu_type", N_("Type of GPU"), "model of the GPUs; any")
SIZE = Text("size", N_("Size"), "a size of the site file; the environment's, or the site's")
COURSE = Text("course", N_("Course"), "the course that it is for, which is then charged")
ACCOUNT = Text(
    "account",
    N_("Charged to"),
    "who is charged: user:NAME, group:NAME, course:NAME or the name alone; the group whose "
    "environment it is, the only team, the student's only course, or the person",
)


class _TimeLimit(Whole[int | None]):
    def read(self, text: Any) -> object:
        """Minutes; the form's ``until:SECONDS`` is as many as are left until then."""
        until = re.fullmatch(r"until:(\d{1,12})", text) if isinstance(text, str) else None
        if until is None:
            return super().read(text)
        return max(1, int((int(until[1]) - time.time()) // 60))


TIME_LIMIT: Whole[int | None] = _TimeLimit(
    "time_limit",
    N_("Time limit"),
    "minutes after which a server with GPUs ends (Slurm's --time); the usual one of who is charged",
    None,
    1,
    MOST_MINUTES,
    TIME_LIMIT_NOT_MINUTES,
)
WAIT = YesNo(
    "wait",
    N_("Wait in the queue where nothing is free"),
    "wait for GPUs in the queue, or be refused where none is free",
    True,
    WAIT_NOT_BOOLEAN,
)
OPTIONS: tuple[Option[Any], ...] = (
    ENVIRONMENT, GPUS, GPU_TYPE, SIZE, COURSE, ACCOUNT, TIME_LIMIT, WAIT,
)  # fmt: skip
KEYS = tuple(option.name for option in OPTIONS)
TITLES = {option.name: option.title for option in OPTIONS}
# Written by us for pages, so they come back when a server is started again.
OWN_KEYS = ("profile", "title")


@dataclass(frozen=True)
class Request:
    """A well-formed request; whether it can be filled is another question."""

    environment: str = ""
    version: str = ""
    gpus: int = 0
    gpu_type: str = ""
    size: str = ""
    course: str = ""
    account: str = ""
    minutes: int | None = None
    wait: bool = True


def from_form(form: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """``user_options`` from posted form data (lists of strings), to be checked by ``parse``."""
    said = {option.name: option.posted(form) for option in OPTIONS}
    return {name: value for name, value in said.items() if value is not None}


def parse(options: Mapping[str, Any]) -> Request:
    """Check names and types. Raises BadRequest naming the option and what would work."""
    unknown = [str(key)[:40] for key in options if key not in KEYS + OWN_KEYS]
    if unknown:
        raise BadRequest(OPTION_UNKNOWN(option=unknown[0], known=[*KEYS]))
    name, _, version = ENVIRONMENT.checked(options).partition(":")
    return Request(
        name,
        version,
        GPUS.checked(options),
        GPU_TYPE.checked(options),
        SIZE.checked(options),
        COURSE.checked(options),
        ACCOUNT.checked(options),
        TIME_LIMIT.checked(options),
        WAIT.checked(options),
    )


def schema() -> dict[str, Any]:
    """JSON schema of ``user_options``: what the hub's REST API takes when it starts a server."""
    return {
        "type": "object",
        "title": "user_options",
        "properties": {option.name: option.schema() for option in OPTIONS},
        "additionalProperties": False,
    }
