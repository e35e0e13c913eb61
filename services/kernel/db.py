"""A service's database: SQLite files or PostgreSQL behind the same two doors, `read` and `write`."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Dialect, MetaData, String, TypeDecorator, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from .errors import AppError, ServerBusy, StorageFailed, StorageFull

# A request is answered within two seconds, well before its client gives up: it waits so long for its turn among
# the writers of this process, then so long for another process (a copy of the store being made).
WRITER_WAIT_SECONDS = 1.0
BUSY_TIMEOUT_MILLIS = 1_000
# Nobody waits for a relay's or an inbox's answer: giving up sooner would only put off what they do.
BACKGROUND_WAIT_SECONDS = 10.0
STORAGE_RETRY_SECONDS = 5
# The shared index of a write-ahead log grows by 32 KiB.
SQLITE_NEEDS_BYTES = 64 * 1024
_SQLITE_STORAGE = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

_READ_ONLY = "medperf_read_only"


def new_metadata() -> MetaData:
    """Metadata whose indexes and constraints have the same names on every database."""
    return MetaData(naming_convention=NAMING)


class Choice(TypeDecorator[StrEnum]):
    """A member of an enumeration, kept as its value: readable, and extended without a migration."""

    impl = String(32)
    cache_ok = True

    def __init__(self, members: type[StrEnum]) -> None:
        super().__init__()
        self.members = members

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:
        return None if value is None else self.members(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self.members(value)

    def process_literal_param(self, value: StrEnum | None, dialect: Dialect) -> str:
        return "NULL" if value is None else f"'{self.members(value).value}'"


class Database:
    """One service's database. `service` is recorded as the source of its events."""

    def __init__(self, url: str | URL, *, service: str) -> None:
        self.service = service
        # What a statement held would stand in the error, and so in the log and in the cause of a dead letter.
        self.engine = create_async_engine(url, hide_parameters=True)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        # SQLite has one writer at a time; waiting here costs no connection and no busy polling.
        self._writer = asyncio.Lock()
        self._writing = async_sessionmaker(self.engine, expire_on_commit=False, autoflush=False)
        self._reading = async_sessionmaker(
            self.engine.execution_options(**{_READ_ONLY: True}), expire_on_commit=False, autoflush=False
        )
        self.outbox_filled = asyncio.Event()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session that sees one moment and changes nothing."""
        with self.storage_failures():
            async with self._reading() as session:
                yield session

    @asynccontextmanager
    async def write(self, *, in_background: bool = False) -> AsyncIterator[AsyncSession]:
        """One transaction: committed when the block ends, rolled back when it raises.

        `ServerBusy` where others write for too long: longer in the background, where no caller waits.
        """
        async with self._turn(BACKGROUND_WAIT_SECONDS if in_background else WRITER_WAIT_SECONDS):
            with self.storage_failures():
                async with self._writing() as session, session.begin():
                    session.info["service"] = self.service
                    yield session
        if session.info.get("recorded_event"):
            self.outbox_filled.set()

    @contextmanager
    def storage_failures(self) -> Iterator[None]:
        """Refuse, for a time, what fails because the database is busy, or its disk full or away."""
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            refusal = self._storage_refusal(error)
            if refusal is None:
                raise
            raise refusal from error

    def _storage_refusal(self, error: Exception) -> AppError | None:
        cause = error.orig if isinstance(error, DBAPIError) else error
        # Of SQLite's extended codes, the low byte is the kind.
        kind = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if kind == sqlite3.SQLITE_BUSY:
            return self._busy()
        if kind == sqlite3.SQLITE_FULL or (kind in _SQLITE_STORAGE and self._has_no_space()):
            detail = f"The disk of the {self.service} service is full."
            return StorageFull(detail, retry_after_seconds=STORAGE_RETRY_SECONDS)
        if kind in _SQLITE_STORAGE or (isinstance(error, DBAPIError) and error.connection_invalidated):
            detail = f"The database of the {self.service} service cannot be reached: {cause}."
            return StorageFailed(detail, retry_after_seconds=STORAGE_RETRY_SECONDS)
        return None

    def _has_no_space(self) -> bool:
        """A file that SQLite could not make or let grow is not said to be so for want of space."""
        folder = Path(self.engine.url.database or "").parent
        return shutil.disk_usage(folder).free < SQLITE_NEEDS_BYTES

    @asynccontextmanager
    async def _turn(self, seconds: float) -> AsyncIterator[None]:
        if not self.is_sqlite:
            yield
            return
        try:
            # Not wait_for: up to Python 3.11 it can swallow a cancellation, and a loop that stops would go on.
            async with asyncio.timeout(seconds):
                await self._writer.acquire()
        except TimeoutError:
            raise self._busy() from None
        try:
            yield
        finally:
            self._writer.release()

    def _busy(self) -> ServerBusy:
        return ServerBusy(f"The {self.service} service is busy with other changes.", retry_after_seconds=1)

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


@asynccontextmanager
async def unique_or(session: AsyncSession, refusal: AppError) -> AsyncIterator[None]:
    """Flush what the block added; a unique index that is hit at this very moment becomes `refusal`."""
    try:
        yield
        await session.flush()
    except IntegrityError:
        raise refusal from None


def _prepare_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    # The driver's own transaction handling begins late, after the first read; ours begins in `_begin_sqlite`.
    connection.isolation_level = None
    cursor = cast(sqlite3.Cursor, connection.cursor())
    cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL would lose acknowledged commits at a power cut.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLIS}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
