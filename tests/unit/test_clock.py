"""The database's clock, as each database is asked for it."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql

from services.kernel.clock import database_millis
from services.kernel.tables import outbox


def test_postgresql_is_asked_for_the_time_of_the_statement_and_not_of_the_transaction() -> None:
    """now() is the transaction's start: an expired lease would stay alive, and a new one begin in the past."""
    lease = update(outbox).values(not_before_millis=database_millis() + 30_000)
    for statement in (select(database_millis()), lease):
        asked = str(statement.compile(dialect=postgresql.dialect())).lower()
        assert "clock_timestamp()" in asked
        assert "now()" not in asked
        assert "current_timestamp" not in asked
