"""Connections to our database, and the thread pool that keeps SQL off the event loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

T = TypeVar("T")

DEFAULT_URL = "sqlite:////srv/labcommons/data/store/labcommons.sqlite"
BUSY_TIMEOUT = 10  # seconds a writer waits for another one


class StoreError(Exception):
    """The database cannot be used; the message says which and what to do."""


class Store:
    """One database, for one process.

    ``run`` and ``read`` run a function with a session in a transaction of its own, in a
    bounded thread pool; ``transact`` does the same where there is no event loop.
    """

    def __init__(self, url: str | None = None, threads: int = 4, timeout: float = 30) -> None:
        self.url = url or os.environ.get("LABCOMMONS_DATABASE_URL") or DEFAULT_URL
        self.timeout = timeout
        try:
            parsed = make_url(self.url)
        except ArgumentError as error:
            raise StoreError(
                "LABCOMMONS_DATABASE_URL is not a database URL; write for example "
                "sqlite:////srv/labcommons/data/store/labcommons.sqlite or "
                "postgresql+psycopg://labcommons@db/labcommons"
            ) from error
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.safe_url = parsed.render_as_string(hide_password=True)
        arguments: dict[str, Any] = (
            {"connect_args": {"timeout": BUSY_TIMEOUT}}
            if self.is_sqlite
            else {
                "connect_args": {
                    "connect_timeout": BUSY_TIMEOUT,
                    "options": "-c lock_timeout=10s -c statement_timeout=30s",
                },
                "pool_pre_ping": True,
                "pool_size": threads,
            }
        )
        self.engine: Engine = create_engine(parsed, **arguments)
        if self.is_sqlite:
            _prepare_sqlite(self.engine)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        self._readers = sessionmaker(
            self.engine.execution_options(labcommons_read=True), expire_on_commit=False
        )
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")

    @contextmanager
    def session(self, read: bool = False) -> Iterator[Session]:
        """A session in one transaction: committed at the end, rolled back on any error.

        On SQLite a reading one takes no write lock.
        """
        with (self._readers if read else self._sessions).begin() as session:
            yield session

    def transact(self, work: Callable[[Session], T], read: bool = False, attempts: int = 5) -> T:
        """Run work in one transaction, again where another writer was in the way.

        Work must have no effects outside the session. Raises StoreError when the
        database stays locked, cannot be written or does not answer; an IntegrityError
        passes through.
        """
        for attempt in range(1, attempts + 1):
            try:
                with self.session(read) as session:
                    return work(session)
            except IntegrityError:
                raise
            except OperationalError as error:
                if attempt == attempts or not _is_contention(error):
                    raise StoreError(f"database {self.safe_url}: {error.orig}") from error
                time.sleep(0.02 * 2**attempt)
            except DBAPIError as error:
                raise StoreError(f"database {self.safe_url}: {error.orig}") from error
        raise AssertionError("unreachable")

    async def run(self, work: Callable[[Session], T]) -> T:
        """``transact`` in the thread pool; StoreError after ``timeout`` seconds."""
        return await self._in_pool(work, read=False)

    async def read(self, work: Callable[[Session], T]) -> T:
        """``run`` for work that changes nothing."""
        return await self._in_pool(work, read=True)

    async def _in_pool(self, work: Callable[[Session], T], read: bool) -> T:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, self.transact, work, read)
        try:
            # Shielded: a cancelled request must not leave its transaction's outcome unknown.
            return await asyncio.wait_for(asyncio.shield(future), self.timeout)
        except TimeoutError as error:
            raise StoreError(
                f"database {self.safe_url} did not answer within {self.timeout:g} s"
            ) from error

    def migrate(self) -> None:
        """Bring the tables to this version; harmless to repeat."""
        from alembic import command
        from alembic.config import Config

        if self.is_sqlite and (file := self.engine.url.database) and file != ":memory:":
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self._for_migration() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def _for_migration(self) -> Iterator[Connection]:
        """A transaction for changing tables.

        SQLite changes a table by making it anew, under which the rows that refer to it would
        break; so their check waits until all is done (SQLite, "ALTER TABLE", 12 steps).
        """
        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            if self.is_sqlite:
                driver.execute("PRAGMA foreign_keys=OFF")
            try:
                with connection.begin():
                    yield connection
                    if self.is_sqlite and (
                        broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                    ):
                        raise StoreError(f"database {self.safe_url}: migrated rows lost {broken}")
            finally:
                if self.is_sqlite:
                    driver.execute("PRAGMA foreign_keys=ON")

    def close(self) -> None:
        """Give back threads and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.engine.dispose()


def _is_contention(error: OperationalError) -> bool:
    message = str(error.orig).lower()
    state = getattr(error.orig, "sqlstate", None)
    return "locked" in message or "busy" in message or state in ("40001", "40P01", "55P03")


def _prepare_sqlite(engine: Engine) -> None:
    """WAL, foreign keys, and BEGIN IMMEDIATE so that writers queue instead of failing.

    The last is SQLAlchemy's documented way to give pysqlite real transactions.
    """

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        reading = connection.get_execution_options().get("labcommons_read", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
