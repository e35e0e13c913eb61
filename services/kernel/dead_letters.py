"""What an operator can see and do about messages that do not get through, on their way in or out.

Every such message is a row in the service's own database, with its cause. A replay makes it due, as if it had just
come: the service's own relay and inbox do the rest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Select, case, func, literal, select, true, type_coerce, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.dead_letters import SHOWN_MOST, DeadLetters, DeadLetterView, MessageState

from .clock import Instant, database_millis
from .log import logger
from .tables import inbox_message, outbox

CAUSE_CHARACTERS_MOST = 2_000

_DEAD, _FAILED = MessageState.DEAD.value, MessageState.FAILED.value
# A first try that is under way has no cause yet.
_STUCK = (outbox.c.sent_millis.is_(None), outbox.c.cause.is_not(None))
_OUTBOX_STATE = case((outbox.c.buried_millis.is_not(None), _DEAD), else_=_FAILED)


@dataclass(frozen=True)
class Filter:
    """Which messages."""

    event_id: str | None = None
    state: MessageState | None = None


async def browse(session: AsyncSession, wanted: Filter) -> DeadLetters:
    """The service's messages that have not had their effect, oldest first."""
    either = _incoming(wanted).union_all(_outgoing(wanted)).subquery()
    total = (await session.execute(select(func.count()).select_from(either))).scalar_one()
    rows = await session.execute(select(either).order_by(either.c.since, either.c.event_id).limit(SHOWN_MOST))
    return DeadLetters(items=[_view(row) for row in rows], total=total)


async def replay(session: AsyncSession, event_ids: Sequence[str] | None) -> int:
    """Try again at once, and as often as a new message would be; None for all. Returns how many."""
    incoming = (
        update(inbox_message)
        .where(_one_of(inbox_message.c.event_id, event_ids))
        .values(state=_FAILED, attempts=0, first_millis=database_millis(), next_millis=database_millis())
    )
    outgoing = (
        update(outbox)
        .where(*_STUCK, _one_of(outbox.c.event_id, event_ids))
        .values(attempts=0, not_before_millis=0, buried_millis=None)
    )
    count = 0
    for statement in (incoming, outgoing):
        result = await session.execute(statement)
        count += result.rowcount if isinstance(result, CursorResult) else 0
    session.info["recorded_event"] = True  # the relay looks at once
    return count


def unreadable_because(error: ValidationError) -> str:
    """Why a stored event cannot be read, without any of what it holds."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ") for each in problems)
    return f"the stored event cannot be read: {told}"[:CAUSE_CHARACTERS_MOST]


def subject_of(envelope: str) -> str | None:
    """The thing that a stored event tells of, as far as that can be read."""
    try:
        return str(json.loads(envelope)["subject"])[:80]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def log_dead(
    service: str, *, consumer: str | None, topic: str, subject: str | None, event_id: str, cause: str
) -> None:
    """Tell the operator of a message that from now on nobody tries again."""
    logger.warning(
        "message_dead",
        service=service,
        consumer=consumer,
        topic=topic,
        subject=subject,
        event_id=event_id,
        cause=cause,
        next_step=f"mend the cause, then: medperf-server dead-letters replay {event_id}",
    )


def _incoming(wanted: Filter) -> Select[Any]:
    rows = inbox_message.c
    query = select(
        rows.event_id,
        rows.consumer,
        rows.topic,
        rows.envelope,
        rows.state,
        rows.attempts,
        rows.cause,
        type_coerce(rows.first_millis, Instant).label("since"),
        type_coerce(rows.next_millis, Instant).label("next_try"),
    )
    return query.where(*_matching(wanted, rows.event_id, rows.state))


def _outgoing(wanted: Filter) -> Select[Any]:
    rows = outbox.c
    query = select(
        rows.event_id,
        literal(None).label("consumer"),
        rows.topic,
        rows.envelope,
        _OUTBOX_STATE.label("state"),
        rows.attempts,
        rows.cause,
        type_coerce(rows.recorded_millis, Instant).label("since"),
        type_coerce(rows.not_before_millis, Instant).label("next_try"),
    )
    return query.where(*_STUCK, *_matching(wanted, rows.event_id, _OUTBOX_STATE))


def _matching(
    wanted: Filter, event_id: ColumnElement[str], state: ColumnElement[str]
) -> tuple[ColumnElement[bool], ...]:
    has_id = true() if wanted.event_id is None else event_id == wanted.event_id
    has_state = true() if wanted.state is None else state == wanted.state.value
    return has_id, has_state


def _one_of(event_id: ColumnElement[str], event_ids: Sequence[str] | None) -> ColumnElement[bool]:
    return true() if event_ids is None else event_id.in_(event_ids)


def _view(row: Any) -> DeadLetterView:
    state = MessageState(row.state)
    next_try: datetime | None = None if state is MessageState.DEAD else row.next_try
    return DeadLetterView(
        event_id=row.event_id,
        consumer=row.consumer,
        topic=row.topic,
        subject=subject_of(row.envelope),
        state=state,
        attempts=row.attempts,
        cause=row.cause,
        since=row.since,
        next_try=next_try,
    )
