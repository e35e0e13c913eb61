"""What can be asked of associations."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.associations import LIVE, AssociationState, AssociationView, PartKind
from medperf_contracts.paging import Page
from services.kernel.auth import Caller
from services.kernel.errors import NoSuchThing
from services.kernel.paging import PageRequest, page

from .domain import Association
from .tables import associations, dataset_copies


@dataclass(frozen=True)
class Filter:
    """Which associations of those that the caller may see."""

    benchmark: int | None = None
    dataset: int | None = None
    model: int | None = None
    state: AssociationState | None = None
    mine: bool = False
    """Only those in which the caller is a side, also for an administrator."""


async def view(session: AsyncSession, caller: Caller, association_id: int) -> AssociationView:
    """One association."""
    association = await session.get(Association, association_id)
    if association is None:
        raise NoSuchThing(f"There is no association {association_id} that you may see.")
    roles = association.roles_of(caller.user_id)
    caller.require(roles, thing=f"association {association_id}", known_as=association.known_as())
    return await view_of(session, caller, association)


async def browse(
    session: AsyncSession, caller: Caller, wanted: Filter, asked: PageRequest
) -> Page[AssociationView]:
    """The associations in which the caller is a side; all of them for an administrator."""
    query = select(Association)
    if not caller.is_admin or wanted.mine:
        query = query.where(_is_side(caller.user_id))
    if wanted.benchmark is not None:
        query = query.where(associations.c.benchmark_id == wanted.benchmark)
    for kind, part_id in ((PartKind.DATASET, wanted.dataset), (PartKind.MODEL, wanted.model)):
        if part_id is not None:
            query = query.where(associations.c.part_kind == kind, associations.c.part_id == part_id)
    if wanted.state is not None:
        query = query.where(associations.c.state == wanted.state)

    async def show(association: Association) -> AssociationView:
        return await view_of(session, caller, association)

    return await page(session, query, by=associations.c.id, asked=asked, view=show)


async def view_of(session: AsyncSession, caller: Caller, association: Association) -> AssociationView:
    """An association as the caller may see it."""
    is_side = caller.user_id in (association.benchmark_owner_id, association.part_owner_id)
    shows_same_data = caller.is_admin or caller.user_id == association.benchmark_owner_id
    return AssociationView(
        **association.facts(),
        version=association.version,
        requested_at=association.requested_at,
        decided_at=association.decided_at,
        reason=association.reason,
        summary=dict(association.summary) if is_side else None,
        same_data_as=await _same_data_as(session, association) if shows_same_data else [],
    )


async def _same_data_as(session: AsyncSession, association: Association) -> list[int]:
    """Other live datasets of the benchmark with the same data: its owner must not count them twice."""
    if association.part_kind is not PartKind.DATASET:
        return []
    mine = dataset_copies.alias()
    rows = await session.execute(
        select(dataset_copies.c.id)
        .join(mine, mine.c.data_hash == dataset_copies.c.data_hash)
        .join(associations, associations.c.part_id == dataset_copies.c.id)
        .where(
            mine.c.id == association.part_id,
            dataset_copies.c.id != association.part_id,
            associations.c.part_kind == PartKind.DATASET,
            associations.c.benchmark_id == association.benchmark_id,
            associations.c.state.in_(LIVE),
        )
        .order_by(dataset_copies.c.id)
    )
    return list(rows.scalars())


def _is_side(user_id: int) -> ColumnElement[bool]:
    return or_(associations.c.benchmark_owner_id == user_id, associations.c.part_owner_id == user_id)
