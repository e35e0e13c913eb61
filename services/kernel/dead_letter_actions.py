"""What an operator does about messages that do not get through; each action is kept, with who, when and why.

A replay makes a message due, as if it had just come: the service's own relay and inbox do the rest. A drop gives
it up for good: its claim is written without the effect, so that a late duplicate does not bring it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.dead_letters import Action, MessageState

from .clock import database_millis
from .dead_letters import OUTBOX_STATE, Filter
from .inbox import claim
from .tables import dead_letter_action, inbox_message, outbox


async def replay(session: AsyncSession, wanted: Filter, *, by: str, reason: str) -> int:
    """Try these again at once, and as often as a new message would be. Returns how many."""
    incoming = await _messages(session, wanted)
    outgoing = await _events(session, wanted)
    await _keep(session, Action.REPLAYED, [*incoming, *outgoing], by=by, reason=reason)
    now = database_millis()
    for row in incoming:
        await session.execute(
            update(inbox_message)
            .where(*_is(row))
            .values(state=MessageState.FAILED.value, attempts=0, first_millis=now, next_millis=now)
        )
    for row in outgoing:
        await session.execute(
            update(outbox)
            .where(outbox.c.event_id == row.event_id, outbox.c.sent_millis.is_(None))
            .values(attempts=0, not_before_millis=0, buried_millis=None)
        )
    session.info["recorded_event"] = True  # the relay looks at once
    return len(incoming) + len(outgoing)


async def drop(session: AsyncSession, wanted: Filter, *, by: str, reason: str) -> int:
    """Give these up: they never have their effect. Returns how many.

    An event on its way out is given up only once it is dead: whatever only fails concerns every consumer, and
    leaves as soon as the bus takes it.
    """
    dropped: list[Any] = []
    for row in await _messages(session, wanted):
        # The claim comes first, as in the inbox: one that has its effect at this very moment is waited for.
        if await claim(session, row.consumer, row.event_id):
            dropped.append(row)
        await session.execute(delete(inbox_message).where(*_is(row)))
    for row in await _events(session, wanted):
        if row.state == MessageState.DEAD.value:
            dropped.append(row)
            # It stays in the log; no relay looks at what is marked as sent.
            await session.execute(
                update(outbox).where(outbox.c.event_id == row.event_id).values(sent_millis=database_millis())
            )
    await _keep(session, Action.DROPPED, dropped, by=by, reason=reason)
    return len(dropped)


async def dropped_events(session: AsyncSession, consumer: str | None) -> set[str]:
    """The IDs of the events that were given up for a consumer; for None, before they left this service."""
    rows = dead_letter_action.c
    is_its = rows.consumer.is_(None) if consumer is None else rows.consumer == consumer
    query = select(rows.event_id).where(rows.action == Action.DROPPED.value, is_its)
    return set((await session.execute(query)).scalars())


async def _messages(session: AsyncSession, wanted: Filter) -> Sequence[Any]:
    rows = inbox_message.c
    query = select(
        rows.consumer, rows.event_id, rows.topic, rows.state, rows.attempts, rows.cause, rows.envelope
    ).where(*wanted.incoming())
    return (await session.execute(query.order_by(rows.event_id, rows.consumer))).all()


async def _events(session: AsyncSession, wanted: Filter) -> Sequence[Any]:
    rows = outbox.c
    query = select(
        rows.event_id, rows.topic, OUTBOX_STATE.label("state"), rows.attempts, rows.cause, rows.envelope
    ).where(*wanted.outgoing())
    return (await session.execute(query.order_by(rows.position))).all()


async def _keep(session: AsyncSession, action: Action, found: Sequence[Any], *, by: str, reason: str) -> None:
    if found:
        done = {"action": action.value, "done_by": by, "reason": reason}
        kept = [{"consumer": None} | dict(row._mapping) | done for row in found]
        await session.execute(insert(dead_letter_action).values(done_millis=database_millis()), kept)


def _is(row: Any) -> tuple[Any, Any]:
    return inbox_message.c.consumer == row.consumer, inbox_message.c.event_id == row.event_id
