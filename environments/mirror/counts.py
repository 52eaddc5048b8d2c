"""What the mirror saved: counted from nginx's lines, in one file for doctor, page and metrics."""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("conda", "pypi")
FILE = "mirror.json"  # below data/health
OLD = 180.0  # seconds after which what is written there is of a mirror that does not run
_LINE = re.compile(r"[^{]{0,200}(\{.{1,8000}\})\s*")
_FROM_CACHE = {"HIT": "hits", "STALE": "stale", "UPDATING": "hits", "REVALIDATED": "hits"}


@dataclass
class Count:
    """Of one kind of package, since ``Counts.since``; bytes are those that clients got."""

    hits: int = 0
    stale: int = 0  # given out although upstream did not answer
    misses: int = 0
    failed: int = 0
    from_cache: int = 0
    from_outside: int = 0

    @property
    def asked(self) -> int:
        return self.hits + self.stale + self.misses

    @property
    def rate(self) -> float:
        """The share that came out of the cache, from 0 to 1."""
        return (self.hits + self.stale) / self.asked if self.asked else 0.0


@dataclass
class Cache:
    """What is kept, in bytes."""

    bytes: int = 0
    files: int = 0
    limit: int = 0
    free: int = 0


@dataclass
class Known:
    """All that the file says.

    Attributes:
        at, since: seconds since the epoch; 0: the mirror has never run.
        places: what is known of each upstream, by its host.
        images: bytes of images that are kept.
    """

    at: float = 0
    since: float = 0
    kinds: dict[str, Count] = field(default_factory=lambda: {kind: Count() for kind in KINDS})
    cache: Cache = field(default_factory=Cache)
    places: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: int = 0

    @property
    def saved(self) -> int:
        """Bytes that did not have to come from outside."""
        return sum(count.from_cache for count in self.kinds.values())

    @property
    def rate(self) -> float:
        asked = sum(count.asked for count in self.kinds.values())
        found = sum(count.hits + count.stale for count in self.kinds.values())
        return found / asked if asked else 0.0

    def runs(self, now: float) -> bool:
        return now - self.at < OLD

    def as_json(self) -> dict[str, Any]:
        """The file, with what follows from it."""
        return {**asdict(self), "saved": self.saved, "rate": round(self.rate, 4)}


def read(health: Path) -> Known:
    """What was written last; an empty one where nothing of use is there."""
    try:
        with (health / FILE).open("rb") as file:
            found = json.loads(file.read(2**20))
        return Known(
            float(found["at"]),
            float(found["since"]),
            {kind: Count(**found["kinds"].get(kind, {})) for kind in KINDS},
            Cache(**found["cache"]),
            {str(host): dict(one) for host, one in found["places"].items()},
            int(found.get("images", 0)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Known()


class Counts:
    """Counts for many threads, and goes on from where the last process was."""

    def __init__(self, health: Path) -> None:
        self.health = health
        self._known = read(health)
        self._known.since = self._known.since or time.time()
        self._lock = threading.Lock()

    def line(self, text: str) -> None:
        """Take one line of nginx's; what is none of ours is not counted."""
        found = _LINE.fullmatch(text)
        if not found:
            return
        try:
            said = json.loads(found[1])
            kind, status = str(said["uri"]).split("/")[1], int(said["status"])
            size, cached = int(said["bytes"]), str(said["cache"])
        except (ValueError, KeyError, IndexError, TypeError):
            return
        if kind not in KINDS:
            return
        with self._lock:
            count = self._known.kinds[kind]
            if status >= 500:
                count.failed += 1
            elif status < 400 and (name := _FROM_CACHE.get(cached)):
                setattr(count, name, getattr(count, name) + 1)
                count.from_cache += size
            elif status < 400:
                count.misses += 1
                count.from_outside += size

    def write(self, cache: Cache, places: Mapping[str, Mapping[str, Any]], images: int = 0) -> None:
        """Put the file in the place of the one before. Raises OSError."""
        with self._lock:
            known = self._known
            known.at, known.cache, known.images = time.time(), cache, images
            known.places = {host: dict(one) for host, one in places.items()}
            text = json.dumps(asdict(known))
        descriptor, name = tempfile.mkstemp(dir=self.health, prefix=".mirror-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).chmod(0o644)
            os.replace(name, self.health / FILE)
        except BaseException:
            os.unlink(name)
            raise


def size_of(folder: Path) -> tuple[int, int]:
    """Bytes and number of files below a folder, as the disk counts them."""
    total = files = 0
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(Path(entry.path))
                        else:
                            total += entry.stat(follow_symlinks=False).st_blocks * 512
                            files += 1
                    except FileNotFoundError:
                        continue
        except OSError:
            continue
    return total, files
