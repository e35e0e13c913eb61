"""What can be done with results: one thing, once."""

from __future__ import annotations

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.associations import AssociationState, PartKind
from medperf_contracts.results import NewResult
from services.kernel import clock, outbox
from services.kernel.auth import Caller
from services.kernel.db import unique_or
from services.kernel.errors import NoSuchThing

from . import queries
from .domain import Result
from .errors import AlreadySubmitted
from .tables import association_copies


async def submit(session: AsyncSession, caller: Caller, body: NewResult) -> Result:
    """Submit a result where one is due; then it is final."""
    dataset = await queries.known_dataset(session, body.dataset_id)
    roles = await queries.roles_towards(session, caller.user_id, dataset)
    caller.require(roles, thing=f"dataset {body.dataset_id}")
    for statement in approvals_held(body):
        await session.execute(statement)
    three = {"benchmark_id": body.benchmark_id, "model_id": body.model_id, "dataset_id": body.dataset_id}
    standing = await queries.find_standing(session, **three)
    if standing is None or not standing.is_known_to(caller.user_id):
        raise NoSuchThing(
            f"There is no benchmark {body.benchmark_id} with a model {body.model_id} that you may see."
        )
    earlier = await queries.accepted(session, **three)
    result = Result.submit(body, standing, earlier, at=await clock.now(session))
    async with unique_or(session, AlreadySubmitted("This result was submitted at this very moment.")):
        session.add(result)
    await outbox.record(session, result, result.submitted(standing))
    await session.refresh(result)  # times are answered as they are kept, to the millisecond
    return result


def approvals_held(body: NewResult) -> tuple[Select[tuple[int]], Select[tuple[int]]]:
    """Hold both approvals until the commit: a withdrawal at the same moment comes before, or after.

    The dataset's is held alone, so that a partial and a whole result of it never pass each other; the model's is
    shared by all sites. SQLite has one writer at a time and needs no lock on rows.
    """
    dataset = _approval(body.benchmark_id, PartKind.DATASET, body.dataset_id).with_for_update()
    model = _approval(body.benchmark_id, PartKind.MODEL, body.model_id).with_for_update(read=True)
    return dataset, model


def _approval(benchmark_id: int, kind: PartKind, part_id: int) -> Select[tuple[int]]:
    return select(association_copies.c.id).where(
        association_copies.c.benchmark_id == benchmark_id,
        association_copies.c.part_kind == kind,
        association_copies.c.part_id == part_id,
        association_copies.c.state == AssociationState.APPROVED,
    )
