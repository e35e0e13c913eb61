"""Triggers by which a test makes a database do what another session, or a fault, would do; for both databases."""

from __future__ import annotations

from sqlalchemy import text

from services.kernel.db import Database

COUNT_FOR_LONG = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000)"
# What a trigger does: for SQLite, for PostgreSQL.
NO_ROOM = ("SELECT RAISE(ABORT, 'no room')", "RAISE EXCEPTION 'no room';")
CHANGES_NOTHING = ("SELECT RAISE(IGNORE)", "RETURN NULL;")
IS_SLOW = (f"SELECT ({COUNT_FOR_LONG} SELECT max(i) FROM n)", "PERFORM pg_sleep(3.0); RETURN NEW;")


def also(statement: str) -> tuple[str, str]:
    """After the row, this statement too."""
    return statement, f"{statement}; RETURN NULL;"


async def create_trigger(database: Database, name: str, moment: str, does: tuple[str, str]) -> None:
    """`moment` is such as BEFORE INSERT ON outbox."""
    if database.is_sqlite:
        statements = [f"CREATE TRIGGER {name} {moment} BEGIN {does[0]}; END"]
    else:
        function = f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does[1]} END $$"
        statements = [function, f"CREATE TRIGGER {name} {moment} FOR EACH ROW EXECUTE FUNCTION {name}()"]
    async with database.write() as session:
        for statement in statements:
            await session.execute(text(statement))


async def drop_trigger(database: Database, name: str) -> None:
    statement = f"DROP TRIGGER {name}" if database.is_sqlite else f"DROP FUNCTION {name} CASCADE"
    async with database.write() as session:
        await session.execute(text(statement))
