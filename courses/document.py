"""``course.yaml``: a course as data, checked by key and line.

Times are wall times in the course's zone: ten o'clock stays ten o'clock when clocks change. What
instructors may do with the site's machines an administrator says under ``granted``; the rest is
theirs. What is exported applies cleanly and changes nothing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from ruamel.yaml import YAML

from commons.errors import WrongValue
from commons.i18n import N_
from commons.messages import Text
from commons.scopes import NAME, Scope, groups_of_site
from commons.site import Site
from commons.site.parts import parse_bytes
from commons.units import parse_duration, show_duration
from spawner.gpu.ledger.reservations import NOT_A_DAY, NOT_A_WEEKDAY, WEEKDAYS, Weekday
from spawner.gpu.quotas import messages
from spawner.gpu.quotas.document import DURATION, Count, Label, TimeZone, read_yaml
from spawner.gpu.quotas.problems import Problem, ProblemsError, read_problems, unknown_name

VERSION = 1
LONGEST_TERM = 400  # days
LONGEST_SESSION = 12 * 3600  # seconds
MOST = 200  # entries of each list
LONGEST_LATE = 60 * 86400  # seconds
LONGEST_GRACE = 400 * 86400  # seconds from the term's end until it is frozen
LEAST_ROOM = 10 * 2**20  # bytes
LARGEST = 2 * 2**30  # bytes of one hand-in
MOST_FILES = 10_000

NOT_A_TIME = Text("not_a_time", N_("must be a time of the day, such as 10:00"))
NOT_A_COURSE = Text("not_a_course", N_("must be a course’s short name, such as ml101"))
TERM_REVERSED = Text("term_reversed", N_("the last day must not be before the first"))
TERM_TOO_LONG = Text("term_too_long", N_("must be at most {days} days"))
OUTSIDE_TERM = Text("course_outside_term", N_("{day} is not in the term"))
SESSION_TOO_LONG = Text("session_too_long", N_("must be from a minute to {hours} hours"))
WARM_TOO_LONG = Text("course_warm_too_long", N_("must be from a minute to four hours"))
LISTED_TWICE = Text("course_list_twice", N_("{value} is there twice"))
NOT_GRANTED_GPUS = Text(
    "course_gpus_not_granted",
    N_("An administrator granted this course {granted} GPUs; ask one for more."),
)
NOT_GRANTED = Text(
    "course_not_granted",
    N_("is not among what an administrator granted this course; ask one for it."),
)
MORE_EACH_THAN_RESERVED = Text(
    "course_each_over_reserved", N_("must not be more than gpus.reserved, where that is set")
)
NOT_A_HANDIN = Text("not_a_handin", N_("must be a short name, such as hw1"))
NOT_A_MOMENT = Text("handin_due_wrong", N_("must be a day and a time, such as 2026-11-03 23:59"))
NOT_A_PATH = Text(
    "not_a_home_path",
    N_(
        "must be a file or folder of the home, such as hw1 or course/hw1, without a slash before it"
    ),
)
LATE_TOO_LONG = Text("handin_late_long", N_("must be at most {days} days"))
HANDIN_SIZE = Text("handin_size", N_("must be from 1 byte to {most}, such as 100M"))
HANDIN_FILES = Text("handin_files", N_("must be from 1 to {most}"))
NOT_MATERIALS = Text(
    "course_materials_wrong",
    N_("must be folder, or the address of a repository: {example}"),
)
NOT_A_REPOSITORY = Text(
    "course_repository_wrong",
    N_("must be https://HOST/PATH, without a login in it"),
)
NOT_A_BRANCH = Text("course_branch_wrong", N_("must be a branch’s name, such as main"))
NOT_AN_EXAM = Text(
    "exam_name_wrong",
    N_("must be a short name of small letters, digits and hyphens, such as midterm"),
)
EXAM_NOT_PINNED = Text(
    "exam_not_pinned",
    N_("must name an environment of an image with its version, such as py313-data:3"),
)
NOT_A_ROOM = Text("course_storage_wrong", N_("must be at least 10M, such as 50G"))
MORE_THAN_GRANTED = Text(
    "course_storage_not_granted",
    N_("This course may have {granted} of the disk at most; ask an administrator for more."),
)
OTHER_COURSE = Text("course_other", N_("This file is about “{found}”, not about “{wanted}”."))


class CourseError(ProblemsError):
    """A course.yaml that cannot be used; ``problems`` say where and why."""

    text = Text("course_wrong", N_("This course cannot be saved."))


def _day(value: object) -> object:
    if type(value) is date:
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise WrongValue(NOT_A_DAY()) from None


def _time(value: object) -> object:
    if isinstance(value, time):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", value):
        raise WrongValue(NOT_A_TIME())
    hours, minutes = value.split(":")
    return time(int(hours), int(minutes))


def _weekday(value: object) -> object:
    if isinstance(value, str) and value.lower()[:3] in WEEKDAYS:
        return value.lower()[:3]
    raise WrongValue(NOT_A_WEEKDAY())


def _session(value: object) -> object:
    seconds = parse_duration(value)
    if not 60 <= seconds <= LONGEST_SESSION:
        raise WrongValue(SESSION_TOO_LONG(hours=LONGEST_SESSION // 3600))
    return show_duration(seconds)


def _ahead(value: object) -> object:
    seconds = parse_duration(value)
    if not 60 <= seconds <= 4 * 3600:
        raise WrongValue(WARM_TOO_LONG())
    return show_duration(seconds)


def _handin(value: object) -> object:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise WrongValue(NOT_A_HANDIN())
    return value


def _moment(value: object) -> object:
    """A day alone is until its end."""
    if isinstance(value, datetime):  # as YAML reads one that has seconds
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, date):
        return f"{value.isoformat()} 23:59"
    try:
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            return _moment(date.fromisoformat(value))
        return f"{datetime.strptime(str(value).replace('T', ' '), '%Y-%m-%d %H:%M'):%Y-%m-%d %H:%M}"
    except ValueError:
        raise WrongValue(NOT_A_MOMENT()) from None


def _home_path(value: object) -> object:
    """Never out of the home, and nothing that two people would read differently."""
    text = value.rstrip("/") if isinstance(value, str) else ""
    text = text.removeprefix("~/").removeprefix("./")
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts) or len(parts) > 16 or len(text) > 500:
        raise WrongValue(NOT_A_PATH())
    if not text.isprintable():
        raise WrongValue(NOT_A_PATH())
    return text


def check_path(value: str) -> str:
    """A file or folder of a home. Raises WrongValue."""
    return str(_home_path(value))


def _size(value: object) -> object:
    try:
        size = parse_bytes(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        size = 0
    if not 1 <= size <= LARGEST:
        raise WrongValue(HANDIN_SIZE(most="2G"))
    return str(value)


def _files(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_FILES:
        raise WrongValue(HANDIN_FILES(most=MOST_FILES))
    return value


def _course(value: object) -> object:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise WrongValue(NOT_A_COURSE())
    return value


def _exam_name(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", value):
        raise WrongValue(NOT_AN_EXAM())
    return value


def _pinned(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9._-]+:[A-Za-z0-9._-]+", value):
        raise WrongValue(EXAM_NOT_PINNED())
    return value


def _once(values: list[Any]) -> list[Any]:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise WrongValue(LISTED_TWICE(value=str(value)))
    return values


def _named_once(values: list[Any]) -> list[Any]:
    _once([value.name for value in values])
    return values


def _late(value: object) -> object:
    seconds = parse_duration(value)
    if seconds > LONGEST_LATE:
        raise WrongValue(LATE_TOO_LONG(days=LONGEST_LATE // 86400))
    return show_duration(seconds)


def _grace(value: object) -> object:
    seconds = parse_duration(value)
    if seconds > LONGEST_GRACE:
        raise WrongValue(LATE_TOO_LONG(days=LONGEST_GRACE // 86400))
    return show_duration(seconds)


def _room(value: object) -> object:
    try:
        size = parse_bytes(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        size = 0
    if size < LEAST_ROOM:
        raise WrongValue(NOT_A_ROOM())
    return str(value)


_TEXT = WithJsonSchema({"type": "string"})
Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
WallTime = Annotated[time, BeforeValidator(_time), _TEXT]
Length = Annotated[str, BeforeValidator(_session), DURATION]
Ahead = Annotated[str, BeforeValidator(_ahead), DURATION]
Late = Annotated[str, BeforeValidator(_late), DURATION]
Days = Annotated[list[Day], AfterValidator(_once)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Titles(_Part):
    """What people call it; without ``zh`` the English one serves."""

    en: Label
    zh: Label | None = None

    def called(self, language: str) -> str:
        """The one of a language."""
        return (self.zh if language.startswith("zh") else None) or self.en


class Term(_Part):
    """From the first day to the last, both included."""

    first: Day
    last: Day

    @model_validator(mode="after")
    def _in_order(self) -> Term:
        if self.last < self.first:
            raise WrongValue(TERM_REVERSED())
        if (self.last - self.first).days >= LONGEST_TERM:
            raise WrongValue(TERM_TOO_LONG(days=LONGEST_TERM))
        return self


class Weekly(_Part):
    """A time of each week."""

    weekdays: Annotated[
        list[Annotated[Weekday, BeforeValidator(_weekday)]], AfterValidator(_once)
    ] = Field(min_length=1, max_length=7)
    starts: WallTime
    duration: Length


class Extra(_Part):
    """One more time, or an exam."""

    day: Day
    starts: WallTime
    duration: Length


class Gpus(_Part):
    """GPUs of each student's server, and how many the class has set aside in its hours."""

    each: Count = 0
    type: str = Field("", max_length=80)
    reserved: Count = 0

    @model_validator(mode="after")
    def _fit(self) -> Gpus:
        if self.reserved and self.each > self.reserved:
            raise WrongValue(MORE_EACH_THAN_RESERVED())
        return self


class Warm(_Part):
    """Servers that run before the class does: from ``before`` on; who has not come ``hold`` after
    the beginning gives them back.
    """

    before: Ahead = "10m"
    hold: Ahead = "30m"


def _repository(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"https://[^/\s@]+/[^\s@]+", value):
        raise WrongValue(NOT_A_REPOSITORY())
    if len(value) > 500 or not value.isprintable():
        raise WrongValue(NOT_A_REPOSITORY())
    return value


def _branch(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}", value):
        raise WrongValue(NOT_A_BRANCH())
    return value


class Materials(_Part):
    """What is given out: a branch of a git repository (its first one where none is named), or
    ``folder``: what the instructors put into ``materials`` of their area.
    """

    git: Annotated[str, BeforeValidator(_repository)] = ""
    branch: Annotated[str, BeforeValidator(_branch)] = ""

    @model_validator(mode="before")
    @classmethod
    def _said(cls, value: object) -> object:
        if value == "folder":
            return {}
        if not isinstance(value, Mapping) or not value.get("git"):
            raise WrongValue(NOT_MATERIALS(example="{git: https://git.example.org/ml101.git}"))
        return {key: one for key, one in value.items() if one is not None}

    @model_serializer(mode="wrap")
    def _plain(self, usual: SerializerFunctionWrapHandler) -> Any:
        return usual(self) if self.git else "folder"

    def __str__(self) -> str:
        return f"{self.git} {self.branch}".strip() or "folder"


class Granted(_Part):
    """What an administrator lets the instructors have. Empty lists: whatever the site offers."""

    gpus: Count = Field(0, description="most that may be reserved")
    sizes: Annotated[list[str], AfterValidator(_once)] = Field([], max_length=MOST)
    environments: Annotated[list[str], AfterValidator(_once)] = Field([], max_length=MOST)
    storage: Annotated[str, BeforeValidator(_room)] = Field(
        "", description="most of the disk, in place of the site’s own limit"
    )


class End(_Part):
    """What happens after the term: ``freeze``: how long after its last day nobody writes any more
    (without it, when somebody says so); ``archive``: whether one is made then.
    """

    freeze: Annotated[str, BeforeValidator(_grace), DURATION] | None = None
    archive: bool = True


class HandIn(_Part):
    """What students hand in, and until when; ``due`` is in the course's zone, to that minute's end.

    ``late``: how long after ``due`` it is still taken, and marked as late. ``again``: as often as
    they like, until then. ``groups``: one of a group does so for all of it.
    """

    name: Annotated[str, BeforeValidator(_handin)]
    title: Titles | None = None
    due: Annotated[str, BeforeValidator(_moment)] = Field(description="2026-11-03 23:59")
    late: Late | None = None
    path: Annotated[str, BeforeValidator(_home_path)] = Field("", description="default: its name")
    size: Annotated[str, BeforeValidator(_size)] = "100M"
    files: Annotated[int, BeforeValidator(_files)] = 1000
    again: bool = True
    groups: bool = False

    def called(self, language: str) -> str:
        """Its title in a language; its name where it has none."""
        if self.title is None:
            return self.name
        return (self.title.zh if language.startswith("zh") else None) or self.title.en

    @property
    def bytes(self) -> int:
        """How much may be handed in at once."""
        return parse_bytes(self.size)


class Exam(_Part):
    """An exam: one server each, with one version of one environment, by the clock.

    ``extra_time`` is by login name.
    """

    name: Annotated[str, BeforeValidator(_exam_name), _TEXT] = Field(description="in its address")
    title: Titles
    day: Day
    starts: WallTime
    duration: Length
    environment: Annotated[str, BeforeValidator(_pinned), _TEXT] = Field(description="name:version")
    size: str = Field("", max_length=80)
    extra_time: dict[Annotated[str, Field(max_length=255)], Length] = Field({}, max_length=5000)

    @property
    def options(self) -> dict[str, Any]:
        """What its servers are started with, as user_options, but for the course."""
        found = {"environment": self.environment, "size": self.size}
        return {key: value for key, value in found.items() if value}

    def called(self, language: str) -> str:
        """Its title in a language."""
        return self.title.called(language)


def _other_names(values: list[Exam]) -> list[Exam]:
    _once([one.name for one in values])
    return values


class CourseSpec(_Part):
    """A course."""

    version: Literal[1]
    course: Annotated[str, BeforeValidator(_course)] = Field(description="as the site file has it")
    title: Titles
    timezone: TimeZone = Field(description="IANA name, such as Europe/Berlin")
    term: Term
    sessions: list[Weekly] = Field([], max_length=20)
    extra: list[Extra] = Field([], max_length=MOST)
    days_off: Days = Field([], max_length=MOST)
    environment: str = Field("", max_length=200, description="name:version holds for the term")
    size: str = Field("", max_length=80)
    gpus: Gpus = Gpus()
    warm: Warm | None = None
    handins: Annotated[list[HandIn], AfterValidator(_named_once)] = Field([], max_length=MOST)
    materials: Materials | None = None
    exams: Annotated[list[Exam], AfterValidator(_other_names)] = Field([], max_length=MOST)
    end: End | None = None
    storage: Annotated[str, BeforeValidator(_room)] = Field(
        "", description="most that its folder may have of the disk, such as 50G"
    )
    granted: Granted = Granted()

    @model_validator(mode="after")
    def _in_term(self) -> CourseSpec:
        days = [*self.days_off, *(one.day for one in self.extra), *(e.day for e in self.exams)]
        for day in days:
            if not self.term.first <= day <= self.term.last:
                raise WrongValue(OUTSIDE_TERM(day=day.isoformat()))
        return self

    @property
    def scope(self) -> Scope:
        """The course among the scopes."""
        return Scope("course", self.course)

    @property
    def options(self) -> dict[str, Any]:
        """What a student's server is started with, as user_options."""
        wanted: dict[str, Any] = {"course": self.course}
        if self.environment:
            wanted["environment"] = self.environment
        if self.size:
            wanted["size"] = self.size
        if self.gpus.each:
            wanted["gpus"] = self.gpus.each
            wanted |= {"gpu_type": self.gpus.type} if self.gpus.type else {}
        return wanted

    def called(self, language: str) -> str:
        """Its title in a language."""
        return self.title.called(language)


def read_course(text: str, name: str = "course.yaml") -> CourseSpec:
    """A course from YAML (or JSON). Raises CourseError with each wrong key and its line."""
    plain, lines = read_yaml(text, CourseError, name)
    return check_course(plain, name, lines)


def check_course(
    document: object, name: str = "", lines: Mapping[tuple[str, ...], int] | None = None
) -> CourseSpec:
    """A course from what is read already. Raises CourseError."""
    if not isinstance(document, Mapping):
        raise CourseError([Problem("", messages.NOT_A_MAPPING())], name)
    filled = {key: value for key, value in document.items() if value is not None}
    try:
        return CourseSpec.model_validate(filled)
    except ValidationError as error:
        raise CourseError(read_problems(error, (), lines or {}), name) from error


def check_in_site(scope: Scope, site: Site) -> None:
    """Raises CourseError where the site file has no such course."""
    known = [one for one in groups_of_site(site) if one.kind == scope.kind]
    if scope not in known:
        assert scope.row.absent is not None
        absent = scope.row.absent(name=scope.owner)
        names = [one.owner for one in known]
        raise CourseError([unknown_name("course", absent, scope.owner, names)])


def check_granted(spec: CourseSpec, site: Site) -> None:
    """Whether there is such a course, and it asks for no more than was granted.

    Raises CourseError.
    """
    check_in_site(spec.scope, site)
    problems = []
    if spec.gpus.reserved > spec.granted.gpus:
        problems.append(Problem("gpus.reserved", NOT_GRANTED_GPUS(granted=spec.granted.gpus)))
    most = spec.granted.storage or site.storage.courses
    if spec.storage and most and parse_bytes(spec.storage) > parse_bytes(most):
        problems.append(Problem("storage", MORE_THAN_GRANTED(granted=most)))
    asked = [("", spec.environment, spec.size)]
    asked += [(f"exams.{n}.", one.environment, one.size) for n, one in enumerate(spec.exams)]
    for where, environment, size in asked:
        for key, value, granted in (
            ("size", size, spec.granted.sizes),
            ("environment", environment.partition(":")[0], spec.granted.environments),
        ):
            if granted and value not in granted:
                problems.append(unknown_name(f"{where}{key}", NOT_GRANTED(), value, granted))
    if problems:
        raise CourseError(problems)


def to_plain(spec: CourseSpec) -> dict[str, Any]:
    """The document as plain data, without what is the default anyway."""
    plain = spec.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    for one in (one for key in ("sessions", "extra", "exams") for one in plain.get(key, ())):
        one["starts"] = one["starts"][:5]
    return {**{"version": VERSION}, **plain}


def to_yaml(spec: CourseSpec) -> str:
    """``to_plain`` as text."""
    out = io.StringIO()
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.dump(to_plain(spec), out)
    return out.getvalue()
