"""What is wrong with a document: where, why, and what would be right; all of it at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from hub_ext.i18n import N_, Gettext

Path = tuple[str, ...]
Lines = Mapping[Path, int]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (``groups.vision.grp_gpus``), in which line, and the remedy.

    ``message`` and ``hint`` are English with ``{placeholders}``, translated where they are shown.
    """

    path: str
    message: str
    hint: str = ""
    params: Mapping[str, object] = field(default_factory=dict)
    line: int | None = None

    def sentence(self, gettext: Gettext = lambda message: message) -> str:
        """What is wrong and what would be right, in a language."""
        said = (gettext(part).format_map(self.params) for part in (self.message, self.hint) if part)
        return " ".join(said)

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.path + ': ' if self.path else ''}{self.sentence()}"


class ProblemsError(Exception):
    """A document cannot be used; ``problems`` says where and why."""

    code = "wrong"

    def __init__(self, problems: list[Problem], name: str = "") -> None:
        self.problems = tuple(problems)
        lines = [f"  {problem}" for problem in problems]
        super().__init__("\n".join([f"{name}:", *lines] if name else map(str, problems)))


def _line(path: Path, lines: Lines) -> int | None:
    """The line of a key, or of the nearest one above it."""
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)


def problem_at(path: Path, message: str, lines: Lines) -> Problem:
    """A problem of one key, with its line."""
    return Problem(".".join(part[:80] for part in path), message, line=_line(path, lines))


_MAPPING = N_("must be a mapping of keys")
_LIST = N_("must be a list")
_MESSAGES = {
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "list_type": _LIST,
    "bool_type": N_("must be true or false"),
    "string_type": N_("must be text"),
    "missing": N_("is missing"),
    "extra_forbidden": N_("there is no such key here"),
    "literal_error": N_("must be one of {expected}"),
}


def read_problems(
    error: ValidationError,
    prefix: Path = (),
    lines: Lines | None = None,
    unknown: Callable[[Path], Problem] | None = None,
) -> list[Problem]:
    """What pydantic found, in our words, by line. ``unknown`` speaks of keys that do not exist."""
    found: list[Problem] = []
    for item in error.errors(include_url=False):
        # "[key]" marks that a mapping's key itself is wrong.
        path = tuple(str(part) for part in item["loc"] if part != "[key]")
        if item["type"] == "extra_forbidden" and unknown:
            problem = unknown(path)
        else:
            said = item["msg"].removeprefix("Value error, ").replace("{", "{{").replace("}", "}}")
            expected = item.get("ctx", {}).get("expected", "")
            problem = Problem("", _MESSAGES.get(item["type"], said), params={"expected": expected})
        place = problem_at((*prefix, *path), "", lines or {})
        found.append(replace(problem, path=place.path, line=place.line))
    return sorted(found, key=lambda problem: problem.line or 0)


def unknown_name(path: str, message: str, name: str, known: Collection[str]) -> Problem:
    """A name that does not exist, with what may have been meant, or what there is."""
    near = difflib.get_close_matches(name, known, 1, 0.6)
    some = sorted(known)[:12]
    names = ", ".join(some) + (", …" if len(known) > len(some) else "")
    hint = (
        N_("Did you mean “{near}”?")
        if near
        else N_("Known: {names}.")
        if some
        else N_("There are none.")
    )
    return Problem(
        path, message, hint, {"name": name, "near": near[0] if near else "", "names": names}
    )
