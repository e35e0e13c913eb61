"""What can be asked of results: what is due, which there are, one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Exists, Row, Select, Table, exists, false, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Bundle

from medperf_contracts.access import Role
from medperf_contracts.associations import AssociationState, PartKind
from medperf_contracts.paging import Page
from medperf_contracts.results import DueState, DueView, ResultView
from services.kernel.auth import Caller
from services.kernel.errors import NoSuchThing
from services.kernel.paging import PageRequest, page

from .domain import Benchmark, Dataset, Model, Result, Sight, Standing, due_state
from .tables import association_copies, benchmark_copies, container_copies, dataset_copies, results


def _facts(name: str, facts: type[Benchmark | Model | Dataset], table: Table) -> Bundle[Any]:
    return Bundle(name, *(table.c[field.name] for field in fields(facts)))


def _has_approved(kind: PartKind, part: Table) -> Exists:
    """Whether the row of `part` has an approved association with the row of the benchmarks."""
    return (
        exists()
        .where(
            association_copies.c.benchmark_id == benchmark_copies.c.id,
            association_copies.c.part_kind == kind,
            association_copies.c.part_id == part.c.id,
            association_copies.c.state == AssociationState.APPROVED,
        )
        .correlate(benchmark_copies, part)
    )


_DATASET_IS_APPROVED = _has_approved(PartKind.DATASET, dataset_copies)
_MODEL_IS_APPROVED = _has_approved(PartKind.MODEL, container_copies)
# Of an association that was withdrawn and made anew, both may be known as approved for a moment: the later counts.
_PRIORITY = func.coalesce(
    select(association_copies.c.priority)
    .where(
        association_copies.c.benchmark_id == benchmark_copies.c.id,
        association_copies.c.part_kind == PartKind.MODEL,
        association_copies.c.part_id == container_copies.c.id,
        association_copies.c.state == AssociationState.APPROVED,
    )
    .order_by(association_copies.c.id.desc())
    .limit(1)
    .correlate(benchmark_copies, container_copies)
    .scalar_subquery(),
    0,
)
_METRICS = container_copies.alias("metrics")
# A copy that has not come yet says nothing against it: the hash to be met is the benchmark's own fact.
_METRICS_ARE_VALID = ~exists().where(
    _METRICS.c.id == benchmark_copies.c.metrics_id, _METRICS.c.is_valid == false()
).correlate(benchmark_copies)
_STANDING = (
    _facts("benchmark", Benchmark, benchmark_copies),
    _facts("model", Model, container_copies),
    _facts("dataset", Dataset, dataset_copies),
    _DATASET_IS_APPROVED.label("dataset_is_approved"),
    _MODEL_IS_APPROVED.label("model_is_approved"),
    _METRICS_ARE_VALID.label("metrics_are_valid"),
)
_RESULTS = (
    select(Result, *_STANDING)
    .join(benchmark_copies, benchmark_copies.c.id == results.c.benchmark_id)
    .join(container_copies, container_copies.c.id == results.c.model_id)
    .join(dataset_copies, dataset_copies.c.id == results.c.dataset_id)
)


@dataclass(frozen=True)
class Filter:
    """Which results of those that the caller may see."""

    benchmark: int | None = None
    dataset: int | None = None
    """Only where the caller may know which dataset a result is of."""
    model: int | None = None
    mine: bool = False
    """Only those of the caller's own datasets, also for an administrator."""


async def due(
    session: AsyncSession,
    caller: Caller,
    *,
    dataset_id: int,
    benchmark_id: int | None,
    states: Sequence[DueState] | None = None,
) -> Page[DueView]:
    """Every model of the benchmarks for which the dataset is approved, and what is still wanted of it.

    Derived at this moment, never stored. The reference model comes first, then models by priority, the highest
    first, then by ID. Whoever is not the dataset's owner sees their own benchmarks only. `states` leaves those in
    one of these.
    """
    roles = await roles_towards(session, caller.user_id, await known_dataset(session, dataset_id))
    caller.require(
        roles,
        thing=f"dataset {dataset_id}",
        known_as={Role.OTHER_SIDE: "the owner of a benchmark that it asked to join"},
    )
    query = _due_of(dataset_id)
    if benchmark_id is not None:
        query = query.where(benchmark_copies.c.id == benchmark_id)
    if Role.OWNER not in roles:
        query = query.where(benchmark_copies.c.owner_id == caller.user_id)
    rows = [(_standing_of(row), row) for row in await session.execute(query)]
    wanted = [(standing, row) for standing, row in rows if not standing.obstacles()]
    items = [_due_view(standing, row) for standing, row in wanted]
    if states:
        items = [item for item in items if item.state in states]
    items.sort(key=lambda item: (item.benchmark_id, not item.is_reference_model, -item.priority, item.model_id))
    return Page(items=items)


async def view(session: AsyncSession, caller: Caller, result_id: int) -> ResultView:
    """One result, as far as the caller may see it."""
    row = (await session.execute(_RESULTS.where(results.c.id == result_id))).one_or_none()
    sight = Sight.NOTHING if row is None else _sight(row, caller)
    if row is None or sight is Sight.NOTHING:
        raise NoSuchThing(f"There is no result {result_id} that you may see.")
    return _result_view(row, sight)


async def browse(session: AsyncSession, caller: Caller, wanted: Filter, asked: PageRequest) -> Page[ResultView]:
    """The results of which the caller may know, each as far as the caller may see it."""
    query = _RESULTS
    if not caller.is_admin:
        query = query.where(_may_know_of(caller.user_id))
    if wanted.dataset is not None:
        query = query.where(_may_see_whole(caller.user_id))
    if wanted.mine:
        query = query.where(dataset_copies.c.owner_id == caller.user_id)
    for column, wanted_id in (
        (results.c.benchmark_id, wanted.benchmark),
        (results.c.dataset_id, wanted.dataset),
        (results.c.model_id, wanted.model),
    ):
        if wanted_id is not None:
            query = query.where(column == wanted_id)

    async def show(row: Row[Any]) -> ResultView:
        return _result_view(row, _sight(row, caller))

    return await page(session, query, by=results.c.id, asked=asked, view=show)


async def known_dataset(session: AsyncSession, dataset_id: int) -> Dataset:
    """What this service knows of a dataset."""
    query = select(_facts("dataset", Dataset, dataset_copies)).where(dataset_copies.c.id == dataset_id)
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise NoSuchThing(f"There is no dataset {dataset_id} that you may see.")
    return Dataset(**row.dataset._mapping)


async def roles_towards(session: AsyncSession, user_id: int, dataset: Dataset) -> set[Role]:
    """The other side of a dataset is the owner of a benchmark that it asked to join, whatever came of that."""
    roles = {Role.OWNER} if dataset.owner_id == user_id else set()
    is_other_side = exists().where(
        association_copies.c.part_kind == PartKind.DATASET,
        association_copies.c.part_id == dataset.id,
        association_copies.c.benchmark_id == benchmark_copies.c.id,
        benchmark_copies.c.owner_id == user_id,
    )
    if await session.scalar(select(is_other_side)):
        roles.add(Role.OTHER_SIDE)
    return roles


async def find_standing(
    session: AsyncSession, *, benchmark_id: int, model_id: int, dataset_id: int
) -> Standing | None:
    """One model on one dataset in one benchmark; None where one of the three is not known."""
    query = (
        select(*_STANDING)
        .select_from(benchmark_copies)
        .join(container_copies, container_copies.c.id == model_id)
        .join(dataset_copies, dataset_copies.c.id == dataset_id)
        .where(benchmark_copies.c.id == benchmark_id)
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _standing_of(row)


async def accepted(
    session: AsyncSession, *, benchmark_id: int, model_id: int, dataset_id: int
) -> Sequence[Result]:
    """The results that were accepted of one model on one dataset: at most a partial and a whole one."""
    query = select(Result).where(
        results.c.benchmark_id == benchmark_id,
        results.c.model_id == model_id,
        results.c.dataset_id == dataset_id,
    )
    return (await session.scalars(query)).all()


def _due_of(dataset_id: int) -> Select[Any]:
    """Every model of every benchmark for which the dataset is approved, with its priority and accepted results."""
    is_model_of_it = or_(container_copies.c.id == benchmark_copies.c.reference_model_id, _MODEL_IS_APPROVED)
    query = (
        select(*_STANDING, _PRIORITY.label("priority"))
        .select_from(dataset_copies)
        .join(benchmark_copies, _DATASET_IS_APPROVED)
        .join(container_copies, is_model_of_it)
        .where(dataset_copies.c.id == dataset_id)
    )
    for label, is_partial in (("whole_id", False), ("partial_id", True)):
        accepted_one = results.alias(label)
        query = query.outerjoin(
            accepted_one,
            (accepted_one.c.benchmark_id == benchmark_copies.c.id)
            & (accepted_one.c.model_id == container_copies.c.id)
            & (accepted_one.c.dataset_id == dataset_copies.c.id)
            & (accepted_one.c.is_partial == is_partial),
        ).add_columns(accepted_one.c.id.label(label))
    return query


def _standing_of(row: Row[Any]) -> Standing:
    return Standing(
        benchmark=Benchmark(**row.benchmark._mapping),
        model=Model(**row.model._mapping),
        dataset=Dataset(**row.dataset._mapping),
        dataset_is_approved=row.dataset_is_approved,
        model_is_approved=row.model_is_approved,
        metrics_are_valid=row.metrics_are_valid,
    )


def _sight(row: Row[Any], caller: Caller) -> Sight:
    return _standing_of(row).sight_of(caller.user_id, is_admin=caller.is_admin)


def _due_view(standing: Standing, row: Row[Any]) -> DueView:
    return DueView(
        benchmark_id=standing.benchmark.id,
        dataset_id=standing.dataset.id,
        model_id=standing.model.id,
        is_reference_model=standing.is_reference_model,
        priority=row.priority,
        state=due_state(whole_id=row.whole_id, partial_id=row.partial_id),
        result_id=row.whole_id if row.whole_id is not None else row.partial_id,
    )


def _result_view(row: Row[Any], sight: Sight) -> ResultView:
    result: Result = row.Result
    sees_scores, sees_whole = sight >= Sight.SCORES, sight is Sight.WHOLE
    obstacles = _standing_of(row).obstacles()
    return ResultView(
        id=result.id,
        version=result.version,
        benchmark_id=result.benchmark_id,
        model_id=result.model_id,
        dataset_id=result.dataset_id if sees_whole else None,
        is_partial=result.is_partial,
        metrics=dict(result.metrics) if sees_scores else None,
        engine=result.engine if sees_whole else None,
        engine_reason=result.engine_reason if sees_whole else None,
        dataset_hash=result.dataset_hash if sees_whole else None,
        model_hash=result.model_hash,
        metrics_hash=result.metrics_hash,
        started_at=result.started_at if sees_whole else None,
        finished_at=result.finished_at if sees_whole else None,
        submitted_at=result.submitted_at,
        is_current=not obstacles,
        not_current_because=[obstacle.why for obstacle in obstacles],
    )


def _may_see_whole(user_id: int) -> ColumnElement[bool]:
    return or_(dataset_copies.c.owner_id == user_id, benchmark_copies.c.owner_id == user_id)


def _may_know_of(user_id: int) -> ColumnElement[bool]:
    """The rows of which `Standing.sight_of` gives more than nothing to a person who is no administrator."""
    return or_(
        _may_see_whole(user_id), benchmark_copies.c.public_scores == true(), container_copies.c.owner_id == user_id
    )
