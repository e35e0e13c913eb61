"""The endpoints of how far preparations are."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query, Response

from medperf_contracts.paging import Page
from medperf_contracts.registry import NewProgress, ProgressView
from medperf_contracts.values import Id
from services.kernel.errors import ChangedMeanwhile, NoSuchThing, NotAllowed
from services.kernel.http import CallerParam, SessionParam, new_router, refusals, shown
from services.kernel.idempotency import IdempotencyKeyReused, InProgress
from services.kernel.paging import PageParam

from .. import commands, queries

router = new_router()
ProgressId = Annotated[Id, Path()]
_COMMAND = (NoSuchThing, NotAllowed, ChangedMeanwhile, IdempotencyKeyReused, InProgress)


@router.post("/api/v1/progress", responses=refusals(*_COMMAND))
async def tell_progress(
    body: NewProgress, caller: CallerParam, session: SessionParam, response: Response
) -> ProgressView:
    """Tell the benchmark's owner how far a preparation is; it takes the place of what was told of it before."""
    told = await commands.tell_progress(session, caller, body)
    return shown(response, queries.view_of_progress(told), "progress")


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


@router.post("/api/v1/progress/{progress_id}/withdraw", responses=refusals(*_COMMAND))
async def withdraw_progress(
    progress_id: ProgressId, caller: CallerParam, session: SessionParam, response: Response
) -> ProgressView:
    """Take back what was told of a preparation: it is removed. The answer shows it once more."""
    withdrawn = await commands.withdraw_progress(session, caller, progress_id)
    return shown(response, queries.view_of_progress(withdrawn), "progress")
