"""``servers.culling``: when servers that nobody uses, or that are old, are stopped."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field, field_validator, model_validator

from commons.errors import WrongValue
from commons.site.parts import Name, Section
from commons.units import parse_duration

Duration = str | int


class CullingRule(Section):
    """One rule; of several, the first that fits a server holds.

    ``sizes``, ``teams``, ``courses`` and ``gpus`` say which servers it fits: of these sizes, of
    people in one of these teams or courses, with GPUs or without; what is left out fits all.
    Durations as ``90m``, ``8h``, ``3d``.
    """

    sizes: list[Name] = []
    teams: list[Name] = []
    courses: list[Name] = []
    gpus: bool | None = None
    after: Duration | None = Field(None, description="idle for this long, the warning included")
    max_age: Duration | None = Field(None, description="since its start, whatever goes on in it")
    warn: Duration = Field("15m", description="from the warning to the stop")
    keep: Duration = Field("4h", description="how long “Keep” puts the stop of an idle one off")
    keep_at_most: Duration = Field("24h", description="the most that one server is kept so in all")
    over_busy: bool = Field(False, description="stop also where kernels are at work")

    @field_validator("after", "max_age", "warn", "keep", "keep_at_most")
    @classmethod
    def _is_duration(cls, value: Duration | None) -> Duration | None:
        if value is not None:
            try:
                parse_duration(value)
            except WrongValue as error:
                raise ValueError(f"{value!r} {error}") from error
        return value

    @model_validator(mode="after")
    def _warns_in_time(self) -> CullingRule:
        for name in ("after", "max_age"):
            limit = getattr(self, name)
            if limit is not None and parse_duration(limit) <= self.warn_seconds:
                raise ValueError(f"{name}: must be longer than warn ({self.warn})")
        return self

    @cached_property
    def after_seconds(self) -> float | None:
        """``after``; None: never."""
        return None if self.after is None else float(parse_duration(self.after))

    @cached_property
    def age_seconds(self) -> float | None:
        """``max_age``; None: any."""
        return None if self.max_age is None else float(parse_duration(self.max_age))

    @cached_property
    def warn_seconds(self) -> float:
        """``warn``."""
        return float(parse_duration(self.warn))

    @cached_property
    def keep_seconds(self) -> tuple[float, float]:
        """``keep`` and ``keep_at_most``."""
        return float(parse_duration(self.keep)), float(parse_duration(self.keep_at_most))
