"""An administrator's quota form as data: its fields for a subject, and what was filled in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from commons.i18n import N_
from spawner.gpu.quotas.document import keys_of

Path = tuple[str, ...]
_YES_NO = (("", N_("not set")), ("true", N_("yes")), ("false", N_("no")))
_WINDOWS = (
    ("", N_("not set")),
    ("day", N_("each day")),
    ("week", N_("each week")),
    ("month", N_("each month")),
    ("total", N_("in all")),
)
_STRATEGIES = (
    ("", N_("not set")),
    ("backfill", "backfill"),
    ("BestEffortFIFO", "BestEffortFIFO"),
    ("StrictFIFO", "StrictFIFO"),
)


@dataclass(frozen=True)
class Field:
    """One input. ``path`` is its key in the subject's mapping, ``name`` that of the input."""

    path: Path
    label: str
    kind: Literal["number", "duration", "text", "choice"]
    choices: tuple[tuple[str, str], ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def shown(self, spec: Mapping[str, Any]) -> str:
        """What stands in the input for a spec."""
        value: Any = spec
        for part in self.path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        return f"{value:g}" if isinstance(value, float) else str(value)

    def read(self, text: str) -> Any:
        """What was filled in; what cannot be read stays text, for the check to refuse."""
        if self.kind == "choice" and text in ("true", "false"):
            return text == "true"
        if self.kind == "number":
            for number in (int, float):
                try:
                    return number(text)
                except ValueError:
                    continue
        return text


@dataclass(frozen=True)
class Section:
    """Fields under one heading, with a sentence about them."""

    title: str
    about: str
    fields: tuple[Field, ...]


def sections(subject: str, models: Collection[str], spec: Mapping[str, Any]) -> tuple[Section, ...]:
    """The form for a subject: what its mapping may have, nothing else."""
    if subject == "settings":
        return (_queue(models, spec), _idle())
    allowed = keys_of(subject)
    person = (
        Field(("max_gpus",), N_("GPUs at once"), "number"),
        *_by_type("max_by_type", models, spec),
        Field(("ceiling",), N_("GPUs at once over all accounts"), "number"),
        Field(("own_gpus",), N_("GPUs at once on their own account"), "number"),
        Field(("max_queued",), N_("Requests waiting at once"), "number"),
        Field(("time_limit",), N_("Longest time limit"), "duration"),
        Field(("default_time_limit",), N_("Time limit where none is asked for"), "duration"),
        *_budget("budget"),
        Field(("shares",), N_("Share for the order of the queue (1 is usual)"), "number"),
    )
    found = [
        Section(
            N_("Each person"),
            N_("Looked up for the person first, then for the team or course, then as default."),
            tuple(one for one in person if one.path[0] in allowed),
        )
    ]
    if "grp_gpus" in allowed:
        found.append(
            Section(
                N_("All together"),
                N_("The sum over everybody whose servers are charged here."),
                (
                    Field(("grp_gpus",), N_("GPUs at once"), "number"),
                    *_by_type("grp_by_type", models, spec),
                    *_budget("grp_budget"),
                ),
            )
        )
        found.append(
            Section(
                N_("Borrowing"),
                N_("What others of the same cohort do not use may be borrowed, and is given back."),
                (
                    Field(("nominal",), N_("GPUs of its own"), "number"),
                    Field(("cohort",), N_("Cohort"), "text"),
                    Field(("borrowing_limit",), N_("Most that it borrows"), "number"),
                    Field(("lending_limit",), N_("Most that it lends"), "number"),
                    Field(("preempt_exempt",), N_("Borrowed GPUs are safe for"), "duration"),
                ),
            )
        )
    return (*found, _idle())


def _by_type(
    key: str, models: Collection[str], spec: Mapping[str, Any], label: str = N_("{model} at once")
) -> Iterator[Field]:
    for model in sorted({*models, *spec.get(key, {})}):
        yield Field((key, model), label, "number", params={"model": model})


def _budget(key: str) -> tuple[Field, ...]:
    return (
        Field((key, "gpu_hours"), N_("GPU-hours"), "number"),
        Field((key, "window"), N_("GPU-hours are counted"), "choice", _WINDOWS),
        Field((key, "half_life"), N_("or fade with a half-life of"), "duration"),
    )


def _queue(models: Collection[str], spec: Mapping[str, Any]) -> Section:
    return Section(
        N_("The queue"),
        N_("How requests that wait are ordered and started."),
        (
            Field(("half_life",), N_("Half-life of past use"), "duration"),
            Field(
                ("entry_penalty",),
                N_("Count the full time limit at start (queue order)"),
                "choice",
                _YES_NO,
            ),
            Field(("strategy",), N_("Queue strategy"), "choice", _STRATEGIES),
            Field(("patience",), N_("Whoever has waited this long goes first"), "duration"),
            Field(("hold_time",), N_("A granted server must be opened within"), "duration"),
            Field(("release_after",), N_("An unused reservation is lent out after"), "duration"),
            Field(("warn_before",), N_("Warning before a server's end"), "duration"),
            Field(("timezone",), N_("Time zone of a day, week or month"), "text"),
            *_by_type("worth", models, spec, N_("Worth of a {model} (1 is usual)")),
            Field(("charge_by_worth",), N_("Charge GPU-hours by worth"), "choice", _YES_NO),
        ),
    )


def _idle() -> Section:
    return Section(
        N_("Unused GPUs"),
        N_("When a server that leaves its GPUs idle is warned and stopped."),
        (
            Field(("idle", "after"), N_("Stop after idle time (warning included)"), "duration"),
            Field(("idle", "gpu_percent"), N_("Use below which it is idle, in percent"), "number"),
            Field(
                ("idle", "cpu_percent"),
                N_("CPU use from which it works, in percent of one core"),
                "number",
            ),
            Field(("idle", "preparation"), N_("Work without the GPU counts for"), "duration"),
            Field(("idle", "grace"), N_("Time between warning and stop"), "duration"),
            Field(
                ("idle", "busy_queue_after"),
                N_("Stop after idle time while people wait"),
                "duration",
            ),
            Field(("idle", "start_after"), N_("Not before a server has run for"), "duration"),
            Field(("idle", "keep_alive"), N_("“Keep” puts the stop off by"), "duration"),
            Field(("idle", "keep_alive_cap"), N_("Maximum total delay"), "duration"),
            Field(("idle", "exempt"), N_("Never stopped for idleness"), "choice", _YES_NO),
        ),
    )


def filled_in(form: tuple[Section, ...], posted: Callable[[str], str]) -> dict[str, Any]:
    """The spec that a filled-in form says; empty inputs are not set."""
    spec: dict[str, Any] = {}
    for section in form:
        for one in section.fields:
            text = posted(one.name).strip()
            if not text:
                continue
            *above, key = one.path
            where = spec
            for part in above:
                where = where.setdefault(part, {})
            where[key] = one.read(text)
    return spec
