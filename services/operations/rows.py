"""A table's rows as lines of JSON, the same from every kind of database, and back exactly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Boolean, Column, Integer, String, Table, Uuid, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.kernel.clock import Instant, from_millis, to_millis
from services.kernel.db import Choice

ROWS_AT_ONCE = 500


class UnknownType(Exception):
    """A column of a type that this module cannot carry yet."""


async def lines(session: AsyncSession, table: Table) -> AsyncIterator[bytes]:
    """Every row, each a line, in the order of the primary key: the same everywhere, whatever sorts text there."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    binary = "BINARY" if is_sqlite else "C"
    key = [column.collate(binary) if _is_text(column) else column for column in table.primary_key.columns]
    query = select(table).order_by(*key).execution_options(yield_per=ROWS_AT_ONCE)
    async for row in (await session.stream(query)).mappings():
        yield to_line(table, dict(row))


def to_line(table: Table, row: dict[str, Any]) -> bytes:
    """A row as a line of JSON."""
    said = {column.name: _to_json(column, row[column.name]) for column in table.columns}
    return json.dumps(said, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def from_line(table: Table, line: bytes) -> dict[str, Any]:
    """The row that a line was made of; ValueError where it is none of this table."""
    said = json.loads(line)
    if not isinstance(said, dict) or said.keys() != {column.name for column in table.columns}:
        raise ValueError(f"this is no row of {table.name}")
    return {column.name: _from_json(column, said[column.name]) for column in table.columns}


def _to_json(column: Column[Any], value: Any) -> Any:
    kind = column.type
    if value is None or isinstance(kind, JSON):
        return value
    if isinstance(kind, Instant):
        return to_millis(value)
    if isinstance(kind, Choice):
        return kind.members(value).value
    if isinstance(kind, Uuid):
        return value.hex
    if isinstance(kind, (Integer, Boolean, String)):
        return value
    raise UnknownType(f"{column}: {kind!r}")


def _from_json(column: Column[Any], said: Any) -> Any:
    kind = column.type
    if said is None or isinstance(kind, JSON):
        return said
    if isinstance(kind, Instant):
        return from_millis(said)
    if isinstance(kind, Choice):
        return kind.members(said)
    if isinstance(kind, Uuid):
        return UUID(hex=said)
    if isinstance(kind, (Integer, Boolean, String)):
        return said
    raise UnknownType(f"{column}: {kind!r}")


def _is_text(column: Column[Any]) -> bool:
    return isinstance(column.type, (String, Choice))
