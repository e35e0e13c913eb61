"""What this service keeps of others' things, as their events tell it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.events import (
    ASSOCIATION_EVENTS,
    BENCHMARK_EVENTS,
    CONTAINER_EVENTS,
    DATASET_EVENTS,
    AssociationFacts,
    BenchmarkFacts,
    ContainerFacts,
    DatasetFacts,
)
from services.kernel import copies
from services.kernel.inbox import Consumer, Delivery

from .tables import association_copies, benchmark_copies, container_copies, dataset_copies


async def record_benchmark(session: AsyncSession, benchmark: BenchmarkFacts, delivery: Delivery) -> None:
    """Keep what decides whether results are wanted, by which metrics, and who may see them."""
    await copies.keep(
        session,
        benchmark_copies,
        id=benchmark.id,
        version=delivery.version,
        name=benchmark.name,
        owner_id=benchmark.owner_id,
        state=benchmark.state,
        approval=benchmark.approval,
        is_valid=benchmark.is_valid,
        reference_model_id=benchmark.reference_model_id,
        metrics_id=benchmark.metrics_id,
        metrics_hash=benchmark.metrics_hash,
        public_scores=benchmark.public_scores,
    )


async def record_container(session: AsyncSession, container: ContainerFacts, delivery: Delivery) -> None:
    """Keep every container: any of them may be a model."""
    await copies.keep(
        session,
        container_copies,
        id=container.id,
        version=delivery.version,
        name=container.name,
        owner_id=container.owner_id,
        hash=container.hash,
        state=container.state,
        is_valid=container.is_valid,
    )


async def record_dataset(session: AsyncSession, dataset: DatasetFacts, delivery: Delivery) -> None:
    """Keep whose it is and its hash; its name is of no use here."""
    await copies.keep(
        session,
        dataset_copies,
        id=dataset.id,
        version=delivery.version,
        owner_id=dataset.owner_id,
        data_hash=dataset.data_hash,
        is_valid=dataset.is_valid,
    )


async def record_association(session: AsyncSession, association: AssociationFacts, delivery: Delivery) -> None:
    """Keep who takes part in what, and how early: from here on, what is due follows."""
    await copies.keep(
        session,
        association_copies,
        id=association.id,
        version=delivery.version,
        benchmark_id=association.benchmark_id,
        part_kind=association.part_kind,
        part_id=association.part_id,
        state=association.state,
        priority=association.priority,
    )


CONSUMERS = (
    Consumer("results.record_benchmark", BENCHMARK_EVENTS, record_benchmark, rebuilds=benchmark_copies),
    Consumer("results.record_container", CONTAINER_EVENTS, record_container, rebuilds=container_copies),
    Consumer("results.record_dataset", DATASET_EVENTS, record_dataset, rebuilds=dataset_copies),
    Consumer("results.record_association", ASSOCIATION_EVENTS, record_association, rebuilds=association_copies),
)
