"""What an operator can see of messages that do not get through, on their way in or out.

Every such message is a row in the service's own database, with its cause. What can be done about one is in
`dead_letter_actions`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import BigInteger, ColumnElement, Select, String, case, func, literal, select, tuple_, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.dead_letters import (
    SHOWN_MOST,
    Action,
    Actions,
    ActionView,
    DeadLetters,
    DeadLetterView,
    EnvelopeView,
    EventStory,
    HandledView,
    MessageState,
    RecordedView,
)
from medperf_contracts.envelope import Envelope

from .clock import Instant, from_millis
from .log import logger
from .tables import dead_letter_action, inbox_claim, inbox_message, outbox

CAUSE_CHARACTERS_MOST = 2_000

# A first try that is under way has no cause yet.
STUCK = (outbox.c.sent_millis.is_(None), outbox.c.cause.is_not(None))
OUTBOX_STATE = case(
    (outbox.c.buried_millis.is_not(None), MessageState.DEAD.value), else_=MessageState.FAILED.value
)
# Since when, of which event, for which consumer.
CURSOR = r"^([0-9]{1,18})/([0-9a-f-]{36})/([a-z_.]{0,80})$"


@dataclass(frozen=True)
class Filter:
    """Which messages: all that fit what is given."""

    event_ids: tuple[str, ...] | None = None
    consumer: str | None = None
    topic: str | None = None
    state: MessageState | None = None

    def incoming(self) -> list[ColumnElement[bool]]:
        """The conditions on messages that the inbox wrote down."""
        rows = inbox_message.c
        found = self._on(rows.event_id, rows.topic, rows.state)
        return found if self.consumer is None else [*found, rows.consumer == self.consumer]

    def outgoing(self) -> list[ColumnElement[bool]]:
        """The conditions on events that the relay could not pass on: no consumer has these yet."""
        found = [*STUCK, *self._on(outbox.c.event_id, outbox.c.topic, OUTBOX_STATE)]
        return found if self.consumer is None else [*found, literal(False)]

    def _on(
        self, event_id: ColumnElement[str], topic: ColumnElement[str], state: ColumnElement[str]
    ) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.event_ids is not None:
            found.append(event_id.in_(self.event_ids))
        if self.topic is not None:
            found.append(topic == self.topic)
        if self.state is not None:
            found.append(state == self.state.value)
        return found


async def browse(session: AsyncSession, wanted: Filter, *, after: str | None = None) -> DeadLetters:
    """A page of the service's messages that have not had their effect, oldest first."""
    either = _incoming(wanted).union_all(_outgoing(wanted)).subquery()
    total = (await session.execute(select(func.count()).select_from(either))).scalar_one()
    key = (either.c.since_millis, either.c.event_id, either.c.consumer)
    query = select(either).order_by(*key).limit(SHOWN_MOST + 1)
    if after is not None:
        query = query.where(tuple_(*key) > tuple_(*_place(after)))
    rows = (await session.execute(query)).all()
    shown = rows[:SHOWN_MOST]
    last = shown[-1] if len(rows) > SHOWN_MOST else None
    cursor = None if last is None else f"{last.since_millis}/{last.event_id}/{last.consumer}"
    return DeadLetters(items=[_view(row) for row in shown], total=total, next_cursor=cursor)


async def dropped(session: AsyncSession, *, after: int, limit: int) -> Actions:
    """A page of the messages that operators gave up, oldest first."""
    is_drop = dead_letter_action.c.action == Action.DROPPED.value
    total = (
        await session.execute(select(func.count()).select_from(dead_letter_action).where(is_drop))
    ).scalar_one()
    query = select(dead_letter_action).where(is_drop, dead_letter_action.c.id > after)
    rows = (await session.execute(query.order_by(dead_letter_action.c.id).limit(limit + 1))).all()
    shown = rows[:limit]
    cursor = str(shown[-1].id) if len(rows) > limit else None
    return Actions(items=[_action(row) for row in shown], total=total, next_cursor=cursor)


async def story(session: AsyncSession, event_id: str, *, with_data: bool) -> EventStory:
    """All that this service knows of an event: where it came from, what became of it, what was done about it."""
    recorded = (await session.execute(select(outbox).where(outbox.c.event_id == event_id))).first()
    actions = (
        await session.execute(
            select(dead_letter_action)
            .where(dead_letter_action.c.event_id == event_id)
            .order_by(dead_letter_action.c.id)
        )
    ).all()
    given_up = {row.consumer for row in actions if row.action == Action.DROPPED.value}
    claims = await session.execute(
        select(inbox_claim.c.consumer, type_coerce(inbox_claim.c.claimed_millis, Instant).label("at"))
        .where(inbox_claim.c.event_id == event_id)
        .order_by(inbox_claim.c.consumer)
    )
    messages = await session.execute(
        select(inbox_message.c.envelope).where(inbox_message.c.event_id == event_id).limit(1)
    )
    stored = [*([recorded.envelope] if recorded else []), *messages.scalars(), *(row.envelope for row in actions)]
    stuck = await browse(session, Filter(event_ids=(event_id,)))
    return EventStory(
        envelope=_envelope(stored[0], with_data=with_data) if stored else None,
        recorded=_recorded(recorded, is_dropped=None in given_up) if recorded else None,
        handled=[HandledView(consumer=row.consumer, at=row.at) for row in claims if row.consumer not in given_up],
        messages=stuck.items,
        actions=[_action(row) for row in actions],
    )


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
        rows.first_millis.label("since_millis"),
        rows.next_millis,
    )
    return query.where(*wanted.incoming())


def _outgoing(wanted: Filter) -> Select[Any]:
    rows = outbox.c
    query = select(
        rows.event_id,
        literal("", String).label("consumer"),
        rows.topic,
        rows.envelope,
        OUTBOX_STATE.label("state"),
        rows.attempts,
        rows.cause,
        rows.recorded_millis.label("since_millis"),
        rows.not_before_millis.label("next_millis"),
    )
    return query.where(*wanted.outgoing())


def _place(cursor: str) -> tuple[ColumnElement[Any], ...]:
    since, event_id, consumer = cursor.split("/")
    return literal(int(since), BigInteger), literal(event_id), literal(consumer)


def _view(row: Any) -> DeadLetterView:
    state = MessageState(row.state)
    next_try: datetime | None = None if state is MessageState.DEAD else from_millis(row.next_millis)
    return DeadLetterView(
        event_id=row.event_id,
        consumer=row.consumer or None,
        topic=row.topic,
        subject=subject_of(row.envelope),
        state=state,
        attempts=row.attempts,
        cause=row.cause,
        since=from_millis(row.since_millis),
        next_try=next_try,
    )


def _action(row: Any) -> ActionView:
    return ActionView(
        event_id=row.event_id,
        action=Action(row.action),
        consumer=row.consumer,
        topic=row.topic,
        subject=subject_of(row.envelope),
        state=MessageState(row.state),
        attempts=row.attempts,
        cause=row.cause,
        by=row.done_by,
        reason=row.reason,
        at=from_millis(row.done_millis),
    )


def _recorded(row: Any, *, is_dropped: bool) -> RecordedView:
    # One that was given up is marked as if it had left, so that no relay takes it.
    has_left = row.sent_millis is not None and not is_dropped
    return RecordedView(
        at=from_millis(row.recorded_millis), left_at=from_millis(row.sent_millis) if has_left else None
    )


def _envelope(stored: str, *, with_data: bool) -> EnvelopeView | None:
    try:
        envelope = Envelope.model_validate_json(stored)
    except ValidationError:
        return None
    return EnvelopeView(
        source=envelope.source,
        topic=envelope.type,
        subject=envelope.subject,
        time=envelope.time,
        version=envelope.aggregateversion,
        traceparent=envelope.traceparent,
        data=envelope.data if with_data else None,
    )
