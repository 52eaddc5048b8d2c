"""What is free when: counts against a limit, and the slots of devices, over time.

Both know what runs now and what is planned; planning only ever takes away. Times are seconds
since 1970, ends may be ``inf``.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from spawner.gpu.devices import Device
from spawner.gpu.state import Slot, Subject, Window

INF = math.inf
Gap = tuple[float, float]


class Profile:
    """How much of a limit is held at each moment, as a step function.

    Args:
        now: where it begins.
        cap: the most that may be held at once.
        held: ``(end, count)`` of what runs.
    """

    __slots__ = ("_levels", "_sum", "_times", "cap")

    def __init__(self, now: float, cap: int, held: Iterable[tuple[float, int]]) -> None:
        held = sorted(held)
        self.cap = cap
        level = sum(count for _, count in held)
        self._sum = level  # an upper bound of every level
        self._times, self._levels = [now], [level]
        for end, count in held:
            if end == INF:
                break
            level -= count
            if end == self._times[-1]:
                self._levels[-1] = level
            else:
                self._times.append(end)
                self._levels.append(level)

    @property
    def held(self) -> int:
        """How much is held now."""
        return self._levels[0]

    def earliest(self, count: int, duration: float, after: float) -> float:
        """When ``count`` more fit for so long, from ``after`` on; ``inf`` when never."""
        room = self.cap - count
        if room < 0:
            return INF
        if self._sum <= room:
            return after
        times, levels = self._times, self._levels
        at, index = after, max(0, bisect_right(times, after) - 1)
        while True:
            while levels[index] > room:
                index += 1
                if index == len(times):
                    return INF
                at = times[index]
            end, look = at + duration, index + 1
            while look < len(times) and times[look] < end and levels[look] <= room:
                look += 1
            if look == len(times) or times[look] >= end:
                return at
            index = look

    def peak(self, start: float, end: float) -> int:
        """The most held at any moment of a span."""
        first = max(0, bisect_right(self._times, start) - 1)
        return max(self._levels[first : max(first + 1, bisect_left(self._times, end))])

    def add(self, start: float, end: float, count: int) -> None:
        """Something runs, or is planned, in a span."""
        first, last = self._split(start), (self._split(end) if end < INF else len(self._times))
        for index in range(first, last):
            self._levels[index] += count
        self._sum += count

    def _split(self, at: float) -> int:
        index = bisect_left(self._times, at)
        if index == len(self._times) or self._times[index] != at:
            self._times.insert(index, at)
            self._levels.insert(index, self._levels[index - 1])
        return index


@dataclass(eq=False, slots=True)
class _Place:
    """One device on the timeline: the free gaps of each of its slots, and who reserved it."""

    device: Device
    gaps: list[list[Gap]]
    windows: list[Window] = field(default_factory=list)
    reserved_until: float = -INF  # the end of the last window that was given to it
    _cut: dict[Audience, list[list[Gap]]] = field(default_factory=dict)

    def open(self, audience: Audience) -> list[list[Gap]]:
        """The gaps of each slot without what is reserved for others."""
        if not self.windows:
            return self.gaps
        found = self._cut.get(audience)
        if found is None:
            found = self._cut[audience] = [audience.cut(self.windows, gaps) for gaps in self.gaps]
        return found

    def changed(self) -> None:
        """A slot was taken: what was worked out from the gaps holds no more."""
        self._cut.clear()


class Pool:
    """The devices of one model, shared in one way, on one node: a lease takes all of its GPUs here.

    A lease takes one slot of a device at most.
    """

    __slots__ = ("free", "key", "lows", "node", "places", "version")

    def __init__(self, key: Kind, node: str, places: list[_Place], now: float) -> None:
        self.key, self.node, self.places = key, node, places
        self.version = 0
        starts = [min((gaps[0][0] for gaps in p.gaps if gaps), default=INF) for p in places]
        self.lows = sorted(starts)  # when the first, the second, ... is free, at the earliest
        self.free = sum(start <= now for start in starts)  # devices with a slot free now

    def earliest(self, count: int, duration: float, after: float, audience: Audience) -> float:
        """When ``count`` devices have a slot free for so long; ``inf`` when never."""
        if count == 1:
            return self._earliest_of_one(duration, after, audience)
        ranges = []  # in which a lease may start, of one slot each
        for index, place in enumerate(self.places):
            for gaps in place.open(audience) if place.windows else place.gaps:
                for low, high in gaps:
                    first = low if low > after else after
                    last = INF if high == INF else high - duration
                    if first <= last:
                        ranges.append((first, last, index))
        if len(ranges) < count:
            return INF
        ranges.sort()
        for index in range(count - 1, len(ranges)):
            at = ranges[index][0]
            if len({p for _, last, p in ranges[: index + 1] if last >= at}) >= count:
                return at
        return INF

    def _earliest_of_one(self, duration: float, after: float, audience: Audience) -> float:
        best = INF
        for place in self.places:
            for gaps in place.open(audience) if place.windows else place.gaps:
                for low, high in gaps:
                    if low >= best:
                        break
                    first = low if low > after else after
                    if first < best and (high == INF or first <= high - duration):
                        best = first
                        break
        return best

    def choose(
        self, count: int, duration: float, at: float, audience: Audience
    ) -> list[tuple[int, int]]:
        """(place, slot) of the best fitting devices: those reserved for the audience, then
        those already shared, then those whose gap is the tightest.
        """
        found = []
        for index, place in enumerate(self.places):
            busy = sum(not gaps or gaps[0][0] > at for gaps in place.gaps)
            for slot, gaps in enumerate(place.open(audience)):
                for low, high in gaps:
                    if low <= at and (high == INF or at <= high - duration):
                        own = not audience.reserved(place, at)
                        found.append((own, -busy, high, place.device.id, index, slot))
                        break
                else:
                    continue
                break
        found.sort()
        return [(index, slot) for *_, index, slot in found[:count]]

    def take(self, index: int, slot: int, start: float, end: float, now: float) -> None:
        """A slot is taken for a span that lies in one of its gaps."""
        place = self.places[index]
        gaps = place.gaps[slot]
        which = next(i for i, (low, high) in enumerate(gaps) if low <= start < high)
        low, high = gaps[which]
        gaps[which : which + 1] = [
            *([(low, start)] if low < start else []),
            *([(end, high)] if end < high else []),
        ]
        if start <= now and not any(gaps and gaps[0][0] <= now for gaps in place.gaps):
            self.free -= 1
        place.changed()
        self.version += 1


@dataclass(frozen=True, eq=False)
class Kind:
    """Devices as good as each other; ``size`` orders kinds, the smallest is tried first."""

    model: str
    weight: float
    memory: int

    @property
    def size(self) -> tuple[float, float, str]:
        return (self.memory * self.weight, self.weight, self.model)


@dataclass(frozen=True, eq=False)
class Audience:
    """Whose reservations are open to a request: what it is charged to, and its person."""

    subjects: frozenset[Subject] = frozenset()

    def cut(self, windows: Iterable[Window], gaps: Iterable[Gap]) -> list[Gap]:
        """Gaps without what is reserved for others."""
        free = list(gaps)
        for window in windows:
            if window.subject not in self.subjects:
                free = [
                    part
                    for low, high in free
                    for part in ((low, min(high, window.start)), (max(low, window.end), high))
                    if part[0] < part[1]
                ]
        return free

    def reserved(self, place: _Place, at: float) -> Window | None:
        """The reservation of this audience that a device is in."""
        for window in place.windows:
            if window.start <= at < window.end and window.subject in self.subjects:
                return window
        return None


NOBODY = Audience()


class Slots:
    """All devices that are offered, over time.

    Args:
        now: seconds since 1970.
        devices: those not offered are left out.
        busy: until when each taken slot is busy.
        windows: reservations; those that name no devices get some, the same for the same input.
        inside: devices held inside a reservation, by its id.
    """

    def __init__(
        self,
        now: float,
        devices: Iterable[Device],
        busy: Mapping[Slot, float],
        windows: Sequence[Window] = (),
        inside: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._now = now
        self._heaps: dict[tuple[Kind, int, float, Audience], list[tuple[float, int, int]]] = {}
        offered = [device for device in devices if device.offered]
        pools: dict[tuple[Kind, str], list[_Place]] = {}
        places = {}
        kinds: dict[tuple[str, float], int] = {}
        for device in offered:
            kinds[device.model, device.weight] = max(
                device.memory, kinds.get((device.model, device.weight), 0)
            )
        names = {key: Kind(*key, memory) for key, memory in kinds.items()}
        for device in sorted(offered, key=lambda device: device.id):
            gaps: list[list[Gap]] = []
            for index in range(device.slots):
                end = busy.get(Slot(device.id, index), now)
                gaps.append([(end, INF)] if end < INF else [])
            place = _Place(device, gaps)
            places[device.id] = place
            kind = names[device.model, device.weight]
            pools.setdefault((kind, device.node), []).append(place)
        self.kinds: dict[Kind, list[Pool]] = {}
        for (kind, node), members in sorted(
            pools.items(), key=lambda item: (item[0][0].size, item[0][1])
        ):
            self.kinds.setdefault(kind, []).append(Pool(kind, node, members, now))
        if windows:
            by_size = [p for pools_ in self.kinds.values() for pool in pools_ for p in pool.places]
            _reserve(places, by_size, windows, inside or {})

    def earliest(
        self, kind: Kind, count: int, duration: float, audience: Audience, after: float
    ) -> tuple[float, Pool | None]:
        """When, and in which pool, ``count`` GPUs of a kind are free for so long."""
        pools = self.kinds[kind]
        heap = self._heap(kind, count, duration, audience)
        while heap:
            bound, index, version = heap[0]
            pool = pools[index]
            if version == pool.version:
                break
            at = pool.earliest(count, duration, self._now, audience)
            if at == INF:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (at, index, pool.version))
        if not heap:
            return INF, None
        at, index, _ = heap[0]
        if at <= self._now and after <= at:
            return at, self._tightest(heap, pools, count, duration, audience)
        if at >= after:
            return at, pools[index]
        best: tuple[float, Pool | None] = (INF, None)
        for bound, index, _ in heap:
            if bound < best[0]:
                at = pools[index].earliest(count, duration, after, audience)
                if at == after:
                    return at, pools[index]
                if at < best[0]:
                    best = (at, pools[index])
        return best

    def _heap(
        self, kind: Kind, count: int, duration: float, audience: Audience
    ) -> list[tuple[float, int, int]]:
        """Pools by a lower bound of when they have room. Bounds only grow while planning."""
        key = (kind, count, duration, audience)
        heap = self._heaps.get(key)
        if heap is None:
            heap = [
                (max(pool.lows[count - 1], self._now), index, -1)
                for index, pool in enumerate(self.kinds[kind])
                if len(pool.lows) >= count and pool.lows[count - 1] < INF
            ]
            heapq.heapify(heap)
            self._heaps[key] = heap
        return heap

    def _tightest(
        self,
        heap: list[tuple[float, int, int]],
        pools: list[Pool],
        count: int,
        duration: float,
        audience: Audience,
    ) -> Pool:
        """Of the pools with room now: one with devices reserved for them, then the fullest."""
        best: tuple[tuple[int, int, str], Pool] | None = None
        for entry, (bound, index, version) in enumerate(heap):
            if bound > self._now:
                continue
            pool = pools[index]
            if version != pool.version:
                at = pool.earliest(count, duration, self._now, audience)
                heap[entry] = (at, index, pool.version)
                if at > self._now:
                    continue
            own = 0
            if audience.subjects:
                own = sum(bool(audience.reserved(p, self._now)) for p in pool.places if p.windows)
            rank = (-own, pool.free, pool.node)
            if best is None or rank < best[0]:
                best = (rank, pool)
        heapq.heapify(heap)
        assert best is not None  # the top of the heap has room now
        return best[1]


def _reserve(
    places: Mapping[str, _Place],
    by_size: Sequence[_Place],
    windows: Sequence[Window],
    inside: Mapping[str, frozenset[str]],
) -> None:
    """Tell the devices of each window; where it names none, the smallest that are free then."""
    if not windows:
        return
    for window in windows:
        for name in window.devices:
            if name in places:
                places[name].windows.append(window)
    for window in sorted(windows, key=lambda w: (w.start, w.reservation)):
        if window.devices:
            continue
        chosen = [
            places[name]
            for name in sorted(inside.get(window.reservation, ()))
            if name in places and _open(places[name], window)
        ]
        for free_only in (True, False):
            for place in by_size:
                if len(chosen) >= window.gpus:
                    break
                if (
                    window.gpu_type in ("", place.device.model)
                    and _open(place, window)
                    and place not in chosen
                    and (not free_only or all(g and g[0][0] <= window.start for g in place.gaps))
                ):
                    chosen.append(place)
        for place in chosen[: window.gpus]:
            place.windows.append(window)
            place.reserved_until = max(place.reserved_until, window.end)


def _open(place: _Place, window: Window) -> bool:
    """Whether no other window has a device at that time; they are given out by their start."""
    return place.reserved_until <= window.start and all(
        not other.devices or other.end <= window.start or other.start >= window.end
        for other in place.windows
    )
