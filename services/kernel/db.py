"""A service's database: SQLite files or PostgreSQL behind the same two doors, `read` and `write`."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import StrEnum

from sqlalchemy import URL, Dialect, MetaData, String, TypeDecorator, func, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from . import postgresql, sqlite
from .errors import AppError, ServerBusy, StorageFailed, StorageFull
from .failures import Failure
from .log import logger

# A request is answered within two seconds, well before its client gives up: it waits so long for its turn among
# the writers of this process, then so long for another process (a copy of the store being made).
WRITER_WAIT_SECONDS = 1.0
# Nobody waits for a relay's or an inbox's answer: giving up sooner would only put off what they do.
BACKGROUND_WAIT_SECONDS = 10.0
STORAGE_RETRY_SECONDS = 5

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


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
        self.url = url
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = sqlite.open_engine(url)
            reading = self.engine.execution_options(**{sqlite.READ_ONLY: True})
        else:
            self.engine = postgresql.open_engine(url, service=service)
            reading = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        # SQLite has one writer at a time; waiting here costs no connection and no busy polling.
        self._writer = asyncio.Lock()
        self._writing = async_sessionmaker(self.engine, expire_on_commit=False, autoflush=False)
        self._reading = async_sessionmaker(reading, expire_on_commit=False, autoflush=False)
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
                    if in_background and not self.is_sqlite:
                        await session.execute(text(f"SET LOCAL lock_timeout = '{BACKGROUND_WAIT_SECONDS}s'"))
                    yield session
                    if session.info.get("recorded_event") and not self.is_sqlite:
                        await session.execute(select(func.pg_notify(postgresql.CHANNEL, "")))
        if session.info.get("recorded_event"):
            self.outbox_filled.set()

    async def listen(self) -> None:
        """Set `outbox_filled` at other processes' commits too, until cancelled; on SQLite there are none."""
        if not self.is_sqlite:
            await postgresql.listen(self.url, service=self.service, on_news=self.outbox_filled.set)

    @contextmanager
    def storage_failures(self) -> Iterator[None]:
        """Refuse, for a time, what fails because the database is busy, or its disk full or away."""
        try:
            yield
        except (DBAPIError, PoolTimeout, sqlite3.Error, postgresql.Unreachable) as error:
            refusal = self._storage_refusal(error)
            if refusal is None:
                raise
            raise refusal from error

    def _storage_refusal(self, error: Exception) -> AppError | None:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        failure = sqlite.failure_of(cause, self.engine) if self.is_sqlite else postgresql.failure_of(cause)
        if failure is Failure.BUSY or isinstance(error, PoolTimeout):
            return self._busy()
        if failure is Failure.FULL:
            detail = f"The disk of the {self.service} service is full."
            return StorageFull(detail, retry_after_seconds=STORAGE_RETRY_SECONDS)
        if failure is Failure.AWAY or (isinstance(error, DBAPIError) and error.connection_invalidated):
            # Who asks need not know where it is, nor as whom it is asked.
            logger.error("database_away", service=self.service, cause=str(cause))
            detail = f"The database of the {self.service} service cannot be reached."
            return StorageFailed(detail, retry_after_seconds=STORAGE_RETRY_SECONDS)
        return None

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
        """Close every connection; one to a server that does not answer is left to it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(postgresql.CLOSE_SECONDS):
                await self.engine.dispose()


@asynccontextmanager
async def unique_or(session: AsyncSession, refusal: AppError) -> AsyncIterator[None]:
    """Flush what the block added; a unique index that is hit at this very moment becomes `refusal`."""
    try:
        yield
        await session.flush()
    except IntegrityError:
        raise refusal from None
