"""What is remembered of people and failed logins, across restarts of the hub.

The hub is one process, so its memory is the truth and the database (the one of LabCommons, or
a small SQLite file of the authenticator's own) the copy it starts from. A thread writes behind:
a burst of logins becomes a few transactions. A hub that is killed may forget the last moments.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from commons.store import DirectoryFailures, DirectoryPerson, Store, StoreError

from .servers import Log

# Keys of failures kept at once; beyond, the oldest are forgotten. Guessed names are keys too.
_MAX_KEYS = 20_000
# Seconds for which changes are gathered before they are written.
_GATHER = 0.2


@dataclass(frozen=True)
class Remembered:
    """One person of the hub. Times are seconds since 1970.

    Attributes:
        name: in the hub.
        id: the directory's stable id; empty where it gives none.
        confirmed: when the directory last said that all is well.
        barred: since when it says otherwise; None while it does not.
        reason: its outcome word.
        dismissed: whether running servers are to be stopped.
        roles: as ``Roles.as_json``, to tell a change.
    """

    name: str
    id: str = ""
    confirmed: float = 0.0
    barred: float | None = None
    reason: str = ""
    dismissed: bool = False
    roles: Mapping[str, Any] = field(default_factory=dict)


class Memory:
    """``load`` first. All methods are safe from any thread."""

    def __init__(
        self, store: Store | None, log: Log, clock: Callable[[], float] = time.time
    ) -> None:
        """Without a store everything is forgotten at the end of the process."""
        self._store = store
        self._log = log
        self._clock = clock
        self._lock = threading.RLock()
        self._people: dict[str, Remembered] = {}
        self._names: dict[str, str] = {}  # by stable id
        self._failures: dict[str, list[float]] = {}
        self._written: set[str] = set()  # keys of failures that have a row
        self._dirty_people: set[str] = set()
        self._dirty_failures: set[str] = set()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="directory-memory")
        self._scheduled = False
        self._closing = threading.Event()

    def load(self, oldest_failure: float) -> None:
        """Bring the tables up to date and read them. Raises StoreError."""
        if self._store is None:
            return
        self._store.migrate()

        def read(session: Session) -> tuple[list[Remembered], dict[str, list[float]]]:
            people = [_remembered(row) for row in session.scalars(select(DirectoryPerson))]
            session.execute(
                delete(DirectoryFailures).where(DirectoryFailures.last < oldest_failure)
            )
            rows = session.scalars(select(DirectoryFailures))
            return people, {row.key: [float(at) for at in row.times] for row in rows}

        people, failures = self._store.transact(read)
        with self._lock:
            self._failures = failures
            self._written = set(failures)
            for person in people:
                self._keep(person)

    def reload(self, name: str) -> None:
        """Read one person anew, who may have been released meanwhile. Raises StoreError."""
        if self._store is None:
            return

        def read(session: Session) -> Remembered | None:
            row = session.get(DirectoryPerson, name)
            return _remembered(row) if row else None

        person = self._store.transact(read, read=True)
        with self._lock:
            if name in self._dirty_people:
                return
            self._drop(name)
            if person:
                self._keep(person)

    def person(self, name: str) -> Remembered | None:
        """By the name in the hub."""
        with self._lock:
            return self._people.get(name)

    def person_by_id(self, id: str) -> Remembered | None:
        """By the directory's stable id."""
        with self._lock:
            return self._people.get(self._names.get(id, "")) if id else None

    def remember(self, person: Remembered) -> None:
        """Keep this in place of what was known."""
        with self._lock:
            self._drop(person.name)
            self._keep(person)
            self._dirty_people.add(person.name)
        self._write_soon()

    def failures(self, key: str) -> list[float]:
        """Times of failures by key; a list of the caller's own."""
        with self._lock:
            return list(self._failures.get(key, ()))

    def set_failures(self, key: str, times: list[float], *, keep: bool = True) -> None:
        """Empty: none. Without ``keep`` the database is not told."""
        key = key[:255]
        with self._lock:
            self._failures.pop(key, None)
            if times:
                self._failures[key] = times
            while len(self._failures) > _MAX_KEYS:
                oldest = next(iter(self._failures))
                del self._failures[oldest]
                self._dirty_failures.add(oldest)
            if not keep or not (times or key in self._written):
                return
            self._dirty_failures.add(key)
        self._write_soon()

    def close(self) -> None:
        """Write what is left."""
        self._closing.set()
        self._writer.shutdown(wait=True)
        if self._store:
            self._store.close()

    def _keep(self, person: Remembered) -> None:
        self._people[person.name] = person
        if person.id:
            self._names[person.id] = person.name

    def _drop(self, name: str) -> None:
        known = self._people.pop(name, None)
        if known:
            self._names.pop(known.id, None)

    def _write_soon(self) -> None:
        with self._lock:
            if self._scheduled or self._store is None:
                return
            self._scheduled = True
        self._writer.submit(self._write)

    def _write(self) -> None:
        # A crowd at the door becomes one transaction.
        self._closing.wait(_GATHER)
        with self._lock:
            self._scheduled = False
            people = [self._people[name] for name in self._dirty_people if name in self._people]
            failures = {key: list(self._failures.get(key, ())) for key in self._dirty_failures}
            dirty = self._dirty_people, self._dirty_failures
            self._dirty_people, self._dirty_failures = set(), set()
        new = {key: times for key, times in failures.items() if times}

        def work(session: Session) -> None:
            _replace(session, DirectoryPerson, [_row(person) for person in people])
            _replace(
                session,
                DirectoryFailures,
                [{"key": key, "times": times, "last": times[-1]} for key, times in new.items()],
            )
            gone = failures.keys() - new.keys()
            if gone:
                session.execute(delete(DirectoryFailures).where(DirectoryFailures.key.in_(gone)))

        assert self._store is not None
        try:
            self._store.transact(work)
        except StoreError as error:
            # What is not written now is written with the next change.
            self._log.error("directory: not remembered for the next start: %s", error)
            with self._lock:
                self._dirty_people |= dirty[0]
                self._dirty_failures |= dirty[1]
        else:
            with self._lock:
                self._written = (self._written - failures.keys()) | new.keys()


def _replace(
    session: Session, table: type[DirectoryPerson | DirectoryFailures], rows: list[dict[str, Any]]
) -> None:
    """Insert these rows, or update those that are there; in two statements, however many."""
    key = table.__mapper__.primary_key[0]
    known = set(session.scalars(select(key).where(key.in_([row[key.name] for row in rows]))))
    if new := [row for row in rows if row[key.name] not in known]:
        session.execute(insert(table), new)
    if old := [row for row in rows if row[key.name] in known]:
        session.execute(update(table), old)


def _remembered(row: DirectoryPerson) -> Remembered:
    return Remembered(
        name=row.name,
        id=row.directory_id or "",
        confirmed=row.confirmed,
        barred=row.barred,
        reason=row.reason or "",
        dismissed=row.dismissed,
        roles=row.roles,
    )


def _row(person: Remembered) -> dict[str, Any]:
    return {
        "name": person.name,
        "directory_id": person.id or None,
        "confirmed": person.confirmed,
        "barred": person.barred,
        "reason": person.reason or None,
        "dismissed": person.dismissed,
        "roles": dict(person.roles),
    }


def release(store: Store, name: str | None) -> int:
    """Forget whose name this is, or whose all names are; how many were known.

    Another person may then have the name. Raises StoreError.
    """
    known = select(DirectoryPerson)
    if name is not None:
        known = known.where(DirectoryPerson.name == name)

    def work(session: Session) -> int:
        rows = session.scalars(known).all()
        for row in rows:
            session.delete(row)
        return len(rows)

    return store.transact(work)
