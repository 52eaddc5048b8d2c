"""Connections to our database, and the thread pool that keeps SQL off the event loop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import create_engine, event, func, inspect, select, text
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from commons.store import copies
from commons.store.trouble import REMEDIES, Trouble, of

T = TypeVar("T")

VERSIONS = "labcommons_alembic_version"
MIGRATIONS = Path(__file__).parent / "migrations"

DEFAULT_URL = "sqlite:////srv/labcommons/data/store/labcommons.sqlite"
BUSY_TIMEOUT = 10  # seconds a writer waits for another one
_QUICK = 256 * 2**20  # bytes of a file that is read through when it is checked
_JUST_NOW = 0.1  # seconds; coarser than the times that file systems keep


class StoreError(Exception):
    """The database cannot be used; the message says which and what to do.

    ``trouble``: what is the matter with it, where it is not that it is away.
    """

    def __init__(self, message: str, trouble: Trouble = Trouble.AWAY) -> None:
        super().__init__(message)
        self.trouble = trouble


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
                    raise self.error_of(error) from error
                time.sleep(0.02 * 2**attempt)
            except DBAPIError as error:
                raise self.error_of(error) from error
        raise AssertionError("unreachable")

    def error_of(self, error: DBAPIError) -> StoreError:
        """An error of the database's as ours: which it is, the cause and the remedy."""
        said = f"database {self.safe_url}: {error.orig}"
        trouble = of(error)
        if trouble is None:
            return StoreError(said)
        return StoreError(f"{said.rstrip('. ')}; {REMEDIES[trouble]}", trouble)

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
            # Not wait_for: Python 3.11's loses a cancellation that comes with the answer.
            async with asyncio.timeout(self.timeout):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise StoreError(
                f"database {self.safe_url} did not answer within {self.timeout:g} s"
            ) from error

    def stamp(self) -> object:
        """Another one once anything was committed, by whomever; None where only asking tells.

        SQLite writes each commit into its log, whose size and time tell without a query. Of what
        was written just now nothing is told: a second commit may have the same time.
        """
        if not self.is_sqlite or not self.engine.url.database:
            return None
        found = []
        for name in (self.engine.url.database, f"{self.engine.url.database}-wal"):
            try:
                state = os.stat(name)
            except OSError:
                return None
            if time.time() - state.st_mtime < _JUST_NOW:
                return None
            found.append((state.st_ino, state.st_size, state.st_mtime_ns))
        return tuple(found)

    async def news(self, channel: str) -> AsyncIterator[None]:
        """Once at first, and each time that somebody has told of ``channel``. PostgreSQL alone.

        Raises StoreError where the connection, which is one of its own, breaks.
        """
        import psycopg  # SQLite's sites do without it
        from psycopg.sql import SQL, Identifier

        url = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            async with await psycopg.AsyncConnection.connect(
                url, autocommit=True, connect_timeout=BUSY_TIMEOUT
            ) as connection:
                await connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
                yield
                async for _ in connection.notifies():
                    yield
        except psycopg.Error as error:
            raise StoreError(f"database {self.safe_url}: {error}") from error

    def migrate(self) -> None:
        """Bring the tables to this version; harmless to repeat. Raises StoreError.

        Before they change, a SQLite database is copied to a file beside it; PostgreSQL's is copied
        by `make up`, which has its programs (deploy/copies.py).
        """
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        if self.is_sqlite and (file := self.engine.url.database) and file != ":memory:":
            with suppress(OSError):  # SQLite says it with the file's name
                Path(file).parent.mkdir(parents=True, exist_ok=True)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        try:
            revision = self._revision()
            scripts = ScriptDirectory.from_config(config)
            newest = scripts.get_current_head()
            if revision and revision not in {one.revision for one in scripts.walk_revisions()}:
                raise StoreError(
                    f"database {self.safe_url}: its tables are of a newer version ({revision}; "
                    f"this one knows them up to {newest}). Go forward to that version again; "
                    "from there `make rollback` puts the copy of before in its place"
                )
            if self.is_sqlite and revision not in ("", newest):
                self._copy(revision)
            with self._for_migration() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except DBAPIError as error:
            if of(error) is None:
                raise
            self.engine.dispose()  # what is put in its place is opened anew
            raise self.error_of(error) from error

    def _revision(self) -> str:
        """Which version the tables have; "" for none."""
        with self.engine.connect() as connection:
            if not inspect(connection).has_table(VERSIONS):
                return ""
            return str(connection.scalar(text(f"SELECT version_num FROM {VERSIONS}")) or "")  # noqa: S608

    def _copy(self, revision: str) -> None:
        """Beside it, as it is now. Raises StoreError."""
        try:
            copies.copy(Path(self.engine.url.database or ""), revision)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"database {self.safe_url}: no copy could be made before its tables change "
                f"({error}); make room beside it, and try again"
            ) from error

    def check(self) -> None:
        """Read all of it that is small enough, and write. Raises StoreError."""

        def work(session: Session) -> str:
            if not self.is_sqlite:
                return str(session.scalar(text("SELECT 'ok'")))
            found, said = session.scalar(text("PRAGMA user_version")), "ok"
            if os.path.getsize(self.engine.url.database or "") < _QUICK:
                said = str(session.scalar(text("PRAGMA quick_check(1)")))
            session.execute(text(f"PRAGMA user_version = {int(found or 0)}"))
            return said

        said = self.transact(work)
        if said != "ok":
            self.engine.dispose()
            raise StoreError(
                f"database {self.safe_url} is damaged ({said[:200]}); {REMEDIES[Trouble.DAMAGED]}",
                Trouble.DAMAGED,
            )

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


def tell(session: Session, channel: str) -> None:
    """What this transaction writes is news to who listens (``Store.news``), once it is committed.

    SQLite tells by its file (``Store.stamp``).
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_notify(channel, "")))


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
