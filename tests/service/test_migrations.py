"""Schemas move on while the version before still answers: with rows in all tables.

What a version writes, it writes with the columns that its schema has: those rows are kept, and go on being written
and read, whatever later revision the database is at.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from service.databases import Databases
from services.composition import DEFINITIONS
from services.kernel import migrate
from services.kernel.db import Database
from services.kernel.errors import ServerBusy

SERVICES = [definition.name for definition in DEFINITIONS]
_numbers = count(1)


def revisions(service: str) -> list[str]:
    """The first to the last."""
    scripts = ScriptDirectory(str(migrate.SERVICES / service / "migrations"))
    return [script.revision for script in scripts.walk_revisions()][::-1]


OLD = [(service, revision) for service in SERVICES for revision in revisions(service)[:-1]]


class Version:
    """A version of a service at work on its database: it knows the tables and columns of its own schema only."""

    def __init__(self, connection: Connection) -> None:
        self.tables = sa.MetaData()
        self.tables.reflect(connection)

    def work(self, connection: Connection) -> dict[str, dict[str, Any]]:
        """Insert a row into every table; what was inserted."""
        done: dict[str, dict[str, Any]] = {}
        for table in self._own():
            done[table.name] = row = dict(self._row(table, done))
            connection.execute(table.insert().values(row))
        return done

    def still_has(self, connection: Connection, done: dict[str, dict[str, Any]]) -> None:
        """Each inserted row is there, as this version sees it."""
        for table in self._own():
            key = [column for column in table.primary_key if column.name in done[table.name]]
            found = connection.execute(
                sa.select(*(table.c[name] for name in done[table.name])).where(
                    *(column == done[table.name][column.name] for column in key)
                )
            )
            assert [dict(row) for row in found.mappings()] == [done[table.name]], table.name

    def _own(self) -> list[sa.Table]:
        return [table for table in self.tables.sorted_tables if table.name != "alembic_version"]

    def _row(self, table: sa.Table, done: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        for column in table.columns:
            if column.nullable or (column.server_default is not None and not column.primary_key):
                continue
            if column.foreign_keys:
                (key,) = column.foreign_keys
                yield column.name, done[key.column.table.name][key.column.name]
            else:
                yield column.name, _value(column.type)


def _value(kind: sa.types.TypeEngine[Any]) -> Any:
    """A new one each time: nothing unique is hit."""
    number = 1_000_000 + next(_numbers)
    if isinstance(kind, sa.Boolean):
        return True
    if isinstance(kind, sa.JSON):
        return {"number": number}
    if isinstance(kind, sa.Integer):
        return number
    if isinstance(kind, sa.Uuid):
        return uuid.UUID(int=number)
    length = getattr(kind, "length", None) or 64
    return f"{number:x}"[-length:]


@pytest.mark.parametrize(("service", "revision"), OLD)
def test_a_version_works_on_with_its_rows_at_every_later_schema(
    empty_database: str, service: str, revision: str
) -> None:
    async def check() -> None:
        database = Database(empty_database, service=service)
        await _to(database, revision)
        async with database.engine.begin() as connection:
            old = await connection.run_sync(Version)
            first = await connection.run_sync(old.work)
        for later in revisions(service)[revisions(service).index(revision) + 1 :]:
            await _to(database, later)
            async with database.engine.begin() as connection:
                await connection.run_sync(old.still_has, first)
                again = await connection.run_sync(old.work)
                await connection.run_sync(old.still_has, again)
        assert await migrate.what_is_missing(database) is None
        await database.close()

    asyncio.run(check())


@pytest.mark.parametrize("service", SERVICES)
def test_a_migration_waits_for_nobody_for_long_and_lets_who_works_go_on(
    databases: Databases, service: str
) -> None:
    url = databases.empty()

    async def check() -> int:
        database, written = Database(url, service=service), 0
        await _to(database, revisions(service)[0])
        async with database.engine.begin() as connection:
            old = await connection.run_sync(Version)
        is_done = asyncio.Event()

        async def work() -> None:
            nonlocal written
            while not is_done.is_set():
                async with database.engine.begin() as connection:
                    await connection.run_sync(old.work)
                written += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(work())
            while not written:
                await asyncio.sleep(0.01)
            before = written
            await migrate.upgrade(database)
            at_the_end = written
            while written < at_the_end + 2:
                await asyncio.sleep(0.01)
            is_done.set()
        async with database.engine.begin() as connection:
            rows = (await connection.exec_driver_sql("SELECT count(*) FROM outbox")).scalar_one()
        assert rows == written, "each transaction of the old version was kept"
        await database.close()
        return written - before

    assert asyncio.run(check()) >= 2


def test_a_migration_behind_a_long_reader_holds_up_no_request_and_ends_after_it(databases: Databases) -> None:
    url = databases.empty()

    async def check() -> None:
        async with first_schema(url) as database:
            async with database.engine.begin() as reader:
                await _ask(reader)
                migration = asyncio.create_task(migrate.upgrade(database))
                until, waits = time.monotonic() + 4, [0.0]
                while time.monotonic() < until:
                    waits.append(await _wait_of_a_request(database))
                assert not migration.done()
                assert await migrate.what_is_missing(database)
            async with asyncio.timeout(10):
                await migration
            assert await migrate.what_is_missing(database) is None
        assert 0.2 < max(waits) < 1.5, "one or more queued behind the migration, and none for long"

    asyncio.run(check())


def test_a_migration_gives_up_on_a_table_that_stays_held(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "MIGRATION_PATIENCE_SECONDS", 1.0)

    url = databases.empty()

    async def check() -> None:
        async with first_schema(url) as database, database.engine.begin() as reader:
            await _ask(reader)
            async with asyncio.timeout(10):
                with pytest.raises(ServerBusy):
                    await migrate.upgrade(database)

    asyncio.run(check())


def test_a_migration_waits_for_another_longer_than_for_a_table(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the wait for the other migration is this long: there is no second attempt.
    monkeypatch.setattr(migrate, "MIGRATION_PATIENCE_SECONDS", 0.0)

    url = databases.empty()

    async def check() -> None:
        async with first_schema(url) as database:
            async with database.engine.begin() as other:
                await other.execute(sa.select(sa.func.pg_advisory_xact_lock(migrate.MIGRATION_LOCK)))
                migration = asyncio.create_task(migrate.upgrade(database))
                await asyncio.sleep(2.5)
                assert not migration.done()
            await migration
            assert await migrate.what_is_missing(database) is None

    asyncio.run(check())


@asynccontextmanager
async def first_schema(url: str) -> AsyncIterator[Database]:
    """A service's database at its first revision; a later one alters the outbox."""
    database = Database(url, service="associations")
    await _to(database, revisions("associations")[0])
    yield database
    await database.close()


async def _ask(connection: AsyncConnection) -> None:
    await connection.exec_driver_sql("SELECT count(*) FROM outbox")


async def _wait_of_a_request(database: Database) -> float:
    await asyncio.sleep(0.02)
    began = time.monotonic()
    async with database.engine.begin() as connection:
        await _ask(connection)
    return time.monotonic() - began


async def _to(database: Database, revision: str) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(
            lambda sync: command.upgrade(migrate.config_of(database.service, sync), revision)
        )
