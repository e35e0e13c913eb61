"""What can be done with associations: load, decide, record the event."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.access import Role
from medperf_contracts.associations import (
    LIVE,
    AssociationDecision,
    AssociationPriority,
    NewAssociation,
    PartKind,
)
from services.kernel import clock, outbox
from services.kernel.auth import Caller
from services.kernel.db import unique_or
from services.kernel.errors import NoSuchThing

from .domain import Association, Benchmark, Part
from .errors import AlreadyLive
from .tables import associations, benchmark_copies, dataset_copies, model_copies


async def request(session: AsyncSession, caller: Caller, body: NewAssociation) -> Association:
    """Ask that a dataset or model take part in a benchmark."""
    if body.dataset_id is not None:
        part = await _part(session, PartKind.DATASET, body.dataset_id)
    else:
        part = await _part(session, PartKind.MODEL, body.model_id or 0)
    benchmark = await _benchmark(session, body.benchmark_id)
    if not benchmark.is_known_to(caller.user_id):
        raise _no_benchmark(body.benchmark_id)
    roles = {Role.OWNER} if caller.user_id == part.owner_id else set()
    if part.kind is PartKind.MODEL and part.is_known_to(caller.user_id) and caller.user_id == benchmark.owner_id:
        roles.add(Role.OTHER_SIDE)
    other = "its owner" if part.kind is PartKind.DATASET else "the benchmark's owner"
    caller.require(
        roles,
        thing=f"{part.kind.value} {part.id}",
        may_see=part.is_known_to(caller.user_id),
        known_as={Role.OTHER_SIDE: other},
    )
    association = Association.request(
        benchmark, part, by=caller.user_id, at=await clock.now(session), summary=body.summary
    )
    live = await session.scalar(
        select(Association).where(
            associations.c.benchmark_id == benchmark.id,
            associations.c.part_kind == part.kind,
            associations.c.part_id == part.id,
            associations.c.state.in_(LIVE),
        )
    )
    pair = f"{part.kind.value} {part.id} with benchmark {benchmark.id}"
    if live is not None:
        detail = f"There is an association of {pair} already: {live.id}, {live.state.value}."
        raise AlreadyLive(detail, existing=f"association/{live.id}")
    async with unique_or(session, AlreadyLive(f"An association of {pair} was made at this moment.")):
        session.add(association)
    await outbox.record(session, association, association.requested())
    return association


async def approve(
    session: AsyncSession, caller: Caller, association_id: int, body: AssociationDecision
) -> Association:
    """The side that did not ask approves."""
    association = await _load(session, caller, association_id)
    benchmark = await _benchmark(session, association.benchmark_id)
    part = await _part(session, association.part_kind, association.part_id)
    now = await clock.now(session)
    event = association.approve(benchmark, part, by=caller.user_id, at=now, reason=body.reason)
    await outbox.record(session, association, event)
    return association


async def reject(
    session: AsyncSession, caller: Caller, association_id: int, body: AssociationDecision
) -> Association:
    """The side that did not ask rejects."""
    association = await _load(session, caller, association_id)
    event = association.reject(by=caller.user_id, at=await clock.now(session), reason=body.reason)
    await outbox.record(session, association, event)
    return association


async def withdraw(
    session: AsyncSession, caller: Caller, association_id: int, body: AssociationDecision
) -> Association:
    """Either side ends the association or the request."""
    association = await _load(session, caller, association_id)
    event = association.withdraw(by=caller.user_id, at=await clock.now(session), reason=body.reason)
    await outbox.record(session, association, event)
    return association


async def set_priority(
    session: AsyncSession, caller: Caller, association_id: int, body: AssociationPriority
) -> Association:
    """The benchmark's owner says how early a model is run."""
    association = await _find(session, association_id)
    caller.require(
        association.roles_in_order(caller.user_id),
        thing=f"association {association_id}",
        known_as={Role.OWNER: "the benchmark's owner"},
    )
    event = association.set_priority(body.priority)
    if event is not None:
        await outbox.record(session, association, event)
    return association


async def _load(session: AsyncSession, caller: Caller, association_id: int) -> Association:
    association = await _find(session, association_id)
    roles = association.roles_of(caller.user_id)
    caller.require(roles, thing=f"association {association_id}", known_as=association.known_as())
    return association


async def _find(session: AsyncSession, association_id: int) -> Association:
    association = await session.get(Association, association_id)
    if association is None:
        raise NoSuchThing(f"There is no association {association_id} that you may see.")
    return association


async def _benchmark(session: AsyncSession, benchmark_id: int) -> Benchmark:
    row = (
        await session.execute(select(benchmark_copies).where(benchmark_copies.c.id == benchmark_id))
    ).one_or_none()
    if row is None:
        raise _no_benchmark(benchmark_id)
    return Benchmark(
        id=row.id,
        name=row.name,
        owner_id=row.owner_id,
        state=row.state,
        approval=row.approval,
        is_valid=row.is_valid,
        preparation_hash=row.preparation_hash,
        reference_model_id=row.reference_model_id,
        preparation_id=row.preparation_id,
        metrics_id=row.metrics_id,
    )


def _no_benchmark(benchmark_id: int) -> NoSuchThing:
    return NoSuchThing(f"There is no benchmark {benchmark_id} that you may see.")


async def _part(session: AsyncSession, kind: PartKind, part_id: int) -> Part:
    table = dataset_copies if kind is PartKind.DATASET else model_copies
    row = (await session.execute(select(table).where(table.c.id == part_id))).mappings().one_or_none()
    if row is None:
        raise NoSuchThing(f"There is no {kind.value} {part_id} that you may see.")
    return Part(
        kind=kind,
        id=part_id,
        name=row["name"],
        owner_id=row["owner_id"],
        state=row["state"],
        is_valid=row["is_valid"],
        preparation_hash=row.get("preparation_hash"),
    )
