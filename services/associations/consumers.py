"""What this service keeps of others' things, as their events tell it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.events import (
    BENCHMARK_EVENTS,
    CONTAINER_EVENTS,
    DATASET_EVENTS,
    BenchmarkFacts,
    ContainerFacts,
    DatasetFacts,
)
from services.kernel import copies
from services.kernel.inbox import Consumer, Delivery

from .tables import benchmark_copies, dataset_copies, model_copies


async def record_benchmark(session: AsyncSession, benchmark: BenchmarkFacts, delivery: Delivery) -> None:
    """Keep what decides who may ask to join, and who is asked."""
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
        preparation_hash=benchmark.preparation_hash,
        reference_model_id=benchmark.reference_model_id,
        preparation_id=benchmark.preparation_id,
        metrics_id=benchmark.metrics_id,
    )


async def record_model(session: AsyncSession, container: ContainerFacts, delivery: Delivery) -> None:
    """Keep every container: any of them may ask to join as a model."""
    await copies.keep(
        session,
        model_copies,
        id=container.id,
        version=delivery.version,
        name=container.name,
        owner_id=container.owner_id,
        state=container.state,
        is_valid=container.is_valid,
    )


async def record_dataset(session: AsyncSession, dataset: DatasetFacts, delivery: Delivery) -> None:
    """Keep what decides whether a dataset fits a benchmark, and which datasets hold the same data."""
    await copies.keep(
        session,
        dataset_copies,
        id=dataset.id,
        version=delivery.version,
        name=dataset.name,
        owner_id=dataset.owner_id,
        state=dataset.state,
        is_valid=dataset.is_valid,
        data_hash=dataset.data_hash,
        preparation_hash=dataset.preparation_hash,
    )


CONSUMERS = (
    Consumer("associations.record_benchmark", BENCHMARK_EVENTS, record_benchmark, rebuilds=benchmark_copies),
    Consumer("associations.record_model", CONTAINER_EVENTS, record_model, rebuilds=model_copies),
    Consumer("associations.record_dataset", DATASET_EVENTS, record_dataset, rebuilds=dataset_copies),
)
