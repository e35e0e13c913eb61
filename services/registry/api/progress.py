"""The endpoints of how far preparations are."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Response

from medperf_contracts.paging import Page
from medperf_contracts.registry import NewProgress, ProgressReceipt, ProgressView, ProgressWithdrawal
from medperf_contracts.values import Id
from services.kernel.errors import ChangedMeanwhile, NoSuchThing, NotAllowed
from services.kernel.http import CallerParam, SessionParam, new_router, refusals, shown
from services.kernel.idempotency import IdempotencyKeyReused, InProgress
from services.kernel.paging import PageParam

from .. import commands, queries
from ..errors import ProgressWithdrawn, TooManyPreparations

router = new_router()
_COMMAND = (NoSuchThing, NotAllowed, ChangedMeanwhile, IdempotencyKeyReused, InProgress, TooManyPreparations)


@router.post("/api/v1/progress", responses=refusals(*_COMMAND, ProgressWithdrawn))
async def tell_progress(
    body: NewProgress, caller: CallerParam, session: SessionParam, response: Response
) -> ProgressReceipt:
    """Tell the benchmark's owner how far a preparation is; it takes the place of what was told of it before."""
    told = await commands.tell_progress(session, caller, body)
    return shown(response, ProgressReceipt(id=told.id, version=told.version), "progress")


@router.get("/api/v1/progress", responses=refusals(NotAllowed))
async def browse_progress(
    caller: CallerParam,
    session: SessionParam,
    asked: PageParam,
    owner: Annotated[Literal["me"] | None, Query()] = None,
    benchmark: Annotated[Id | None, Query(description="Those that prepare for it")] = None,
) -> Page[ProgressView]:
    """How far the caller's own preparations are, and those for a benchmark of the caller's."""
    return await queries.browse_progress(session, caller, mine=owner == "me", benchmark=benchmark, asked=asked)


@router.post("/api/v1/progress/withdraw", responses=refusals(*_COMMAND))
async def withdraw_progress(
    body: ProgressWithdrawal, caller: CallerParam, session: SessionParam, response: Response
) -> ProgressReceipt:
    """Take back what the caller told of a preparation, or may have: it is forgotten, and refused from now on."""
    withdrawn = await commands.withdraw_progress(session, caller, body)
    return shown(response, ProgressReceipt(id=withdrawn.id, version=withdrawn.version), "progress")
