"""What is free when: counts against a limit, and the slots of devices, over time.

Both know what runs now and what is planned; planning only ever takes away. Times are seconds
since 1970, ends may be ``inf``.
"""

from __future__ import annotations

import heapq
import math
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from spawner.gpu.policy.placement import Device
from spawner.gpu.policy.state import Settings, Subject, Window

INF = math.inf
# Models whose memory is HBM: made for computing centres, worth more than their size says.
_HBM = re.compile(r"\b(?:A100|A30|A800|H20|[BH]\d00|G[BH]\d00|P100|V100S?|MI\d{2,3}X?)\b")
Gap = tuple[float, float]


class Profile:
    """How much of a limit is held at each moment, as a step function.

    Args:
        now: where it begins.
        cap: the most that may be held at once.
        held: ``(end, count)`` of what runs.
    """

    __slots__ = ("_levels", "_sum", "_times", "cap", "version")

    def __init__(self, now: float, cap: int, held: Iterable[tuple[float, int]]) -> None:
        self.cap = cap
        self.version = 0  # grows with every change
        self.begin(now, held)

    def begin(self, now: float, held: Iterable[tuple[float, int]]) -> None:
        """What runs, and nothing that is planned."""
        self.version += 1
        held = sorted(held)
        level = sum([count for _, count in held])
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
    def begins(self) -> float:
        """The moment it was made for."""
        return self._times[0]

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
        self.version += 1

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
    last: float  # when all of it is free, before anything is planned
    windows: tuple[Window, ...] = ()
    reserved_until: float = -INF  # the end of the last window that was given to it
    _cut: dict[Audience, list[list[Gap]]] | None = None

    def open(self, audience: Audience) -> list[list[Gap]]:
        """The gaps of each slot without what is reserved for others."""
        if not self.windows:
            return self.gaps
        if self._cut is None:
            self._cut = {}
        found = self._cut.get(audience)
        if found is None:
            found = self._cut[audience] = [audience.cut(self.windows, gaps) for gaps in self.gaps]
        return found

    def changed(self) -> None:
        """A slot was taken: what was worked out from the gaps holds no more."""
        self._cut = None


class Pool:
    """The devices of one model, shared in one way, on one node: a lease takes all of its GPUs here.

    A lease takes one slot of a device at most.
    """

    def __init__(
        self,
        key: DeviceKind,
        node: str,
        devices: Sequence[Device],
        busy: Mapping[tuple[str, int], float],
        now: float,
    ) -> None:
        self.key, self.node, self.devices = key, node, devices
        self.slots = sum([device.slots for device in devices])
        self.begin(busy, now)

    def begin(self, busy: Mapping[tuple[str, int], float], now: float) -> None:
        """What runs, and nothing that is planned."""
        self.version = 0  # how often something was taken
        self._busy, self._now = busy, now
        self._places: list[_Place] = []
        if self.slots == len(self.devices):
            ends = [busy.get((device.id, 0), now) for device in self.devices]
            self.slots_free = ends.count(now)
        else:
            of_slots = [self._ends(device) for device in self.devices]
            ends = [min(ends) for ends in of_slots]
            self.slots_free = sum(ends.count(now) for ends in of_slots)
        # When the first, the second, ... is free, at the earliest.
        self.lows = sorted(ends)
        self.free = bisect_right(self.lows, now)  # devices with a slot free now

    def _ends(self, device: Device) -> list[float]:
        """When each slot is free."""
        return [self._busy.get((device.id, slot), self._now) for slot in range(device.slots)]

    @property
    def places(self) -> list[_Place]:
        """Its devices on the timeline; most pools are never looked into."""
        if not self._places:
            for device in self.devices:
                ends = self._ends(device)
                gaps = [[(end, INF)] if end < INF else [] for end in ends]
                self._places.append(_Place(device, gaps, max(ends)))
        return self._places

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
            busy = -1  # not counted yet
            for slot, gaps in enumerate(place.open(audience) if place.windows else place.gaps):
                for low, high in gaps:
                    if low <= at and (high == INF or at <= high - duration):
                        if busy < 0:
                            busy = sum([not one or one[0][0] > at for one in place.gaps])
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
        if start <= now:
            self.slots_free -= 1
            self.free -= not any(gaps and gaps[0][0] <= now for gaps in place.gaps)
        place.changed()
        self.version += 1


@dataclass(frozen=True, eq=False)
class DeviceKind:
    """Devices as good as each other; ``size`` orders kinds, the smallest is tried first.

    Attributes:
        worth: what the site says of it; 0 where it says nothing of any model.
        whole: no MIG device, and not shared.
    """

    model: str
    weight: float
    memory: int
    worth: float = 0.0
    whole: bool = True

    @cached_property
    def size(self) -> tuple[float, bool, float, float, str]:
        big = self.whole and bool(_HBM.search(self.model))
        return (self.worth, big, self.memory * self.weight, self.weight, self.model)


@dataclass(frozen=True, eq=False)
class Audience:
    """Whose reservations are open to a request: what it is charged to, and its person."""

    subjects: frozenset[Subject] = frozenset()
    released: frozenset[Window] = frozenset()  # of others, which nobody uses

    def cut(self, windows: Iterable[Window], gaps: Iterable[Gap]) -> list[Gap]:
        """Gaps without what is reserved for others."""
        shut = sorted([(w.start, w.end) for w in windows if self.is_shut_by(w)])
        free = []
        for low, high in gaps:
            at = low
            for start, end in shut:
                if start >= high:
                    break
                if end > at:
                    if start > at:
                        free.append((at, start))
                    at = end
            if at < high:
                free.append((at, high))
        return free

    def is_shut_by(self, window: Window) -> bool:
        """Whether a reservation is for others."""
        return window.subject not in self.subjects and not (
            self.released and window in self.released
        )

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
        settings: what a model is worth.
    """

    def __init__(
        self,
        now: float,
        devices: Iterable[Device],
        busy: Mapping[tuple[str, int], float],
        windows: Sequence[Window] = (),
        inside: Mapping[str, Collection[str]] | None = None,
        settings: Settings = Settings(),  # noqa: B008
    ) -> None:
        self._now, self._busy, self._windows = now, busy, windows
        self._heaps: dict[
            tuple[DeviceKind, int, float, Audience], list[tuple[float, int, int]]
        ] = {}
        self._bounds: dict[tuple[DeviceKind, int], list[tuple[float, int, int]]] = {}
        alike: defaultdict[tuple[str, float, str], list[Device]] = defaultdict(list)
        shared = set()
        for device in sorted(devices, key=attrgetter("id")):
            if device.offered:
                alike[device.model, device.weight, device.node].append(device)
                if device.parent or device.slots > 1:
                    shared.add(device.model)
        memory: dict[tuple[str, float], int] = {}
        for (model, weight, _), found in alike.items():
            most = max([device.memory for device in found])
            memory[model, weight] = max(most, memory.get((model, weight), 0))
        kinds = {}
        for (model, weight), most in memory.items():
            # Charged by it, the weight has the worth in it already.
            times = 1.0 if settings.charge_by_worth else settings.worth.get(model, 1.0)
            worth = weight * times if settings.worth else 0.0
            kinds[model, weight] = DeviceKind(model, weight, most, worth, model not in shared)
        self.kinds: dict[DeviceKind, list[Pool]] = {
            kind: [] for kind in sorted(kinds.values(), key=attrgetter("size"))
        }
        for (model, weight, node), found in sorted(alike.items()):
            kind = kinds[model, weight]
            self.kinds[kind].append(Pool(kind, node, found, busy, now))
        self._reserve(inside or {})

    def _reserve(self, inside: Mapping[str, Collection[str]]) -> None:
        if self._windows:
            pools = [pool for of_kind in self.kinds.values() for pool in of_kind]
            _reserve([p for pool in pools for p in pool.places], self._windows, inside)

    def begin(self, inside: Mapping[str, Collection[str]]) -> None:
        """What runs, by ``busy`` as it is now, and nothing that is planned."""
        for pools in self.kinds.values():
            for pool in pools:
                if pool.version or self._windows:
                    pool.begin(self._busy, self._now)
        self._heaps.clear()
        self._bounds.clear()
        self._reserve(inside)

    def earliest(
        self, kind: DeviceKind, count: int, duration: float, audience: Audience, after: float
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
        self, kind: DeviceKind, count: int, duration: float, audience: Audience
    ) -> list[tuple[float, int, int]]:
        """Pools by a lower bound of when they have room. Bounds only grow while planning."""
        key = (kind, count, duration, audience)
        heap = self._heaps.get(key)
        if heap is None:
            bounds = self._bounds.get((kind, count))
            if bounds is None:
                bounds = self._bounds[kind, count] = sorted(
                    (max(pool.lows[count - 1], self._now), index, -1)
                    for index, pool in enumerate(self.kinds[kind])
                    if len(pool.lows) >= count and pool.lows[count - 1] < INF
                )
            heap = self._heaps[key] = bounds.copy()
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
    by_size: Sequence[_Place],
    windows: Sequence[Window],
    inside: Mapping[str, Collection[str]],
) -> None:
    """Tell the devices of each window; where it names none, the smallest that are free then."""
    places = {place.device.id: place for place in by_size}
    for window in windows:
        for name in window.devices:
            if name in places:
                places[name].windows += (window,)
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
                    (place.last <= window.start or not free_only)
                    and window.gpu_type in ("", place.device.model)
                    and _open(place, window)
                    and place not in chosen
                ):
                    chosen.append(place)
        for place in chosen[: window.gpus]:
            place.windows += (window,)
            place.reserved_until = max(place.reserved_until, window.end)


def _open(place: _Place, window: Window) -> bool:
    """Whether no other window has a device at that time; they are given out by their start."""
    if place.reserved_until > window.start:
        return False
    for other in place.windows:
        if not other.devices:
            break  # those that name it come first
        if other.end > window.start and other.start < window.end:
            return False
    return True
