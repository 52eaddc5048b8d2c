"""Trying and timing what the mirror asks: each upstream of each channel, of PyPI and of images."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from commons.site import Site
from environments.mirror.fetch import Cut, Fetcher, Limits
from environments.mirror.routes import Wanted

MOST = 2**20  # bytes that are read of each
LONGEST = 10.0  # seconds for them
LIMITS = Limits(connect=5, silence=10, headers=15)
AT_ONCE = 16


@dataclass(frozen=True)
class Tried:
    """What came of one upstream.

    Attributes:
        what: the channel's name, ``PyPI`` or ``images``.
        problem: empty where it answers as it should.
        milliseconds: to the first bytes of the answer.
        speed: bytes a second of what was read; 0 where that was too little to tell.
    """

    what: str
    place: str
    problem: str = ""
    milliseconds: int = 0
    speed: int = 0

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "answers": not self.problem}


def everything(site: Site) -> list[Tried]:
    """All upstreams of a site, side by side, in the order in which they are asked."""
    assert site.mirror is not None
    asked: list[tuple[str, str]] = [
        (channel, place)
        for channel, places in site.mirror.places(site.written).items()
        for place in places
    ]
    indexes = site.mirror.indexes(site.written)
    asked += [("PyPI", index) for index in indexes]
    if site.mirror.images:
        asked.append(("images", site.mirror.images_url))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda one: tried(*one), asked))


def tried(what: str, place: str) -> Tried:
    """Ask one upstream for what every one has."""
    fetcher, begin = Fetcher(LIMITS, (place,)), time.monotonic()
    if what == "PyPI":
        wanted = [Wanted("pypi", (f"{place}/pip/",), 0, page=True, project="pip")]
    elif what == "images":
        return _registry(fetcher, place)
    else:
        zst, plain = (f"{place}/noarch/repodata.json{end}" for end in (".zst", ""))
        wanted = [
            Wanted("conda", (zst,), 0, begins=(b"\x28\xb5\x2f\xfd",)),
            Wanted("conda", (plain,), 0, begins=(b"{",)),
        ]
    answer = fetcher.fetch(wanted[0])
    if answer.status == 404 and wanted[1:]:
        answer = fetcher.fetch(wanted[1])
    if answer.status != 200:
        said = b"".join(answer.chunks).decode("utf-8", "replace").strip()
        return Tried(what, place, said.removeprefix(f"{urlsplit(place).netloc}: "))
    came, size, first = time.monotonic(), 0, time.monotonic() - begin
    try:
        for piece in answer.chunks:
            size += len(piece)
            if size > MOST or time.monotonic() - came > LONGEST:
                break
    except Cut as cut:
        return Tried(what, place, str(cut), round(first * 1000))
    finally:
        close = getattr(answer.chunks, "close", None)
        if close is not None:
            close()
    spent = time.monotonic() - came
    speed = round(size / spent) if size > MOST // 4 and spent > 0 else 0
    return Tried(what, place, "", round(first * 1000), speed)


def _registry(fetcher: Fetcher, place: str) -> Tried:
    """Whether a registry speaks the protocol of one: it may want a login for what follows."""
    begin = time.monotonic()
    answer = fetcher.fetch(Wanted("images", (f"{place}/v2/",), 0))
    said = b"".join(answer.chunks).decode("utf-8", "replace").strip()
    problem = "" if answer.status == 200 or said.endswith("with status 401") else said
    problem = problem.removeprefix(f"{urlsplit(place).netloc}: ")
    return Tried("images", place, problem, round((time.monotonic() - begin) * 1000))


def silent(rows: Iterable[Tried]) -> list[str]:
    """What no upstream has."""
    good: dict[str, bool] = {}
    for one in rows:
        good[one.what] = good.get(one.what, False) or not one.problem
    return [what for what, answers in good.items() if not answers]


def faster(rows: Iterable[Tried]) -> Iterator[tuple[Tried, Tried]]:
    """Pairs of one that answers twice as quickly as the first of the same, and that first."""
    first: dict[str, Tried] = {}
    for one in rows:
        if one.problem:
            continue
        known = first.setdefault(one.what, one)
        if one.milliseconds * 2 + 50 < known.milliseconds:
            yield one, known
