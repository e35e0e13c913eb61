"""Events on their way in: each has its effect exactly once, and none is stuck without a reason.

A claim and the effect are one transaction. A failed effect is rolled back, and a second transaction writes the
message with its cause and its next time, so retries and dead letters are rows in the consumer's own database.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Row, Table, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.envelope import Envelope
from medperf_contracts.events import Event

from . import metrics, tracing
from .bus import Queue
from .clock import database_millis
from .db import Database
from .dead_letters import CAUSE_CHARACTERS_MOST, log_dead, subject_of, unreadable_because
from .errors import ServerBusy, StorageFailed, StorageFull
from .log import logger
from .tables import inbox_claim, inbox_message

ATTEMPTS_MOST = 12
# Some two minutes of a worker that holds the message; its database being away as long writes nothing down.
HELD_MOST = 20
ROWS_REFUSED_MOST = 3
FIRST_DELAY_MILLIS, LONGEST_DELAY_MILLIS = 500, 300_000
WAIT_DELAY_MILLIS, WAIT_MOST_MILLIS = 1_000, 24 * 3_600_000
POLL_SECONDS = 0.5
RETRY_BATCH = 50
# Longer than the longest retry, so that a late copy of a handled event is still known.
CLAIMS_KEPT_MILLIS = 30 * 24 * 3_600_000
TIDY_SECONDS = 3600.0


class NotYet(Exception):
    """The effect cannot go yet; the message says for what it waits. Not an attempt; bounded in hours."""


@dataclass(frozen=True)
class Delivery:
    """What an effect may know of the message itself."""

    event_id: str
    topic: str
    version: int
    time: datetime


Effect = Callable[[AsyncSession, Any, Delivery], Awaitable[None]]


@dataclass(frozen=True)
class Consumer:
    """A queue, the events that it gets, and their effect. `name` is `<service>.<handler>`, and the inbox key."""

    name: str
    events: Sequence[type[Event]]
    effect: Effect
    rebuilds: Table | None = None
    """The copy that it keeps by `copies.keep` and that holds nothing else, so that the publishers' logs give it
    back; None for a consumer that appends, or has effects elsewhere."""

    def event_class(self, topic: str) -> type[Event]:
        """The class of a topic's events; KeyError if the consumer does not know the topic."""
        return {event.TOPIC: event for event in self.events}[topic]


async def handle_once(session: AsyncSession, consumer: Consumer, envelope: Envelope) -> int | None:
    """Claim the event for the consumer and let it have its effect; None if it had it before.

    Returns the claim's time, in milliseconds of the database's clock.
    """
    claimed_millis = await claim(session, consumer.name, str(envelope.id))
    if claimed_millis is None:
        return None
    event = consumer.event_class(envelope.type).model_validate(envelope.data)
    delivery = Delivery(str(envelope.id), envelope.type, envelope.aggregateversion, envelope.time)
    await consumer.effect(session, event, delivery)
    return claimed_millis


async def claim(session: AsyncSession, consumer_name: str, event_id: str) -> int | None:
    """Claim the event for the consumer, after whoever does so at this moment; None if it was claimed before.

    Returns the claim's time, in milliseconds of the database's clock.
    """
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    result = await session.execute(
        dialect.insert(inbox_claim)
        .values(consumer=consumer_name, event_id=event_id, claimed_millis=database_millis())
        .on_conflict_do_nothing()
        .returning(inbox_claim.c.claimed_millis)
    )
    return result.scalar_one_or_none()


class Inbox:
    """Receives for one service's consumers."""

    def __init__(self, database: Database, consumers: Sequence[Consumer]) -> None:
        self._database = database
        self._consumers = {consumer.name: consumer for consumer in consumers}
        self.last_pass = time.monotonic()
        self._held = Counter[tuple[str, str]]()
        """By consumer and event: how often its database refused in a row what it was to do."""
        for consumer in consumers:  # counters that begin with the first failure do not show it as a rise
            for outcome in metrics.ATTEMPT_OUTCOMES:
                metrics.INBOX_ATTEMPTS.labels(consumer.name, outcome)

    def queues(self) -> list[Queue]:
        """A queue for each consumer."""
        return [
            Queue(
                name=consumer.name,
                topics=frozenset(event.TOPIC for event in consumer.events),
                receive=partial(self.receive, consumer),
            )
            for consumer in self._consumers.values()
        ]

    async def receive(self, consumer: Consumer, envelope: Envelope) -> None:
        """Handle a delivery, or write down why not. Raises only if neither could be committed."""
        async with self._database.read() as session:
            if (await session.execute(_message(consumer.name, str(envelope.id)))).first() is not None:
                return  # written down already: its own times decide when it is tried again
        await self._attempt(consumer, envelope, attempts_before=0)

    async def run(self) -> None:
        """Try again what is due, until cancelled; forget claims that nothing can come back for."""
        tidied = 0.0
        while True:
            self.last_pass = time.monotonic()
            try:
                tried = await self.retry_due()
                if time.monotonic() - tidied > TIDY_SECONDS:
                    tidied = time.monotonic()  # whether it ends or not: it is not urgent
                    await self._forget_old_claims()
            except Exception as error:  # noqa: BLE001 (its database is away: nothing counts as an attempt)
                logger.error("inbox_failed", service=self._database.service, cause=repr(error))
                tried = 0
            if not tried:
                await asyncio.sleep(POLL_SECONDS)

    async def retry_due(self) -> int:
        """Try each message whose time has come, once; returns how many its database let be tried."""
        async with self._database.read() as session:
            rows = (
                await session.execute(
                    select(inbox_message)
                    .where(inbox_message.c.state != "dead", inbox_message.c.next_millis <= database_millis())
                    .order_by(inbox_message.c.next_millis)
                    .limit(RETRY_BATCH)
                )
            ).all()
        refused = 0
        for row in rows:
            consumer = self._consumers.get(row.consumer)
            if consumer is None:
                # A consumer that was renamed or dropped: a person must say what becomes of its messages.
                await self._bury(row, "this service has no consumer of that name any more")
                continue
            try:
                envelope = Envelope.model_validate_json(row.envelope)
            except ValidationError as error:
                await self._bury(row, unreadable_because(error))
                continue
            try:
                await self._attempt(consumer, envelope, attempts_before=row.attempts)
            except (StorageFull, StorageFailed, ServerBusy):
                refused += 1
                if refused == min(len(rows), ROWS_REFUSED_MOST):  # it is not this message that it refuses
                    raise
        return len(rows) - refused

    async def _attempt(self, consumer: Consumer, envelope: Envelope, *, attempts_before: int) -> None:
        with tracing.handling(consumer.name, envelope) as span:
            began = time.monotonic()
            try:
                outcome, cause = await self._try(consumer, envelope, attempts_before)
            except Exception as error:
                metrics.INBOX_ATTEMPTS.labels(consumer.name, "held").inc()
                tracing.fail(span, type(error).__name__)
                raise
            seconds = time.monotonic() - began
            metrics.INBOX_ATTEMPTS.labels(consumer.name, outcome).inc()
            metrics.INBOX_ATTEMPT_SECONDS.labels(consumer.name).observe(seconds)
            span.set_attribute("medperf.outcome", outcome)
            if outcome in ("failed", "dead"):
                tracing.fail(span, outcome)
            logger.info(
                "delivery",
                consumer=consumer.name,
                topic=envelope.type,
                subject=envelope.subject,
                event_id=str(envelope.id),
                outcome=outcome,
                cause=cause or None,
                millis=round(seconds * 1000, 1),
                trace_id=tracing.current_trace_id(),
            )

    async def _try(self, consumer: Consumer, envelope: Envelope, attempts_before: int) -> tuple[str, str]:
        """The delivery's outcome, and its cause where that is not its effect."""
        try:
            async with self._database.write(in_background=True) as session:
                claimed_millis = await handle_once(session, consumer, envelope)
                await session.execute(
                    delete(inbox_message).where(
                        inbox_message.c.consumer == consumer.name, inbox_message.c.event_id == str(envelope.id)
                    )
                )
        except NotYet as reason:
            cause = str(reason)
            return await self._write_down(consumer, envelope, cause, attempts_before, counts=False), cause
        except (StorageFull, StorageFailed, ServerBusy) as refusal:
            # Its own database is full, away or busy: that is no attempt, and cannot be written down. Where it can
            # after all, it is the effect itself that the database refuses, and a person must see it in the end.
            key = (consumer.name, str(envelope.id))
            self._held[key] += 1
            if self._held[key] < HELD_MOST:
                raise
            cause = f"{type(refusal).__name__}, {HELD_MOST} times: {refusal.detail}"[:CAUSE_CHARACTERS_MOST]
            outcome = await self._write_down(consumer, envelope, cause, attempts_before, counts=True)
            del self._held[key]
            return outcome, cause
        except Exception as error:  # noqa: BLE001 (whatever it is, it is written down and retried, or raised again)
            cause = f"{type(error).__name__}: {error}"[:CAUSE_CHARACTERS_MOST]
            return await self._write_down(consumer, envelope, cause, attempts_before, counts=True), cause
        self._held.pop((consumer.name, str(envelope.id)), None)
        if claimed_millis is None:
            return "handled_before", ""
        # Two databases may have two clocks: no effect is said to be older than its cause.
        lag_seconds = max(0.0, claimed_millis / 1000 - envelope.time.timestamp())
        metrics.EVENT_LAG_SECONDS.labels(consumer.name).observe(lag_seconds)
        return "handled", ""

    async def _write_down(
        self, consumer: Consumer, envelope: Envelope, cause: str, attempts_before: int, *, counts: bool
    ) -> str:
        """Keep a message that could not have its effect; returns its state."""
        attempts = attempts_before + counts
        delay = WAIT_DELAY_MILLIS
        if counts:
            delay = min(FIRST_DELAY_MILLIS * 2 ** (attempts - 1), LONGEST_DELAY_MILLIS)
        async with self._database.write(in_background=True) as session:
            is_claimed = select(inbox_claim.c.event_id).where(
                inbox_claim.c.consumer == consumer.name, inbox_claim.c.event_id == str(envelope.id)
            )
            if (await session.execute(is_claimed)).first() is not None:
                return "handled_before"  # another process had the effect meanwhile, or an operator gave it up
            now = (await session.execute(select(database_millis()))).scalar_one()
            row = (await session.execute(_message(consumer.name, str(envelope.id)))).first()
            first = now if row is None else row.first_millis
            state = "failed" if counts else "waiting"
            if attempts >= ATTEMPTS_MOST:
                state = "dead"
            elif not counts and now - first > WAIT_MOST_MILLIS:
                state, cause = "dead", f"waited for {WAIT_MOST_MILLIS // 3_600_000} hours: {cause}"
            values = {
                "state": state,
                "attempts": attempts,
                "cause": cause,
                "last_millis": now,
                "next_millis": now + delay,
            }
            if row is None:
                await session.execute(
                    insert(inbox_message).values(
                        consumer=consumer.name,
                        event_id=str(envelope.id),
                        topic=envelope.type,
                        envelope=envelope.model_dump_json(exclude_none=True),
                        first_millis=first,
                        **values,
                    )
                )
            else:
                await session.execute(_update(consumer.name, str(envelope.id)).values(**values))
        if state == "dead":
            log_dead(
                self._database.service,
                consumer=consumer.name,
                topic=envelope.type,
                subject=envelope.subject,
                event_id=str(envelope.id),
                cause=cause,
            )
        return state

    async def _bury(self, row: Row[Any], cause: str) -> None:
        metrics.INBOX_ATTEMPTS.labels(row.consumer, "dead").inc()
        async with self._database.write(in_background=True) as session:
            await session.execute(
                _update(row.consumer, row.event_id).values(
                    state="dead", cause=cause, last_millis=database_millis()
                )
            )
        log_dead(
            self._database.service,
            consumer=row.consumer,
            topic=row.topic,
            subject=subject_of(row.envelope),
            event_id=row.event_id,
            cause=cause,
        )

    async def _forget_old_claims(self) -> None:
        async with self._database.write(in_background=True) as session:
            await session.execute(
                delete(inbox_claim).where(inbox_claim.c.claimed_millis < database_millis() - CLAIMS_KEPT_MILLIS)
            )


def _message(consumer_name: str, event_id: str) -> Any:
    return select(inbox_message).where(
        inbox_message.c.consumer == consumer_name, inbox_message.c.event_id == event_id
    )


def _update(consumer_name: str, event_id: str) -> Any:
    return update(inbox_message).where(
        inbox_message.c.consumer == consumer_name, inbox_message.c.event_id == event_id
    )
