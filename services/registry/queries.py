"""What can be asked of containers, benchmarks, datasets and progress; and who may see which."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.associations import PartKind
from medperf_contracts.paging import Page
from medperf_contracts.registry import BenchmarkView, ContainerView, DatasetView, ProgressView
from medperf_contracts.values import Decision, State
from services.kernel.auth import Caller
from services.kernel.errors import NoSuchThing
from services.kernel.paging import PageRequest, page

from .domain.benchmarks import Benchmark
from .domain.containers import Container
from .domain.datasets import Dataset
from .domain.progress import Progress
from .tables import association_copies, benchmarks, containers, datasets, progress

# In any state: the benchmark's owner was asked and has seen it, and decides again when it is asked for again.
_asked_to_join = association_copies.c.part_kind == PartKind.DATASET


@dataclass(frozen=True)
class ContainerFilter:
    """Which containers of those that the caller may see."""

    mine: bool = False
    name: str | None = None
    state: State | None = None


@dataclass(frozen=True)
class BenchmarkFilter:
    """Which benchmarks of those that the caller may see."""

    mine: bool = False
    name: str | None = None
    state: State | None = None
    approval: Decision | None = None


@dataclass(frozen=True)
class DatasetFilter:
    """Which datasets of those that the caller may see."""

    mine: bool = False
    benchmark: int | None = None
    """Those that asked to join this benchmark, as far as the caller may know of that."""
    data_hash: str | None = None
    generated_uid: str | None = None


async def find_container(session: AsyncSession, caller: Caller, container_id: int) -> Container:
    """The container, where what the caller is to it admits them."""
    container = await session.get(Container, container_id)
    if container is None:
        raise NoSuchThing(f"There is no container {container_id} that you may see.")
    caller.require(
        container.roles_of(caller.user_id),
        thing=f"container {container_id}",
        may_see=caller.is_admin or container.is_visible_to(caller.user_id),
    )
    return container


async def find_benchmark(session: AsyncSession, caller: Caller, benchmark_id: int) -> Benchmark:
    """The benchmark, where what the caller is to it admits them."""
    benchmark = await session.get(Benchmark, benchmark_id)
    if benchmark is None:
        raise NoSuchThing(f"There is no benchmark {benchmark_id} that you may see.")
    caller.require(
        benchmark.roles_of(caller.user_id),
        thing=f"benchmark {benchmark_id}",
        may_see=caller.is_admin or benchmark.is_visible_to(caller.user_id),
    )
    return benchmark


async def find_dataset(session: AsyncSession, caller: Caller, dataset_id: int) -> Dataset:
    """The dataset, where what the caller is to it admits them."""
    dataset = await session.get(Dataset, dataset_id)
    if dataset is None:
        raise NoSuchThing(f"There is no dataset {dataset_id} that you may see.")
    owners = await session.scalars(
        select(association_copies.c.benchmark_owner_id).where(
            association_copies.c.part_id == dataset_id, _asked_to_join
        )
    )
    roles = dataset.roles_of(caller.user_id, benchmark_owner_ids=set(owners))
    caller.require(roles, thing=f"dataset {dataset_id}")
    return dataset


async def browse_containers(
    session: AsyncSession, caller: Caller, wanted: ContainerFilter, asked: PageRequest
) -> Page[ContainerView]:
    """The caller's containers and those in operation; all of them for an administrator."""
    query = select(Container)
    is_own = containers.c.owner_id == caller.user_id
    if wanted.mine:
        query = query.where(is_own)
    elif not caller.is_admin:
        query = query.where(or_(is_own, containers.c.state == State.OPERATION))
    if wanted.name is not None:
        query = query.where(containers.c.name == wanted.name)
    if wanted.state is not None:
        query = query.where(containers.c.state == wanted.state)

    async def show(container: Container) -> ContainerView:
        return view_of_container(container)

    return await page(session, query, by=containers.c.id, asked=asked, view=show)


async def browse_benchmarks(
    session: AsyncSession, caller: Caller, wanted: BenchmarkFilter, asked: PageRequest
) -> Page[BenchmarkView]:
    """The caller's benchmarks and those in operation and approved; all of them for an administrator."""
    query = select(Benchmark)
    is_own = benchmarks.c.owner_id == caller.user_id
    if wanted.mine:
        query = query.where(is_own)
    elif not caller.is_admin:
        is_open = and_(benchmarks.c.state == State.OPERATION, benchmarks.c.approval == Decision.APPROVED)
        query = query.where(or_(is_own, is_open))
    if wanted.name is not None:
        query = query.where(benchmarks.c.name == wanted.name)
    if wanted.state is not None:
        query = query.where(benchmarks.c.state == wanted.state)
    if wanted.approval is not None:
        query = query.where(benchmarks.c.approval == wanted.approval)

    async def show(benchmark: Benchmark) -> BenchmarkView:
        return view_of_benchmark(benchmark)

    return await page(session, query, by=benchmarks.c.id, asked=asked, view=show)


async def browse_datasets(
    session: AsyncSession, caller: Caller, wanted: DatasetFilter, asked: PageRequest
) -> Page[DatasetView]:
    """The caller's datasets and those that asked to join a benchmark of theirs; all for an administrator."""
    query = select(Dataset)
    is_own = datasets.c.owner_id == caller.user_id
    is_benchmark_owner = association_copies.c.benchmark_owner_id == caller.user_id
    if wanted.mine:
        query = query.where(is_own)
    elif not caller.is_admin:
        query = query.where(or_(is_own, _has_asked(is_benchmark_owner)))
    if wanted.benchmark is not None:
        is_this_one = association_copies.c.benchmark_id == wanted.benchmark
        asked_this_one = _has_asked(is_this_one)
        if not caller.is_admin:
            asked_this_one = or_(and_(is_own, asked_this_one), _has_asked(and_(is_this_one, is_benchmark_owner)))
        query = query.where(asked_this_one)
    if wanted.data_hash is not None:
        query = query.where(datasets.c.data_hash == wanted.data_hash)
    if wanted.generated_uid is not None:
        query = query.where(datasets.c.generated_uid == wanted.generated_uid)

    async def show(dataset: Dataset) -> DatasetView:
        return view_of_dataset(dataset)

    return await page(session, query, by=datasets.c.id, asked=asked, view=show)


async def browse_progress(
    session: AsyncSession, caller: Caller, *, mine: bool, benchmark: int | None, asked: PageRequest
) -> Page[ProgressView]:
    """How far the caller's preparations are, and those for a benchmark of theirs; no more for an administrator."""
    is_own = progress.c.owner_id == caller.user_id
    is_for_own = progress.c.benchmark_id.in_(
        select(benchmarks.c.id).where(benchmarks.c.owner_id == caller.user_id)
    )
    is_told = progress.c.is_withdrawn.is_(False)
    query = select(Progress).where(is_told, is_own if mine else or_(is_own, is_for_own))
    if benchmark is not None:
        query = query.where(progress.c.benchmark_id == benchmark)

    async def show(found: Progress) -> ProgressView:
        return view_of_progress(found)

    return await page(session, query, by=progress.c.id, asked=asked, view=show)


def view_of_container(container: Container) -> ContainerView:
    """A container as everybody who may see it sees it."""
    return ContainerView.model_validate(container, from_attributes=True)


def view_of_benchmark(benchmark: Benchmark) -> BenchmarkView:
    """A benchmark as everybody who may see it sees it."""
    return BenchmarkView.model_validate(benchmark, from_attributes=True)


def view_of_dataset(dataset: Dataset) -> DatasetView:
    """A dataset as everybody who may see it sees it."""
    return DatasetView.model_validate(dataset, from_attributes=True)


def view_of_progress(found: Progress) -> ProgressView:
    """How far a preparation is, as everybody who may see it sees it."""
    return ProgressView.model_validate(found, from_attributes=True)


def _has_asked(which: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a dataset asked to join, by one of the associations that `which` selects."""
    return datasets.c.id.in_(select(association_copies.c.part_id).where(_asked_to_join, which))
