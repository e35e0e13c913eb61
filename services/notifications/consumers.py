"""Telling people what happened. These append: an event is never dropped because a later one came before it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.events import (
    ASSOCIATION_DECISIONS,
    RESULT_EVENTS,
    AssociationFacts,
    BenchmarkApproved,
    BenchmarkFacts,
    BenchmarkRejected,
    Event,
    ResultSubmitted,
)
from services.kernel import clock
from services.kernel.inbox import Consumer, Delivery
from services.kernel.log import logger

from . import domain
from .domain import Notification, Told


async def tell_of_association(session: AsyncSession, association: AssociationFacts, delivery: Delivery) -> None:
    """Tell the side that now has something to decide, or to know."""
    await _tell(session, domain.of_association(association), association, delivery)


async def tell_of_benchmark(session: AsyncSession, benchmark: BenchmarkFacts, delivery: Delivery) -> None:
    """Tell a benchmark's owner what an administrator decided."""
    await _tell(session, domain.of_benchmark(benchmark), benchmark, delivery)


async def tell_of_result(session: AsyncSession, result: ResultSubmitted, delivery: Delivery) -> None:
    """Tell the owners of the benchmark and of the model."""
    await _tell(session, domain.of_result(result), result, delivery)


async def _tell(session: AsyncSession, told: Iterable[Told], event: Event, delivery: Delivery) -> None:
    about = f"{event.KIND}/{event.id}"
    at = await clock.now(session)
    for user_id, text in told:
        notification = Notification(
            user_id=user_id,
            event_id=delivery.event_id,
            topic=delivery.topic,
            about=about,
            text=text,
            created_at=at,
            read_at=None,
        )
        session.add(notification)
        await session.flush()
        # The sentence is not logged: it names things that the log's readers need not know.
        logger.info("told", notification_id=notification.id, user_id=user_id, topic=delivery.topic, about=about)


CONSUMERS = (
    Consumer("notifications.tell_of_association", ASSOCIATION_DECISIONS, tell_of_association),
    Consumer("notifications.tell_of_benchmark", (BenchmarkApproved, BenchmarkRejected), tell_of_benchmark),
    Consumer("notifications.tell_of_result", RESULT_EVENTS, tell_of_result),
)
