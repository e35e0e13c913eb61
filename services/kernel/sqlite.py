"""A service's database as an SQLite file: how it is opened, and what its failures mean."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, event
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from .failures import Failure

BUSY_TIMEOUT_MILLIS = 1_000
# The shared index of a write-ahead log grows by 32 KiB.
NEEDS_BYTES = 64 * 1024
READ_ONLY = "medperf_read_only"
_STORAGE = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}


def open_engine(url: str | URL) -> AsyncEngine:
    """Connections that begin at once, and whose commits last."""
    # What a statement held would stand in the error, and so in the log and in the cause of a dead letter.
    engine = create_async_engine(url, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def failure_of(cause: BaseException, engine: AsyncEngine) -> Failure | None:
    """What a driver's error says of the storage; None where it is no failure of it."""
    # Of SQLite's extended codes, the low byte is the kind.
    kind = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    if kind == sqlite3.SQLITE_BUSY:
        return Failure.BUSY
    if kind == sqlite3.SQLITE_FULL or (kind in _STORAGE and _has_no_space(engine)):
        return Failure.FULL
    return Failure.AWAY if kind in _STORAGE else None


def _has_no_space(engine: AsyncEngine) -> bool:
    """A file that SQLite could not make or let grow is not said to be so for want of space."""
    folder = Path(engine.url.database or "").parent
    return shutil.disk_usage(folder).free < NEEDS_BYTES


def _prepare(connection: Any, record: ConnectionPoolEntry) -> None:
    # The driver's own transaction handling begins late, after the first read; ours begins in `_begin`.
    connection.isolation_level = None
    cursor = cast(sqlite3.Cursor, connection.cursor())
    cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL would lose acknowledged commits at a power cut.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLIS}")
    cursor.close()


def _begin(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
