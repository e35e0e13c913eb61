"""What this service keeps of others' things, as their events tell it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.events import ASSOCIATION_EVENTS, AssociationFacts
from services.kernel import copies
from services.kernel.inbox import Consumer, Delivery

from .tables import association_copies


async def record_association(session: AsyncSession, association: AssociationFacts, delivery: Delivery) -> None:
    """Keep what decides who may see a dataset beside its owner."""
    await copies.keep(
        session,
        association_copies,
        id=association.id,
        version=delivery.version,
        benchmark_id=association.benchmark_id,
        benchmark_owner_id=association.benchmark_owner_id,
        part_kind=association.part_kind,
        part_id=association.part_id,
        state=association.state,
    )


CONSUMERS = (
    Consumer("registry.record_association", ASSOCIATION_EVENTS, record_association, rebuilds=association_copies),
)
