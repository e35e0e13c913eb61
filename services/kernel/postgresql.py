"""A service's database on PostgreSQL: how it is reached, what its failures mean, who is told of a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, PoolProxiedConnection

from .failures import Failure
from .log import logger

# Five services with two web processes and a worker each stay below the 100 connections of a server as it comes.
POOL_SIZE = 5
POOL_WAIT_SECONDS = 2.0
CONNECT_SECONDS = 5.0
# A server that is frozen, or behind a network that was cut, answers nothing: whoever asks gives up.
COMMAND_SECONDS = 12.0
# The server gives up sooner than that, and says so: the connection then stays.
STATEMENT_SECONDS = 11.0
CLOSE_SECONDS = 5.0
# As long as a request may wait for another with the same idempotency key; also for a row that another changes.
LOCK_WAIT_SECONDS = 2.0
# A transaction whose process is frozen, or cut off, holds its locks no longer than this.
IDLE_IN_TRANSACTION_SECONDS = 30.0
# Whoever asks for a table after a migration queues behind it: it gives up well before they do, and comes again.
MIGRATION_LOCK_SECONDS = 1.0

# The commit of an event is told on it to processes that listen; the same in each service's own database.
CHANNEL = "outbox"
LISTENER_LOOKS_SECONDS = 10.0
LISTEN_AGAIN_SECONDS, LISTEN_AGAIN_MOST_SECONDS = 0.2, 10.0

LOCK_NOT_AVAILABLE = "55P03"  # by lock_timeout
DEADLOCK_DETECTED = "40P01"
_BUSY_STATES = {
    LOCK_NOT_AVAILABLE,
    DEADLOCK_DETECTED,
    "40001",  # serialization_failure
    "57014",  # query_canceled: statement_timeout
    "53200",  # out_of_memory
}
_FULL_STATES = {"53100"}
_AWAY_STATES = {
    "25006",  # read_only_sql_transaction: a standby, or a primary that was demoted
    "25P03",  # idle_in_transaction_session_timeout
    "3D000",  # invalid_catalog_name: the database is not there
    "53300",  # too_many_connections
    "XX001",  # data_corrupted
    "XX002",  # index_corrupted
}
# connection_exception, invalid_authorization, operator_intervention (shutdown, start), system_error.
_AWAY_CLASSES = {"08", "28", "57", "58"}


class Unreachable(Exception):
    """The server does not answer."""


def open_engine(url: str | URL, *, service: str) -> AsyncEngine:
    """A bounded pool of connections, each of which gives up in bounded time."""
    engine = create_async_engine(
        make_url(url).set(query={}),
        async_creator=partial(connect, url, service=service, command_seconds=COMMAND_SECONDS),
        pool_size=POOL_SIZE,
        max_overflow=0,
        # What a statement held would stand in the error, and so in the log and in the cause of a dead letter.
        hide_parameters=True,
        pool_timeout=POOL_WAIT_SECONDS,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    event.listen(engine.sync_engine, "handle_error", _give_up, retval=True)
    return engine


def open_migration_engine(url: str | URL, *, service: str) -> AsyncEngine:
    """One connection, whose statements may take as long as they take; but never hold others up behind a lock."""
    creator = partial(
        connect,
        url,
        service=service,
        command_seconds=None,
        statement_seconds=0,
        lock_seconds=MIGRATION_LOCK_SECONDS,
    )
    return create_async_engine(make_url(url).set(query={}), async_creator=creator, poolclass=NullPool)


async def connect(
    url: str | URL,
    *,
    service: str,
    command_seconds: float | None = COMMAND_SECONDS,
    statement_seconds: float = STATEMENT_SECONDS,
    lock_seconds: float = LOCK_WAIT_SECONDS,
) -> asyncpg.Connection[Any]:
    """A connection; `Unreachable` where nothing answers there. The URL's query is libpq's, sslmode among it."""
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    settings = {
        "application_name": f"medperf-{service}",
        "lock_timeout": _millis(lock_seconds),
        "statement_timeout": _millis(statement_seconds),
        "idle_in_transaction_session_timeout": _millis(IDLE_IN_TRANSACTION_SECONDS),
    }
    try:
        return await asyncpg.connect(
            dsn, timeout=CONNECT_SECONDS, command_timeout=command_seconds, server_settings=settings
        )
    except OSError as error:
        raise Unreachable(f"no answer: {error or type(error).__name__}") from error


def has_met_a_lock(cause: BaseException | None) -> bool:
    """Whether the statement failed because of what others hold: it may do once they are done."""
    return getattr(cause, "sqlstate", None) in (LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED)


def _millis(seconds: float) -> str:
    return str(round(seconds * 1000))


def failure_of(cause: BaseException) -> Failure | None:
    """What a driver's error says of the storage; None where it is no failure of it."""
    if isinstance(cause, PoolTimeout):
        return Failure.BUSY
    if isinstance(cause, Unreachable):
        return Failure.AWAY
    state = getattr(cause, "sqlstate", None) or ""
    if state in _BUSY_STATES:
        return Failure.BUSY
    if state in _FULL_STATES:
        return Failure.FULL
    return Failure.AWAY if state in _AWAY_STATES or state[:2] in _AWAY_CLASSES else None


async def listen(url: str | URL, *, service: str, on_news: Callable[[], None]) -> None:
    """Call `on_news` at each commit that told of an event, by any process, until cancelled.

    What was committed while nobody listened is told of once it listens again.
    """
    pause = LISTEN_AGAIN_SECONDS
    while True:
        try:
            connection = await connect(url, service=service)
            try:
                closed = asyncio.Event()
                connection.add_termination_listener(lambda _, closed=closed: closed.set())
                await connection.add_listener(CHANNEL, lambda *_: on_news())
                pause = LISTEN_AGAIN_SECONDS
                on_news()
                await _until_closed(connection, closed)
            finally:
                connection.terminate()
        except (Unreachable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            logger.warning("listening_failed", service=service, cause=repr(error))
        await asyncio.sleep(pause)
        pause = min(2 * pause, LISTEN_AGAIN_MOST_SECONDS)


async def _until_closed(connection: asyncpg.Connection[Any], closed: asyncio.Event) -> None:
    while not closed.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTENER_LOOKS_SECONDS):
                await closed.wait()
                return
        # A connection that was cut on its way looks like one on which nothing is said.
        await connection.fetchval("SELECT 1")


def _refuse_closed(connection: Any, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
    """A server that was restarted has closed its connections: the pool makes new ones, and nobody notices."""
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError


def _give_up(context: ExceptionContext) -> BaseException | None:
    """What timed out is cut off, not rolled back: nothing that is sent to a frozen server is answered."""
    if not isinstance(context.original_exception, OSError):
        return None
    context.is_disconnect = True
    return Unreachable(f"no answer: {context.original_exception!r}")
