"""Events on their way out: a row in the same transaction as the change that each tells of."""

from __future__ import annotations

from typing import Protocol
from uuid import uuid4

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.envelope import Envelope
from medperf_contracts.events import Event

from . import clock, tracing
from .tables import outbox


class Thing(Protocol):
    """An aggregate: it has an ID once it was flushed, and a version that each change raises."""

    id: int
    version: int


async def record(session: AsyncSession, thing: Thing, event: Event) -> None:
    """Insert `event` beside the change of `thing`; both are committed together or not at all."""
    await session.flush()  # the version that the event carries is the one after the change
    time = await clock.now(session)
    envelope = Envelope(
        id=uuid4(),
        source=f"/medperf/{session.info['service']}",
        type=event.TOPIC,
        subject=f"{event.KIND}/{event.id}",
        time=time,
        aggregateversion=thing.version,
        traceparent=tracing.current_traceparent(),
        data=event.model_dump(mode="json"),
    )
    await session.execute(
        insert(outbox).values(
            event_id=str(envelope.id),
            topic=event.TOPIC,
            envelope=envelope.model_dump_json(exclude_none=True),
            recorded_millis=clock.database_millis(),
        )
    )
    session.info["recorded_event"] = True
