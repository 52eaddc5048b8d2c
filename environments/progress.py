"""What a build says while it goes on: steps, percentages and words, one record each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from commons.i18n import Gettext
from commons.messages import Message


@dataclass(frozen=True)
class Progress:
    """One thing that a build has to say.

    Attributes:
        step: which of ``total`` steps; 0 for a remark within the one that goes on.
        percent: of the whole, 0 to 100; never less than before.
        message: what it has to say.
    """

    environment: str
    step: int
    total: int
    percent: int
    message: Message

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data: the message with its code, its parameters and its English."""
        return vars(self) | {"message": self.message.as_json()}

    def in_words(self, gettext: Gettext = str) -> str:
        """One line, in a language."""
        words = self.message.in_words(gettext)
        if not self.step:
            return f"  {words}"
        return f"[{self.environment} {self.step}/{self.total} {self.percent:3d}%] {words}"

    def __str__(self) -> str:
        return self.in_words()


Report = Callable[[Progress], None]


class Meter:
    """Counts the steps of one piece of work; ``weights`` say how long each one takes."""

    def __init__(self, environment: str, report: Report, weights: Sequence[int]) -> None:
        self.environment, self.report = environment, report
        self._ends = [sum(weights[:index]) * 100 // sum(weights) for index in range(len(weights))]
        self._ends.append(100)
        self._step, self._percent = 0, 0

    @property
    def total(self) -> int:
        """How many steps there are."""
        return len(self._ends) - 1

    def step(self, step: int, message: Message) -> None:
        """Begin a step."""
        self._step, self._percent = step, max(self._percent, self._ends[step - 1])
        self._tell(step, message)

    def part(self, done: int, of: int, message: Message) -> None:
        """How far the step has come: ``done`` of ``of``."""
        begin, end = self._ends[self._step - 1], self._ends[self._step]
        self._percent = max(self._percent, begin + (end - begin) * min(done, of) // max(of, 1))
        self._tell(self._step, message)

    def remark(self, message: Message) -> None:
        """Something worth knowing in between."""
        self._tell(0, message)

    def done(self, message: Message) -> None:
        """The last step is over."""
        self._percent = 100
        self._tell(self.total, message)

    def _tell(self, step: int, message: Message) -> None:
        self.report(Progress(self.environment, step, self.total, self._percent, message))
