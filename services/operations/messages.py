"""Whether a service's messages move, or something says why not."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Table, and_, func, or_, select

from services.kernel.clock import database_millis
from services.kernel.db import Database
from services.kernel.tables import dead_letter_action, inbox_message, outbox

# Relays and inboxes look every second; a publish is given up after 20.
OVERDUE_MILLIS = 60_000


@dataclass(frozen=True)
class Messages:
    """A service's messages that have not had their effect."""

    service: str
    waiting: int
    failed: int
    dead: int
    dropped: int
    not_sent: int
    """Events that the bus has not taken yet."""
    faults: list[str] = field(default_factory=list)
    """What does not move although nothing says why, or waits for a person."""


async def look_at_messages(database: Database) -> Messages:
    """Count a service's messages, and find those that are left lying."""
    rows, events, actions = inbox_message.c, outbox.c, dead_letter_action.c
    is_late = database_millis() - OVERDUE_MILLIS
    waits = events.sent_millis.is_(None)
    not_tried = and_(events.buried_millis.is_(None), events.recorded_millis < is_late)
    async with database.read() as session:
        states = select(rows.state, func.count()).group_by(rows.state)
        counts = {str(state): int(count) for state, count in await session.execute(states)}

        async def count(table: Table, *conditions: ColumnElement[bool]) -> int:
            query = select(func.count()).select_from(table).where(*conditions)
            return (await session.execute(query)).scalar_one()

        not_sent = await count(outbox, waits)
        buried = await count(outbox, waits, events.buried_millis.is_not(None))
        forgotten = await count(
            outbox, waits, not_tried, or_(events.cause.is_(None), events.not_before_millis < is_late)
        )
        overdue = await count(inbox_message, rows.state != "dead", rows.next_millis < is_late)
        dropped = await count(dead_letter_action, actions.action == "dropped")
    dead = counts.get("dead", 0) + buried
    faults = []
    if dead:
        faults.append(f"{dead} dead: see medperf-server dead-letters ls --service {database.service} --state dead")
    if forgotten:
        faults.append(f"{forgotten} events wait to be sent, and nothing sends them: is its worker (or server) up?")
    if overdue:
        faults.append(f"{overdue} messages are due, and nothing tries them: is its worker (or server) up?")
    return Messages(
        service=database.service,
        waiting=counts.get("waiting", 0),
        failed=counts.get("failed", 0),
        dead=dead,
        dropped=dropped,
        not_sent=not_sent - buried,
        faults=faults,
    )
