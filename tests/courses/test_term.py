"""A whole term on a fast clock: every session has its servers and its GPUs, once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from commons.site import Site
from commons.store import Store
from commons.store.models import WarmServer, WarmStart
from courses import ahead, people, records
from courses.document import CourseSpec
from courses.timetable import sessions
from spawner.gpu.ledger import reservations
from spawner.gpu.ledger.snapshot import reservation_of
from spawner.gpu.policy.reservations import occurrences
from spawner.warm import records as warm

DAY = 86400.0
STUDENTS = {f"s{number:02}": "student" for number in range(1, 6)}


@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_forgotten_and_nobody_is_warmed_twice(
    lab: Site, course: Callable[..., CourseSpec], seed: int, filled_sqlite: Store
) -> None:
    """Hubs look whenever they look, are away for hours, and plan again what is planned; instructors
    save the course in between. For each session there is one start ahead of time, with each
    student once, and its GPUs are reserved from its first server to its end.
    """
    chance, store = random.Random(seed), filled_sqlite
    spec = course(
        timezone=chance.choice(["Europe/Berlin", "America/New_York", "Asia/Shanghai"]),
        sessions=[
            {"weekdays": ["tue", "thu"], "starts": "10:00", "duration": "2h"},
            {"weekdays": ["fri"], "starts": "00:05", "duration": "1h"},
        ],
        extra=[{"day": "2026-12-12", "starts": "09:00", "duration": "3h"}],
    )
    now = datetime(2026, 10, 10, tzinfo=UTC).timestamp()
    store.transact(lambda s: records.apply(s, spec, "dan", lab, now=now))
    store.transact(lambda s: people.apply(s, "ml101", STUDENTS, "dan", prune=True))
    end = datetime(2027, 2, 10, tzinfo=UTC).timestamp()
    every = sessions(spec, now, end)
    assert len(every) > 40
    # When some hub looks: at any time, at the latest before nobody's server is held any more.
    looks = [chance.uniform(now, end) for _ in range(40)]
    looks += [one.starts - chance.uniform(0, 900) for one in every for _ in range(2)]
    looks += [one.starts + chance.uniform(-599, 1799) for one in every]
    for look in sorted(looks):
        if chance.random() < 0.2:
            title = spec.title.model_copy(update={"en": f"ML {look:.0f}"})
            titled = spec.model_copy(update={"title": title})
            store.transact(lambda s, t=titled, at=look: records.apply(s, t, "dan", lab, now=at))
        store.transact(lambda s, at=look: ahead.plan(s, lab, at))
        moment = datetime.fromtimestamp(look, UTC).replace(tzinfo=None)
        for start in store.transact(
            lambda s, at=moment: [x.id for x in warm.due(s, at)], read=True
        ):
            store.transact(lambda s, i=start, at=moment: warm.begin(s, i, [], at))

    def begun(session: object) -> list[tuple[str, str]]:
        query = select(WarmStart.id, WarmServer.username).join(
            WarmServer, WarmServer.warm_id == WarmStart.id
        )
        return [(one, user) for one, user in session.execute(query)]  # type: ignore[attr-defined]

    counts = Counter(store.transact(begun, read=True))
    wanted = {(ahead.warm_id("ml101", one), user) for one in every for user in STUDENTS}
    assert counts == dict.fromkeys(wanted, 1)
    windows = store.transact(
        lambda s: [
            window
            for row in reservations.standing(s)
            for window in occurrences(reservation_of(row), every[0].starts - DAY, end)
        ],
        read=True,
    )
    for one in every:
        first = one.starts - (300 if one.wall.hour == 0 else 600)  # a window begins on its day
        assert any(window.start <= first and window.end >= one.ends for window in windows), one


@pytest.fixture
def filled_sqlite(tmp_path: Path, lab: Site) -> Store:
    from .conftest import fill

    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    store.transact(lambda s: fill(s, lab))
    return store
