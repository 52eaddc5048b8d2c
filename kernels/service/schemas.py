"""What REST about kernels takes and answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from commons.web.openapi import Reason
from commons.web.operations import Count, Query, Time, Told, upto
from kernels.service.entries import State

# Environments in one answer.
MOST = 5000
# Days that the use of kernels is kept for.
MOST_DAYS = 396


class Place(Told):
    """Which environment it is."""

    source: str = Field(description="image, shared, team-NAME or course-NAME")
    environment: str
    version: str


class ListedKernel(Told):
    """A kernel of an environment."""

    name: str
    display_name: str
    language: str


class Environment(Place):
    """A version of an environment."""

    label: str = Field(description="the source, for people; empty for images")
    prefix: str = Field(description="its path in a user's server")
    python: str | None
    state: State
    reason: str = Field(description="why it is not healthy, and what to do")
    reasons: list[Reason]
    kernels: list[ListedKernel]
    last_used: Time | None


class Environments(Told):
    """A part of the list."""

    total: Count
    offset: Count
    limit: Count
    environments: list[Environment]


class Versions(Told):
    """Each version of an environment."""

    versions: list[Environment]


class Kernel(Place, ListedKernel):
    """A kernel of a version of an environment."""

    python: str | None
    prefix: str
    state: State


class Kernels(Told):
    """Kernels that one may see."""

    kernels: list[Kernel]


class Refreshed(Told):
    """What a pass did."""

    written: Count
    removed: Count
    environments: Count
    failed: list[str]
    problems: list[str]


class Use(Place):
    """How often a kernel was started."""

    kernel: str
    starts: Count
    people: Count
    last_used: Time


class Uses(Told):
    """Starts of kernels."""

    since: str = Field(description="the first day")
    everyone: bool = Field(description="whether everybody's are counted")
    uses: list[Use]


class Counted(Told):
    """What became of a report."""

    counted: Count
    ignored: Count


class Health(Told):
    """How the registry is; no names."""

    status: Literal["ok", "error"]
    registered: Count = Field(description="kernels")
    environments: Count
    sources: Count
    sources_out_of_sight: Count
    problems: Count
    listeners: Count
    last_pass: str | None
    error: Any = Field(None, description="why the last pass failed")


# -- what is asked ----------------------------------------------------------------------------


class Chosen(Query):
    """Which environments."""

    q: str = Field("", description="words to look for")
    source: str = Field("", description="of this source alone")
    state: State | Literal[""] = Field("", description="in this state alone")
    offset: int = Field(0, ge=0, le=10**9, description="how many to pass over")
    limit: upto(MOST, 1) = Field(1000, description="how many at most")  # type: ignore[valid-type]


class Days(Query):
    """Of which time."""

    days: upto(MOST_DAYS, 1) = Field(30, description="how many days back")  # type: ignore[valid-type]


class After(Query):
    """From where on."""

    last_event_id: str | None = Field(
        None, description="as Last-Event-ID, for who cannot set headers"
    )
