"""Schema migrations: Alembic, one history per service, the kernel's tables among them."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic import command, context, op
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from . import postgresql
from .clock import BigId
from .db import Database
from .tables import KERNEL

# Any number; the same for each service, as a lock is a database's own.
MIGRATION_LOCK = 7_301_113
# How long a migration comes again to a table that others hold, and how long it lets them go on between.
MIGRATION_PATIENCE_SECONDS, MIGRATION_PAUSE_SECONDS = 60.0, 0.5
SERVICES = Path(__file__).resolve().parents[1]


async def upgrade(database: Database) -> None:
    """Bring a service's database to the newest schema; does nothing where it is there already."""
    with database.storage_failures():
        if database.is_sqlite:
            async with database.engine.begin() as connection:
                await connection.run_sync(_upgrade, database.service)
            return
        engine = postgresql.open_migration_engine(database.url, service=database.service)
        async with engine.connect() as connection:
            await _wait_for_others(connection)
            await _upgrade_patiently(connection, database.service)


async def _wait_for_others(connection: AsyncConnection) -> None:
    """Two at once: the second waits, then finds nothing to do. Freed by the end of the connection."""
    # As long as the first takes: no request queues behind this lock.
    await connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
    await connection.execute(sa.select(sa.func.pg_advisory_lock(MIGRATION_LOCK)))
    await connection.commit()


async def _upgrade_patiently(connection: AsyncConnection, service: str) -> None:
    """Come again, for what is left, while others hold a table."""
    deadline = time.monotonic() + MIGRATION_PATIENCE_SECONDS
    while True:
        try:
            await connection.run_sync(_upgrade, service)
        except DBAPIError as error:
            if not postgresql.has_met_a_lock(error.orig) or time.monotonic() > deadline:
                raise
        else:
            return
        # Alembic makes its own transactions only where none is open.
        await connection.rollback()
        await asyncio.sleep(MIGRATION_PAUSE_SECONDS)


async def revision_of(database: Database) -> str | None:
    """The schema that the database has; None where it has none."""
    async with database.read() as session:
        return await (await session.connection()).run_sync(
            lambda connection: MigrationContext.configure(connection).get_current_revision()
        )


def newest_revision(service: str) -> str:
    """The schema that this version makes."""
    return _history(service)[0]


async def what_is_missing(database: Database) -> str | None:
    """None where the schema is the newest that this version knows, or a later one; else what to do."""
    at = await revision_of(database)
    history = _history(database.service)
    if at == history[0] or (at is not None and at not in history):
        return None
    return f"its schema is at {at or 'nothing'}, and this version needs {history[0]}: run medperf-server migrate"


@cache
def _history(service: str) -> tuple[str, ...]:
    """The revisions of a service's schema, newest first."""
    scripts = ScriptDirectory(str(SERVICES / service / "migrations"))
    return tuple(script.revision for script in scripts.walk_revisions())


def config_of(service: str, connection: Connection) -> Config:
    """Alembic's configuration for a service, on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(SERVICES / service / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def run_env(metadata: MetaData) -> None:
    """What every service's `migrations/env.py` does."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=[KERNEL, metadata],
        render_as_batch=True,
        # Whoever works meanwhile locks several tables too, in another order: a revision has one at a time.
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def create_kernel_tables_1() -> None:
    """The kernel's tables as they were in every service's first migration."""
    op.create_table(
        "outbox",
        sa.Column("position", BigId, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("topic", sa.String(80), nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.Column("recorded_millis", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("not_before_millis", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("sent_millis", sa.BigInteger, nullable=True),
        sa.UniqueConstraint("event_id", name="uq_outbox_event_id"),
        sqlite_autoincrement=True,
    )
    waiting = sa.text("sent_millis IS NULL")
    op.create_index("ix_outbox_waiting", "outbox", ["position"], sqlite_where=waiting, postgresql_where=waiting)
    op.create_table(
        "inbox_claim",
        sa.Column("consumer", sa.String(80), primary_key=True),
        sa.Column("event_id", sa.String(36), primary_key=True),
        sa.Column("claimed_millis", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "inbox_message",
        sa.Column("consumer", sa.String(80), primary_key=True),
        sa.Column("event_id", sa.String(36), primary_key=True),
        sa.Column("topic", sa.String(80), nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("first_millis", sa.BigInteger, nullable=False),
        sa.Column("last_millis", sa.BigInteger, nullable=False),
        sa.Column("next_millis", sa.BigInteger, nullable=False),
    )
    alive = sa.text("state != 'dead'")
    op.create_index(
        "ix_inbox_message_due", "inbox_message", ["next_millis"], sqlite_where=alive, postgresql_where=alive
    )
    op.create_table(
        "idempotency_key",
        sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("route", sa.String(255), primary_key=True),
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer, nullable=True),
        sa.Column("answer", sa.Text, nullable=True),
        sa.Column("headers", sa.Text, nullable=True),
        sa.Column("created_millis", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_idempotency_key_created_millis", "idempotency_key", ["created_millis"])


def add_outbox_cause() -> None:
    """Why an event does not leave. Expand only: a process of the schema before goes on without the columns."""
    with op.batch_alter_table("outbox", recreate="never") as outbox:
        outbox.add_column(sa.Column("cause", sa.Text, nullable=True))
        outbox.add_column(sa.Column("buried_millis", sa.BigInteger, nullable=True))


def add_dead_letter_actions() -> None:
    """What operators did about messages that did not get through."""
    op.create_table(
        "dead_letter_action",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("consumer", sa.String(80), nullable=True),
        sa.Column("topic", sa.String(80), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.Column("done_by", sa.String(256), nullable=False),
        sa.Column("reason", sa.String(256), nullable=False),
        sa.Column("done_millis", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_dead_letter_action_event_id", "dead_letter_action", ["event_id"])


def _upgrade(connection: Connection, service: str) -> None:
    command.upgrade(config_of(service, connection), "head")
