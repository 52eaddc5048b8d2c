"""From the chains to a target: nothing lost, and nothing twice where the target can tell.

What a target has is a place in each writer's files, kept in ``data/audit/targets/NAME.json`` after
the target has said so. A kill between its word and ours sends one batch again: Elasticsearch drops
it by the events' ids; elsewhere writer and ``event.sequence`` tell it.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from commons.audit import reading
from commons.audit.chain import MAX_LINE, files, parse
from hub_ext.audit.targets import NotSent, Refused, Target

LINES, BYTES = 500, 2**20  # of one batch
EVERY = 1.0  # seconds between two looks for something new
LONGEST = 300.0  # seconds between two tries, unless the target asks for more

log = logging.getLogger("labcommons.audit.shipper")


@dataclass
class Place:
    """Up to where a target has a writer's events: a file, and a byte in it."""

    file: str = ""
    offset: int = 0


@dataclass
class Standing:
    """What is known of a target.

    Attributes:
        places: by writer.
        sent, refused: events in all.
        problem, since: why nothing is sent, and since when; "" where all is well.
    """

    places: dict[str, Place] = field(default_factory=dict)
    sent: int = 0
    refused: int = 0
    problem: str = ""
    since: str = ""
    last: str = ""

    @classmethod
    def read(cls, path: Path) -> Standing:
        """Raises ValueError for a file that is none of ours; a new one where there is none."""
        try:
            said: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return cls()
        try:
            places = {writer: Place(**place) for writer, place in said.pop("places").items()}
            return cls(places=places, **said)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error

    def write(self, path: Path) -> None:
        """All of it or nothing, and on the disk."""
        new = path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)


class Shipper:
    """Sends what is new to one target.

    Args:
        root: of all chains.
        tell: gets an event's outcome and details, when the target begins or ceases to answer.
    """

    def __init__(
        self, root: Path, target: Target, tell: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self.root, self.target, self._tell = root, target, tell
        self.name = target.settings.name
        self.path = root / "targets" / f"{self.name}.json"
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.standing = Standing.read(self.path)
        self._failed = 0
        self._most = LINES

    def run(self, stop: threading.Event) -> None:
        """Until it is stopped."""
        pause = 0.0
        while not stop.wait(pause):
            pause = self.step()

    def step(self) -> float:
        """Send one batch, if there is something; the seconds until the next."""
        lines, places = self._batch()
        if not lines:
            if places != self.standing.places:
                self.standing.places = places
                self.standing.write(self.path)
            return EVERY
        try:
            refused = self._send(lines)
        except NotSent as error:
            return self._wait(error, len(lines))
        standing = self.standing
        for one in refused:
            log.error("%s does not take an event (%s): %s", self.name, one.why, one.line.decode())
        if refused:
            self._tell("failure", {"target": self.name, "refused": len(refused),
                                   "why": refused[0].why})  # fmt: skip
        back = bool(standing.problem)
        standing.places = places
        standing.sent += len(lines) - len(refused)
        standing.refused += len(refused)
        standing.problem = standing.since = ""
        standing.last = _now()
        standing.write(self.path)
        self._failed, self._most = 0, min(LINES, self._most * 2)
        if back:
            log.warning("%s answers again", self.name)
            self._tell("success", {"target": self.name})
        return 0.0

    def _send(self, lines: list[bytes]) -> list[Refused]:
        try:
            return self.target.send(lines)
        except NotSent as error:
            if error.of_these and len(lines) == 1:
                return [Refused(lines[0], str(error))]
            raise

    def _wait(self, error: NotSent, count: int) -> float:
        self._failed += 1
        self._most = max(1, count // 2) if error.of_these else self._most
        new = not self.standing.problem
        self.standing.problem = str(error)[:500]
        if new:
            self.standing.since = _now()
            log.error("%s does not answer: %s", self.name, error)
            self._tell("failure", {"target": self.name, "why": str(error)[:200]})
        self.standing.write(self.path)
        if error.of_these and count > 1:
            return 0.0
        backoff = min(LONGEST, 2.0 ** min(self._failed, 9)) * random.uniform(0.5, 1.0)  # noqa: S311
        return max(error.wait, backoff)

    def _batch(self) -> tuple[list[bytes], dict[str, Place]]:
        """What comes next, and the places after it."""
        lines: list[bytes] = []
        places = dict(self.standing.places)
        left = BYTES
        for writer in reading.writers(self.root):
            if writer == reading.BEFORE:
                continue
            place = places.get(writer, Place())
            for path in files(self.root / writer):
                if path.name < place.file:
                    continue
                if path.name > place.file:
                    place = Place(path.name, 0)
                found, offset = _whole_lines(path, place.offset, left, self._most - len(lines))
                place = Place(path.name, offset)
                lines += [line for line in found if parse(line) is not None]
                left -= sum(map(len, found))
                if left <= 0 or len(lines) >= self._most:
                    places[writer] = place
                    return lines, places
            if place.file:
                places[writer] = place
        return lines, places

    def behind(self) -> int:
        """Bytes that the target does not have yet."""
        total = 0
        for writer in reading.writers(self.root):
            place = self.standing.places.get(writer, Place())
            for path in files(self.root / writer):
                if writer != reading.BEFORE and path.name >= place.file:
                    size = path.stat().st_size
                    total += size - (place.offset if path.name == place.file else 0)
        return total


def _whole_lines(path: Path, offset: int, most: int, count: int) -> tuple[list[bytes], int]:
    """Lines from a byte on, without what has no newline yet; and where the next begins."""
    found: list[bytes] = []
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < offset:
            return [], offset  # somebody shortened it: `audit verify` says so
        file.seek(offset)
        while most > 0 and len(found) < count:
            line = file.readline(8 * MAX_LINE)
            if not line.endswith(b"\n") and len(line) < 8 * MAX_LINE:
                break
            offset += len(line)
            most -= len(line)
            found.append(line.removesuffix(b"\n"))
    return found, offset


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
