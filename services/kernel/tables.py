"""The tables that every service's database has beside its own: outbox, inbox, dead letters, idempotency keys."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from .clock import BigId
from .db import new_metadata

KERNEL = new_metadata()

outbox = Table(
    "outbox",
    KERNEL,
    Column("position", BigId, primary_key=True, autoincrement=True),
    Column("event_id", String(36), nullable=False, unique=True),
    Column("topic", String(80), nullable=False),
    Column("envelope", Text, nullable=False),
    Column("recorded_millis", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # Waiting for a relay until then: leased by one, or put off after a failure.
    Column("not_before_millis", BigInteger, nullable=False, server_default="0"),
    Column("sent_millis", BigInteger, nullable=True),
    # Why it was not taken the last time; and since when it is not tried any more, but left to a person.
    Column("cause", Text, nullable=True),
    Column("buried_millis", BigInteger, nullable=True),
    sqlite_autoincrement=True,
)
# What was sent stays as the log of what this service said; the relay only ever looks at what waits.
Index(
    "ix_outbox_waiting",
    outbox.c.position,
    sqlite_where=outbox.c.sent_millis.is_(None),
    postgresql_where=outbox.c.sent_millis.is_(None),
)

inbox_claim = Table(
    "inbox_claim",
    KERNEL,
    Column("consumer", String(80), primary_key=True),
    Column("event_id", String(36), primary_key=True),
    Column("claimed_millis", BigInteger, nullable=False),
)

inbox_message = Table(
    "inbox_message",
    KERNEL,
    Column("consumer", String(80), primary_key=True),
    Column("event_id", String(36), primary_key=True),
    Column("topic", String(80), nullable=False),
    Column("envelope", Text, nullable=False),
    # waiting: for another thing (NotYet); failed: to be tried again; dead: for a person.
    Column("state", String(8), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("cause", Text, nullable=False),
    Column("first_millis", BigInteger, nullable=False),
    Column("last_millis", BigInteger, nullable=False),
    Column("next_millis", BigInteger, nullable=False),
)
Index(
    "ix_inbox_message_due",
    inbox_message.c.next_millis,
    sqlite_where=inbox_message.c.state != "dead",
    postgresql_where=inbox_message.c.state != "dead",
)

# What an operator did about a message that did not get through, and why. Never changed.
dead_letter_action = Table(
    "dead_letter_action",
    KERNEL,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("action", String(8), nullable=False),
    Column("event_id", String(36), nullable=False, index=True),
    # None: of an event on its way out.
    Column("consumer", String(80), nullable=True),
    Column("topic", String(80), nullable=False),
    # As it was found.
    Column("state", String(8), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("cause", Text, nullable=False),
    Column("envelope", Text, nullable=False),
    Column("done_by", String(256), nullable=False),
    Column("reason", String(256), nullable=False),
    Column("done_millis", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

idempotency_key = Table(
    "idempotency_key",
    KERNEL,
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("route", String(255), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("body_hash", String(64), nullable=False),
    Column("status", Integer, nullable=True),
    Column("answer", Text, nullable=True),
    Column("headers", Text, nullable=True),
    Column("created_millis", BigInteger, nullable=False, index=True),
)
