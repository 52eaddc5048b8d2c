"""What a build says while it goes on: steps, percentages and words, one record each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    """One thing that a build has to say.

    Attributes:
        step: which of ``total`` steps; 0 for a remark within the one that goes on.
        percent: of the whole, 0 to 100; never less than before.
        message: in English, for logs and programs.
        text, values: the same for other languages: what the catalogue has, and what is put in.
    """

    environment: str
    step: int
    total: int
    percent: int
    message: str
    text: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data, in English."""
        return {key: value for key, value in asdict(self).items() if key not in ("text", "values")}

    def __str__(self) -> str:
        if not self.step:
            return f"  {self.message}"
        return f"[{self.environment} {self.step}/{self.total} {self.percent:3d}%] {self.message}"


Report = Callable[[Progress], None]


class Meter:
    """Counts the steps of one piece of work; ``weights`` say how long each one takes."""

    def __init__(self, environment: str, report: Report, weights: Sequence[int]) -> None:
        self.environment, self.report = environment, report
        self._ends = [sum(weights[:index]) * 100 // sum(weights) for index in range(len(weights))]
        self._ends.append(100)
        self._step, self._percent = 0, 0
        self._said: tuple[str, Mapping[str, str]] = ("", {})

    @property
    def total(self) -> int:
        """How many steps there are."""
        return len(self._ends) - 1

    def step(self, step: int, text: str, **values: object) -> None:
        """Begin a step; ``values`` are put into the text, which is translated where it is shown."""
        self._step, self._percent = step, max(self._percent, self._ends[step - 1])
        self._tell(step, text, values)

    def part(self, done: int, of: int, message: str) -> None:
        """How far the step has come: ``done`` of ``of``; other languages say only the step."""
        begin, end = self._ends[self._step - 1], self._ends[self._step]
        self._percent = max(self._percent, begin + (end - begin) * min(done, of) // max(of, 1))
        text, said = self._said
        self.report(
            Progress(self.environment, self._step, self.total, self._percent, message, text, said)
        )

    def remark(self, message: str) -> None:
        """Something worth knowing in between."""
        self._tell(0, message)

    def done(self, text: str, **values: object) -> None:
        """The last step is over."""
        self._percent = 100
        self._tell(self.total, text, values)

    def _tell(self, step: int, text: str, values: Mapping[str, object] | None = None) -> None:
        said = {key: str(value) for key, value in (values or {}).items()}
        message = text.format_map(said) if said else text
        if step:
            self._said = text, said
        self.report(
            Progress(self.environment, step, self.total, self._percent, message, text, said)
        )
