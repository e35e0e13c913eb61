"""The endpoints of associations."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Response

from medperf_contracts.associations import (
    AssociationDecision,
    AssociationPriority,
    AssociationState,
    AssociationView,
    NewAssociation,
)
from medperf_contracts.paging import Page
from medperf_contracts.values import Id
from services.kernel.errors import ChangedMeanwhile, NoSuchThing, NotAllowed
from services.kernel.http import CallerParam, SessionParam, new_router, refusals, shown
from services.kernel.idempotency import IdempotencyKeyReused, InProgress
from services.kernel.paging import PageParam

from . import commands, queries
from .errors import (
    AlreadyDecided,
    AlreadyLive,
    AssociationOver,
    BenchmarkNotOpen,
    HasNoPriority,
    NeedsNoAssociation,
    NoModelOfIt,
    NotApproved,
    PartNotReady,
    PreparedDifferently,
)

router = new_router()
AssociationId = Annotated[Id, Path()]
_COMMAND = (NoSuchThing, NotAllowed, ChangedMeanwhile, IdempotencyKeyReused, InProgress)


@router.post(
    "/api/v1/associations",
    status_code=201,
    responses=refusals(
        *_COMMAND,
        AlreadyLive,
        BenchmarkNotOpen,
        NeedsNoAssociation,
        NoModelOfIt,
        PartNotReady,
        PreparedDifferently,
    ),
)
async def request_association(
    body: NewAssociation, caller: CallerParam, session: SessionParam, response: Response
) -> AssociationView:
    """Ask that a dataset or a model take part in a benchmark."""
    association = await commands.request(session, caller, body)
    return shown(response, await queries.view_of(session, caller, association), "association")


@router.get("/api/v1/associations")
async def browse_associations(
    caller: CallerParam,
    session: SessionParam,
    asked: PageParam,
    benchmark: Annotated[Id | None, Query()] = None,
    dataset: Annotated[Id | None, Query()] = None,
    model: Annotated[Id | None, Query()] = None,
    state: Annotated[AssociationState | None, Query()] = None,
    mine: Annotated[bool, Query()] = False,
) -> Page[AssociationView]:
    """The associations in which the caller is a side."""
    wanted = queries.Filter(benchmark=benchmark, dataset=dataset, model=model, state=state, mine=mine)
    return await queries.browse(session, caller, wanted, asked)


@router.get("/api/v1/associations/{association_id}", responses=refusals(NoSuchThing))
async def view_association(
    association_id: AssociationId, caller: CallerParam, session: SessionParam, response: Response
) -> AssociationView:
    """One association."""
    return shown(response, await queries.view(session, caller, association_id), "association")


@router.post(
    "/api/v1/associations/{association_id}/approve",
    responses=refusals(
        *_COMMAND,
        AlreadyDecided,
        BenchmarkNotOpen,
        NeedsNoAssociation,
        NoModelOfIt,
        PartNotReady,
        PreparedDifferently,
    ),
)
async def approve_association(
    association_id: AssociationId,
    body: AssociationDecision,
    caller: CallerParam,
    session: SessionParam,
    response: Response,
) -> AssociationView:
    """Approve a request; only the side that did not ask can."""
    association = await commands.approve(session, caller, association_id, body)
    return shown(response, await queries.view_of(session, caller, association), "association")


@router.post("/api/v1/associations/{association_id}/reject", responses=refusals(*_COMMAND, AlreadyDecided))
async def reject_association(
    association_id: AssociationId,
    body: AssociationDecision,
    caller: CallerParam,
    session: SessionParam,
    response: Response,
) -> AssociationView:
    """Reject a request; only the side that did not ask can."""
    association = await commands.reject(session, caller, association_id, body)
    return shown(response, await queries.view_of(session, caller, association), "association")


@router.post("/api/v1/associations/{association_id}/withdraw", responses=refusals(*_COMMAND, NotApproved))
async def withdraw_association(
    association_id: AssociationId,
    body: AssociationDecision,
    caller: CallerParam,
    session: SessionParam,
    response: Response,
) -> AssociationView:
    """Withdraw a request or end an approved association; either side can."""
    association = await commands.withdraw(session, caller, association_id, body)
    return shown(response, await queries.view_of(session, caller, association), "association")


@router.post(
    "/api/v1/associations/{association_id}/set-priority",
    responses=refusals(*_COMMAND, AssociationOver, HasNoPriority),
)
async def set_association_priority(
    association_id: AssociationId,
    body: AssociationPriority,
    caller: CallerParam,
    session: SessionParam,
    response: Response,
) -> AssociationView:
    """Say how early a model is run among the benchmark's; only the benchmark's owner can."""
    association = await commands.set_priority(session, caller, association_id, body)
    return shown(response, await queries.view_of(session, caller, association), "association")
