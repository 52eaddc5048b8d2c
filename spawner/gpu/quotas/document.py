"""The quotas document: what may stand in ``quotas.yaml``, checked by key and line.

A document becomes *specs*: for each subject (``settings``, ``default``, ``user:alice``,
``group:vision``, ``course:ml101``) the mapping that the table ``gpu_quotas`` keeps. Durations
are kept as text (``8h``) so that what is exported reads like what was written.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    create_model,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from commons.errors import WrongValue
from commons.i18n import N_
from commons.messages import Text
from commons.one_line import is_one_line
from commons.scopes import (
    DEFAULT,
    SCOPES,
    SETTINGS,
    SITE_SUBJECTS,
    Keeper,
    accounts_known,
    groups_of_site,
    of_account,
)
from commons.site import Site
from commons.units import parse_duration, show_duration
from spawner.gpu.quotas import messages
from spawner.gpu.quotas.problems import (
    Problem,
    ProblemsError,
    problem_at,
    read_problems,
    unknown_name,
)

Specs = dict[str, dict[str, Any]]

MAX_BYTES = 512 * 1024
MAX_DEPTH = 8  # an entry of a budget is the fourth level
# The document's sections, and the kind of subject that each has; people first.
SECTIONS = {
    f"{row.account}s": row.account
    for row in sorted(SCOPES.values(), key=lambda row: row.keeper is not Keeper.PERSON)
    if row.account
}


class QuotaDocumentError(ProblemsError):
    """The document cannot be used."""

    text = Text("quotas_wrong", N_("These quotas cannot be used."))


# -- the shape --------------------------------------------------------------------------------


def _whole(value: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 0 <= value <= 100_000:  # type: ignore[operator]
        raise WrongValue(messages.NOT_A_COUNT())
    return value


def _amount(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WrongValue(messages.NOT_A_NUMBER())
    if not 0 <= value <= 100_000_000:
        raise WrongValue(messages.NOT_AN_AMOUNT())
    return value


def _share(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e6:
        raise WrongValue(messages.NOT_A_SHARE())
    return value


def _percent(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise WrongValue(messages.NOT_A_PERCENTAGE())
    return value


def _zone(value: object) -> object:
    try:
        ZoneInfo(str(value))
    except (KeyError, ValueError, OSError) as error:
        raise WrongValue(messages.NOT_A_TIME_ZONE()) from error
    return value


def _label(value: str) -> str:
    if not 0 < len(value) <= 80 or not is_one_line(value):
        raise WrongValue(messages.NOT_A_LABEL())
    return value


Count = Annotated[int, BeforeValidator(_whole)]
Amount = Annotated[float, BeforeValidator(_amount)]
# How a duration may be written, for descriptions.
DURATION = WithJsonSchema(
    {"type": ["string", "integer"], "description": "90m, 8h, 2d, or whole seconds"}
)
Duration = Annotated[
    str, BeforeValidator(lambda value: show_duration(parse_duration(value))), DURATION
]
Label = Annotated[str, AfterValidator(_label)]
TimeZone = Annotated[str, BeforeValidator(_zone)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetSpec(_Part):
    """GPU-hours in a window, or with a half-life."""

    gpu_hours: Amount
    window: Literal["day", "week", "month", "total"] | None = None
    half_life: Duration | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> BudgetSpec:
        if (self.window is None) == (self.half_life is None):
            raise WrongValue(messages.BUDGET_RULE())
        return self


class IdleSpec(_Part):
    """When a lease that nobody uses is taken back."""

    after: Duration | None = None
    start_after: Duration | None = None
    gpu_percent: Annotated[float, BeforeValidator(_percent)] | None = None
    cpu_percent: Annotated[float, BeforeValidator(_percent)] | None = None
    preparation: Duration | None = None
    grace: Duration | None = None
    busy_queue_after: Duration | None = None
    keep_alive: Duration | None = None
    keep_alive_cap: Duration | None = None
    exempt: Annotated[bool, Field(strict=True)] | None = None


class PersonSpec(_Part):
    """Limits of a person: of one, of each in a group or course, or of everybody."""

    max_gpus: Count | None = None
    max_by_type: dict[Label, Count] | None = None
    max_queued: Count | None = None
    time_limit: Duration | None = None
    default_time_limit: Duration | None = None
    budget: BudgetSpec | None = None
    idle: IdleSpec | None = None

    @model_validator(mode="after")
    def _default_within_limit(self) -> PersonSpec:
        if self.time_limit and self.default_time_limit:
            most, usual = parse_duration(self.time_limit), parse_duration(self.default_time_limit)
            if usual > most:
                raise WrongValue(messages.USUAL_TOO_LONG())
        return self


Share = Annotated[float, BeforeValidator(_share)]
Worth = Annotated[float, BeforeValidator(_share)]


class EverybodySpec(PersonSpec):
    """Limits of a person, those over all accounts among them."""

    ceiling: Count | None = None
    own_gpus: Count | None = None


class UserSpec(EverybodySpec):
    """A person, with their weight among the people of an account."""

    shares: Share | None = None


class AccountSpec(PersonSpec):
    """A group or course: limits of each person in it, and of all together."""

    shares: Share | None = None
    grp_gpus: Count | None = None
    grp_by_type: dict[Label, Count] | None = None
    grp_budget: BudgetSpec | None = None
    nominal: Count | None = None
    borrowing_limit: Count | None = None
    lending_limit: Count | None = None
    cohort: Label | None = None
    preempt_exempt: Duration | None = None

    @model_validator(mode="after")
    def _borrowing_needs_a_cohort(self) -> AccountSpec:
        limited = self.borrowing_limit is not None or self.lending_limit is not None
        if limited and (self.cohort is None or self.nominal is None):
            raise WrongValue(messages.BORROWING_ALONE())
        return self


class SettingsSpec(_Part):
    """What concerns all."""

    half_life: Duration | None = None
    entry_penalty: Annotated[bool, Field(strict=True)] | None = None
    strategy: Literal["backfill", "BestEffortFIFO", "StrictFIFO"] | None = None
    patience: Duration | None = None
    hold_time: Duration | None = None
    release_after: Duration | None = None
    warn_before: Duration | None = None
    timezone: TimeZone | None = None
    worth: dict[Label, Worth] | None = None
    charge_by_worth: Annotated[bool, Field(strict=True)] | None = None
    idle: IdleSpec | None = None


_KINDS: dict[str, type[_Part]] = {
    SETTINGS: SettingsSpec,
    DEFAULT: EverybodySpec,
    **{
        row.account: UserSpec if row.keeper is Keeper.PERSON else AccountSpec
        for row in SCOPES.values()
        if row.account
    },
}


class _Head(_Part):
    """The whole of ``quotas.yaml``, but for the sections of the scopes."""

    version: Literal[1]
    settings: SettingsSpec = SettingsSpec()
    default: EverybodySpec = EverybodySpec()


QuotaDocument: type[_Head] = create_model(
    "QuotaDocument",
    __base__=_Head,
    **{section: (dict[str, _KINDS[kind]], {}) for section, kind in SECTIONS.items()},  # type: ignore
)


def keys_of(subject: str) -> tuple[str, ...]:
    """The keys that a subject's mapping may have."""
    return tuple(_KINDS[subject.partition(":")[0]].model_fields)


# -- reading and checking ---------------------------------------------------------------------


def read_document(text: str, name: str = "quotas") -> Specs:
    """The specs of a document in YAML (or JSON, which is YAML too).

    Raises QuotaDocumentError with every wrong key, its line, and what would be right.
    """
    plain, lines = read_yaml(text, QuotaDocumentError, name)
    return check_document(plain, name, lines)


def read_yaml(
    text: str, wrong: type[ProblemsError], name: str
) -> tuple[object, dict[tuple[str, ...], int]]:
    """YAML from people as plain data, and the line of each key. Raises ``wrong``."""
    if len(text) > MAX_BYTES:
        raise wrong([Problem("", messages.DOCUMENT_TOO_LONG())], name)
    try:
        _check_events(text, wrong, name)
        loaded = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        words = str(error.problem or "").partition("\n")[0]
        raise wrong([Problem("", messages.NOT_YAML(words=words), line=line)], name) from error
    except (YAMLError, RecursionError, ValueError) as error:
        raise wrong([Problem("", messages.NOT_YAML())], name) from error
    lines: dict[tuple[str, ...], int] = {}
    return _plain(loaded, (), lines), lines


def _check_events(text: str, wrong: type[ProblemsError], name: str) -> None:
    """Refuse what could make a small document large or slow, before anything is built of it."""
    depth = 0
    for event in YAML(pure=True).parse(text):
        if isinstance(event, AliasEvent):
            raise wrong([Problem("", messages.DOCUMENT_ALIASES())], name)
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1
            raise wrong([Problem("", messages.DOCUMENT_TOO_DEEP(), line=line)], name)


def check_document(
    document: object, name: str = "quotas", lines: Mapping[tuple[str, ...], int] | None = None
) -> Specs:
    """The specs of a document that is read already. Raises QuotaDocumentError."""
    if not isinstance(document, Mapping) or "version" not in document:
        raise QuotaDocumentError([Problem("", messages.DOCUMENT_HEAD(), line=1)], name)
    # An empty section is what is left when its last entry is commented out.
    document = {key: {} if value is None else value for key, value in document.items()}
    try:
        checked = QuotaDocument.model_validate(document)
    except ValidationError as error:
        raise QuotaDocumentError(
            read_problems(error, (), lines or {}, unknown=_unknown_key), name
        ) from error
    plain = checked.model_dump(exclude_none=True)
    specs: Specs = {key: plain[key] for key in ("settings", "default") if plain[key]}
    problems = []
    for section, kind in SECTIONS.items():
        for one, spec in plain[section].items():
            if not _is_name(one):
                problems.append(problem_at((section, one), messages.NOT_A_NAME(), lines or {}))
            specs[f"{kind}:{one}"] = spec
    if problems:
        raise QuotaDocumentError(problems, name)
    return specs


def check_spec(subject: str, spec: object) -> dict[str, Any]:
    """One subject's mapping, checked. Raises QuotaDocumentError."""
    kind, colon, name = subject.partition(":")
    if (
        kind not in _KINDS
        or bool(colon) != (kind in SECTIONS.values())
        or (colon and not _is_name(name))
    ):
        raise QuotaDocumentError(
            [Problem(subject[:80], messages.NOT_A_SUBJECT(known=accounts_known()))]
        )
    try:
        return _KINDS[kind].model_validate(spec).model_dump(exclude_none=True)
    except ValidationError as error:
        raise QuotaDocumentError(
            read_problems(error, (subject,), {}, unknown=partial(_unknown_key, kind=kind)), subject
        ) from error


_TIMED = {"time_limit", "default_time_limit"}


def check_names(
    specs: Specs,
    site: Site,
    people: Collection[str],
    models: Collection[str],
    strict: bool = False,
) -> tuple[Problem, ...]:
    """Whether the names in specs exist: groups and courses in the site file, GPU models in the
    inventory, people among those who have been here. What may come to be is a warning, returned;
    ``strict`` refuses it too.

    Raises QuotaDocumentError.
    """
    known = groups_of_site(site)
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for subject, spec in specs.items():
        scope = of_account(subject)
        if scope and scope.row.absent and scope not in known:
            names = [one.owner for one in known if one.kind == scope.kind]
            problems.append(
                unknown_name(subject, scope.row.absent(name=scope.owner), scope.owner, names)
            )
        if scope and scope.keeper is Keeper.PERSON and scope.owner not in people:
            missing = messages.PERSON_UNKNOWN(name=scope.owner)
            warnings.append(unknown_name(subject, missing, scope.owner, people))
        for key in ("max_by_type", "grp_by_type", "worth"):
            warnings += [
                unknown_name(f"{subject}.{key}", messages.MODEL_UNKNOWN(name=model), model, models)
                for model in spec.get(key, {})
                if model not in models
            ]
    warnings += [
        Problem(subject, messages.NEEDS_TIME_LIMIT())
        for subject, spec in specs.items()
        if {"budget", "grp_budget"} & spec.keys()
        and not _TIMED & (spec.keys() | specs.get(DEFAULT, {}).keys())
    ]
    if problems or (strict and warnings):
        raise QuotaDocumentError(problems + (warnings if strict else []))
    return tuple(warnings)


def endless(specs: Specs) -> tuple[Problem, ...]:
    """A warning where leases need not end: ``specs`` is all that is going to hold."""
    if _TIMED & specs.get(DEFAULT, {}).keys():
        return ()
    return (Problem(DEFAULT, messages.ENDLESS()),)


# -- writing ----------------------------------------------------------------------------------


def to_document(specs: Specs) -> dict[str, Any]:
    """The document that these specs come from; it applies cleanly."""
    document: dict[str, Any] = {"version": 1}
    for key in ("settings", "default"):
        if specs.get(key):
            document[key] = specs[key]
    for section, kind in SECTIONS.items():
        of_kind = {
            subject.partition(":")[2]: spec
            for subject, spec in sorted(specs.items())
            if subject.partition(":")[0] == kind
        }
        if of_kind:
            document[section] = of_kind
    return document


def to_yaml(specs: Specs) -> str:
    """``to_document`` as text."""
    out = io.StringIO()
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = False
    yaml.dump(to_document(specs), out)
    return out.getvalue()


def show_value(value: Any) -> str:
    """A value of the quotas document on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {show_value(item)}" for key, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


# -- errors -----------------------------------------------------------------------------------


def _plain(value: object, path: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> object:
    """The loaded YAML as plain data, with the line of each key in ``lines``."""
    if isinstance(value, CommentedMap):
        result = {}
        for key, item in value.items():
            here = (*path, str(key))
            lines[here] = value.lc.key(key)[0] + 1
            result[str(key)] = _plain(item, here, lines)
        return result
    if isinstance(value, CommentedSeq):
        items = []
        for number, item in enumerate(value):
            here = (*path, str(number))
            lines[here] = value.lc.item(number)[0] + 1
            items.append(_plain(item, here, lines))
        return items
    if isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _unknown_key(path: tuple[str, ...], kind: str = "") -> Problem:
    """What is said of a key that its place does not have."""
    *where, key = path
    model: type[BaseModel] = _KINDS[kind] if kind else QuotaDocument
    if not kind and where:
        section = where.pop(0)
        model = _KINDS[SECTIONS.get(section, section)]
        where = where[1:] if section in SECTIONS else where
    for part in where:
        model = IdleSpec if part == "idle" else BudgetSpec
    if key in AccountSpec.model_fields and model in (EverybodySpec, UserSpec):
        return Problem("", messages.FOR_GROUPS(key=key))
    return unknown_name("", messages.KEY_UNKNOWN(key=key), key, tuple(model.model_fields))


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 200 and name.isprintable() and name == name.strip()


def subjects_in_order(specs: Collection[str]) -> Iterator[str]:
    """Settings, default, groups, courses, people; each by name."""
    order = (*SITE_SUBJECTS, *(row.account for row in SCOPES.values()))
    return iter(
        sorted(specs, key=lambda subject: (order.index(subject.partition(":")[0]), subject))
    )
