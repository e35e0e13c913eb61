"""What can be done with containers, benchmarks, datasets and progress: load, decide, record the event."""

from __future__ import annotations

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.registry import (
    BenchmarkChanges,
    ContainerChanges,
    DatasetChanges,
    NewBenchmark,
    NewContainer,
    NewDataset,
    NewProgress,
    ProgressWithdrawal,
)
from services.kernel import clock, outbox
from services.kernel.auth import Caller
from services.kernel.db import unique_or
from services.kernel.errors import ChangedMeanwhile, VersionDiffers

from .domain.benchmarks import Benchmark
from .domain.containers import Container
from .domain.datasets import Dataset
from .domain.progress import Progress
from .errors import BenchmarkExists, ContainerExists, TooManyPreparations
from .queries import find_benchmark, find_container, find_dataset
from .tables import benchmarks, containers, datasets, progress

# Of one person for one benchmark: more than any site prepares.
PROGRESS_MOST = 200


async def register_container(session: AsyncSession, caller: Caller, body: NewContainer) -> Container:
    """Register a container in development."""
    container = Container.register(body, by=caller.user_id, owner_name=caller.name, at=await clock.now(session))
    there = await session.scalar(
        select(Container).where(containers.c.owner_id == caller.user_id, containers.c.hash == container.hash)
    )
    if there is not None:
        detail = f'You registered this container already: container {there.id}, "{there.name}".'
        raise ContainerExists(detail, existing=f"container/{there.id}")
    async with unique_or(session, ContainerExists("You registered this container at this very moment.")):
        session.add(container)
    await outbox.record(session, container, container.registered())
    return container


async def update_container(
    session: AsyncSession, caller: Caller, container_id: int, body: ContainerChanges, expected_version: int
) -> Container:
    """Change a container's description, validity or URLs."""
    container = await find_container(session, caller, container_id)
    _check_version(container, f"Container {container_id}", expected_version)
    event = container.update(body)
    if event is not None:
        await outbox.record(session, container, event)
    return container


async def set_container_operational(session: AsyncSession, caller: Caller, container_id: int) -> Container:
    """The owner offers a container to everybody."""
    container = await find_container(session, caller, container_id)
    await outbox.record(session, container, container.set_operational())
    return container


async def register_benchmark(session: AsyncSession, caller: Caller, body: NewBenchmark) -> Benchmark:
    """Register a benchmark in development, of containers that the caller may see."""
    benchmark = Benchmark.register(
        body,
        preparation=await find_container(session, caller, body.preparation_id),
        reference_model=await find_container(session, caller, body.reference_model_id),
        metrics=await find_container(session, caller, body.metrics_id),
        by=caller.user_id,
        owner_name=caller.name,
        at=await clock.now(session),
    )
    there = await session.scalar(
        select(Benchmark).where(benchmarks.c.owner_id == caller.user_id, benchmarks.c.hash == benchmark.hash)
    )
    if there is not None:
        detail = f'You registered a benchmark of these parts already: benchmark {there.id}, "{there.name}".'
        raise BenchmarkExists(detail, existing=f"benchmark/{there.id}")
    async with unique_or(session, BenchmarkExists("You registered this benchmark at this very moment.")):
        session.add(benchmark)
    await outbox.record(session, benchmark, benchmark.registered())
    return benchmark


async def update_benchmark(
    session: AsyncSession, caller: Caller, benchmark_id: int, body: BenchmarkChanges, expected_version: int
) -> Benchmark:
    """Change a benchmark's description, validity or URLs."""
    benchmark = await find_benchmark(session, caller, benchmark_id)
    _check_version(benchmark, f"Benchmark {benchmark_id}", expected_version)
    event = benchmark.update(body)
    if event is not None:
        await outbox.record(session, benchmark, event)
    return benchmark


async def set_benchmark_operational(session: AsyncSession, caller: Caller, benchmark_id: int) -> Benchmark:
    """The owner puts a benchmark before the administrators."""
    benchmark = await find_benchmark(session, caller, benchmark_id)
    part_ids = (benchmark.preparation_id, benchmark.reference_model_id, benchmark.metrics_id)
    parts = await session.scalars(select(Container).where(containers.c.id.in_(part_ids)).order_by(containers.c.id))
    await outbox.record(session, benchmark, benchmark.set_operational(parts))
    return benchmark


async def approve_benchmark(session: AsyncSession, caller: Caller, benchmark_id: int) -> Benchmark:
    """An administrator lets a benchmark begin."""
    benchmark = await find_benchmark(session, caller, benchmark_id)
    await outbox.record(session, benchmark, benchmark.approve(by=caller.user_id))
    return benchmark


async def reject_benchmark(session: AsyncSession, caller: Caller, benchmark_id: int) -> Benchmark:
    """An administrator refuses a benchmark."""
    benchmark = await find_benchmark(session, caller, benchmark_id)
    await outbox.record(session, benchmark, benchmark.reject(by=caller.user_id))
    return benchmark


async def register_dataset(session: AsyncSession, caller: Caller, body: NewDataset) -> tuple[Dataset, bool]:
    """Register a dataset, or find the one that the caller registered before; True if it is new."""
    there = await session.scalar(
        select(Dataset).where(
            datasets.c.owner_id == caller.user_id,
            datasets.c.data_hash == body.data_hash,
            datasets.c.preparation_id == body.preparation_id,
        )
    )
    if there is not None:
        return there, False
    dataset = Dataset.register(
        body,
        preparation=await find_container(session, caller, body.preparation_id),
        by=caller.user_id,
        owner_name=caller.name,
        at=await clock.now(session),
    )
    twice = ChangedMeanwhile(
        "You registered this dataset at this very moment.", hint="Send the same request again to be shown it."
    )
    async with unique_or(session, twice):
        session.add(dataset)
    await outbox.record(session, dataset, dataset.registered())
    return dataset, True


async def update_dataset(
    session: AsyncSession, caller: Caller, dataset_id: int, body: DatasetChanges, expected_version: int
) -> Dataset:
    """Change a dataset's description, location or validity."""
    dataset = await find_dataset(session, caller, dataset_id)
    _check_version(dataset, f"Dataset {dataset_id}", expected_version)
    event = dataset.update(body)
    if event is not None:
        await outbox.record(session, dataset, event)
    return dataset


async def tell_progress(session: AsyncSession, caller: Caller, body: NewProgress) -> Progress:
    """Keep how far a preparation of the caller's is; no event, as no other service has a use for it."""
    is_told = and_(progress.c.owner_id == caller.user_id, progress.c.is_withdrawn.is_(False))
    is_another = and_(progress.c.benchmark_id == body.benchmark_id, progress.c.preparation != body.preparation)
    others = await session.scalar(select(func.count()).select_from(progress).where(is_told, is_another))
    if (others or 0) >= PROGRESS_MOST:
        raise TooManyPreparations(f"You tell of {PROGRESS_MOST} preparations for benchmark {body.benchmark_id}.")
    found = await _progress_of(session, caller, body)
    found.tell(body, at=await clock.now(session))
    await session.flush()
    return found


async def withdraw_progress(session: AsyncSession, caller: Caller, body: ProgressWithdrawal) -> Progress:
    """Forget how far a preparation is; what was told of it and is still on its way will be refused."""
    found = await _progress_of(session, caller, body)
    found.withdraw()
    await session.flush()
    return found


async def _progress_of(session: AsyncSession, caller: Caller, body: NewProgress | ProgressWithdrawal) -> Progress:
    """What the caller told of this preparation to the benchmark's owner, or a row in which to keep it."""
    benchmark = await find_benchmark(session, caller, body.benchmark_id)
    there = await session.scalar(
        select(Progress).where(
            progress.c.owner_id == caller.user_id,
            progress.c.benchmark_id == benchmark.id,
            progress.c.preparation == body.preparation,
        )
    )
    if there is not None:
        return there
    begun = Progress.begin(
        body.preparation,
        benchmark=benchmark,
        by=caller.user_id,
        owner_name=caller.name,
        at=await clock.now(session),
    )
    twice = ChangedMeanwhile("You told of this preparation at this very moment.", hint="Send it again.")
    async with unique_or(session, twice):
        session.add(begun)
    return begun


def _check_version(thing: outbox.Thing, name: str, expected: int) -> None:
    if thing.version != expected:
        raise VersionDiffers(f"{name} is at version {thing.version}, not {expected}.")
