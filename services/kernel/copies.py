"""Copies of another service's facts, keyed by the thing's own ID; the highest version stands."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession


async def keep(session: AsyncSession, table: Table, *, id: int, version: int, **facts: Any) -> None:  # noqa: A002
    """Insert or replace the copy of a thing, unless a later version of it is there already."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).values(id=id, version=version, **facts)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[table.c.id],
            set_={"version": version, **facts},
            where=table.c.version < statement.excluded.version,
        )
    )


async def version_of(session: AsyncSession, table: Table, id: int) -> int:  # noqa: A002
    """The version of the copy of a thing; 0 if there is none."""
    found = (await session.execute(select(table.c.version).where(table.c.id == id))).scalar_one_or_none()
    return found or 0
