"""What may be asked of a job: well-formed or refused; whether it can be filled is decided later."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from spawner import options
from spawner.options.request import MOST_MINUTES

MOST_TASKS = 1000
MOST_NUMBER = 999_999  # of a task
MOST_WORDS, MOST_BYTES = 200, 32_768  # of a command
MOST_AFTER, MOST_RETRIES = 20, 10
OPTIONS = ("environment", "size", "gpus", "gpu_type", "account", "course")

_RANGE = r"\d{1,6}(?:-\d{1,6})?"
_ARRAY = re.compile(rf"({_RANGE}(?:,{_RANGE})*)(?:%(\d{{1,6}}))?", re.ASCII)
_NUMBER = re.compile(r"(\d{1,15})(?:_(\d{1,6}))?", re.ASCII)

NO_COMMAND = Text(
    "job_no_command",
    N_("Say what is to be run, after “--”: labcommons run -- python train.py"),
)
COMMAND_LARGE = Text(
    "job_command_large",
    N_("A command has at most {words} words and {bytes} bytes. Put it into a script."),
)
ARRAY_WRONG = Text(
    "job_array_wrong",
    N_("“{array}” is no array: write for example 0-9, 1,4,7 or 0-99%5 (five at once)."),
)
ARRAY_LARGE = Text("job_array_large", N_("An array has at most {most} tasks."))
FOLDER_WRONG = Text(
    "job_folder_wrong", N_("“{folder}” is no folder of your home: write it as below your home.")
)
AFTER_WRONG = Text("job_after_wrong", N_("“{job}” is no number of a job, such as 17 or 17_3."))
AFTER_MANY = Text("job_after_many", N_("A job waits for at most {most} others."))
TIME_WRONG = Text("job_time_wrong", N_("The time limit must be from 1 to {most} minutes."))
RETRIES_WRONG = Text("job_retries_wrong", N_("A job is tried again at most {most} times."))


@dataclass(frozen=True)
class Asked:
    """A well-formed job.

    Attributes:
        options: as user_options, of ``OPTIONS``.
        folder: below the home; "" for the home itself.
        minutes: until it is ended.
        tasks: numbers of an array's; empty: it is one job.
        at_once: how many of them run at once; None: as many as can.
        after: jobs that have to be done first, by number and task.
        retries: how often it is run again where its machine was lost, or it made room.
        preemptible: it takes what nobody else wants, and makes room for whoever does.
    """

    command: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    minutes: int | None = None
    tasks: tuple[int, ...] = ()
    at_once: int | None = None
    after: tuple[tuple[int, int | None], ...] = ()
    retries: int = 0
    preemptible: bool = False


def parse(said: Mapping[str, Any]) -> Asked:
    """What somebody asks for. Raises BadRequest, with what would be right."""
    wanted = {key: said[key] for key in OPTIONS if said.get(key) not in (None, "")}
    options.parse(wanted)
    minutes, retries = said.get("time_limit"), said.get("retries") or 0
    if minutes is not None and not 1 <= minutes <= MOST_MINUTES:
        raise BadRequest(TIME_WRONG(most=MOST_MINUTES))
    if not 0 <= retries <= MOST_RETRIES:
        raise BadRequest(RETRIES_WRONG(most=MOST_RETRIES))
    after = said.get("after") or ()
    if len(after) > MOST_AFTER:
        raise BadRequest(AFTER_MANY(most=MOST_AFTER))
    tasks, at_once = array(str(said.get("array") or ""))
    return Asked(
        _command(said.get("command") or ()),
        wanted,
        _folder(str(said.get("folder") or "")),
        minutes,
        tasks,
        at_once,
        tuple(map(number, after)),
        retries,
        bool(said.get("preemptible")),
    )


def array(text: str) -> tuple[tuple[int, ...], int | None]:
    """The tasks of an array, and how many run at once (Slurm's ``--array``).

    >>> array("0-3,7%2")
    ((0, 1, 2, 3, 7), 2)
    """
    if not text:
        return (), None
    match = _ARRAY.fullmatch(text)
    if match is None or match[2] == "0":
        raise BadRequest(ARRAY_WRONG(array=text[:80]))
    tasks: set[int] = set()
    for part in match[1].split(","):
        first, _, last = part.partition("-")
        found = range(int(first), int(last or first) + 1)
        if not found:
            raise BadRequest(ARRAY_WRONG(array=text[:80]))
        if len(found) > MOST_TASKS or len(tasks) > MOST_TASKS:
            raise BadRequest(ARRAY_LARGE(most=MOST_TASKS))
        tasks.update(found)
    if len(tasks) > MOST_TASKS:
        raise BadRequest(ARRAY_LARGE(most=MOST_TASKS))
    return tuple(sorted(tasks)), int(match[2]) if match[2] else None


def number(text: object) -> tuple[int, int | None]:
    """A job, or a task of an array, as people write it. Raises BadRequest.

    >>> number("17_3"), number("17")
    ((17, 3), (17, None))
    """
    match = _NUMBER.fullmatch(str(text))
    if match is None:
        raise BadRequest(AFTER_WRONG(job=str(text)[:40]))
    return int(match[1]), None if match[2] is None else int(match[2])


def _command(words: Any) -> tuple[str, ...]:
    if not words or not words[0].strip():
        raise BadRequest(NO_COMMAND())
    size = sum(len(word.encode("utf-8", "surrogatepass")) + 1 for word in words)
    if len(words) > MOST_WORDS or size > MOST_BYTES or any(len(word) > 4096 for word in words):
        raise BadRequest(COMMAND_LARGE(words=MOST_WORDS, bytes=MOST_BYTES))
    if any("\0" in word or _unsent(word) for word in words):
        raise BadRequest(NO_COMMAND())
    return tuple(words)


def _unsent(word: str) -> bool:
    """Whether it has what cannot be an argument of a program."""
    return any("\ud800" <= sign <= "\udfff" for sign in word)


def _folder(text: str) -> str:
    folder = text.removeprefix("~/").strip("/") if text not in ("~", ".") else ""
    parts = folder.split("/") if folder else []
    odd = any(part in ("", ".", "..") or len(part) > 255 for part in parts)
    if text.startswith("/") or odd or len(folder) > 1000 or not (folder or "x").isprintable():
        raise BadRequest(FOLDER_WRONG(folder=text[:200]))
    return folder
