"""Times: stored as milliseconds since 1970, taken from the database's clock, shown as aware UTC datetimes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

# SQLite numbers rows in INTEGER columns only.
BigId = BigInteger().with_variant(Integer(), "sqlite")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Instant(TypeDecorator[datetime]):
    """An aware datetime, kept as milliseconds: SQLite loses time zones."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return to_millis(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_millis(value)


class database_millis(FunctionElement[int]):  # noqa: N801 (an SQL function, spelt as one)
    """The database's own time now, in milliseconds: leases and deadlines never compare two machines' clocks."""

    inherit_cache = True
    type = BigInteger()


@compiles(database_millis, "sqlite")
def _sqlite_millis(element: database_millis, compiler: SQLCompiler, **kwargs: Any) -> str:
    return "(CAST(strftime('%s', 'now') AS INTEGER) * 1000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER))"


@compiles(database_millis, "postgresql")
def _postgresql_millis(element: database_millis, compiler: SQLCompiler, **kwargs: Any) -> str:
    # now() is the transaction's start and would keep an expired lease alive.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


async def now(session: AsyncSession) -> datetime:
    """The database's time, to the millisecond."""
    return from_millis((await session.execute(select(database_millis()))).scalar_one())


def to_millis(moment: datetime) -> int:
    """The milliseconds as which a moment is kept."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_millis(millis: int) -> datetime:
    """The moment that is kept as these milliseconds."""
    return _EPOCH + timedelta(milliseconds=millis)
