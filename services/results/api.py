"""The endpoints of results."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query, Response

from medperf_contracts.paging import Page
from medperf_contracts.results import DueState, DueView, NewResult, ResultView
from medperf_contracts.values import Id
from services.kernel.errors import NoSuchThing, NotAllowed
from services.kernel.http import CallerParam, SessionParam, new_router, refusals, shown
from services.kernel.idempotency import IdempotencyKeyReused, InProgress
from services.kernel.paging import PageParam

from . import commands, queries
from .errors import (
    AlreadySubmitted,
    AssociationNotApproved,
    BenchmarkNotOpen,
    HashDiffers,
    ModelNotInBenchmark,
    NotValid,
)

router = new_router()


@router.post(
    "/api/v1/results",
    status_code=201,
    responses=refusals(
        NoSuchThing,
        NotAllowed,
        IdempotencyKeyReused,
        InProgress,
        AlreadySubmitted,
        AssociationNotApproved,
        BenchmarkNotOpen,
        HashDiffers,
        ModelNotInBenchmark,
        NotValid,
    ),
)
async def submit_result(
    body: NewResult, caller: CallerParam, session: SessionParam, response: Response
) -> ResultView:
    """Submit a result where one is due; once accepted it is final."""
    result = await commands.submit(session, caller, body)
    return shown(response, await queries.view(session, caller, result.id), "result")


@router.get("/api/v1/results")
async def browse_results(
    caller: CallerParam,
    session: SessionParam,
    asked: PageParam,
    benchmark: Annotated[Id | None, Query()] = None,
    dataset: Annotated[Id | None, Query()] = None,
    model: Annotated[Id | None, Query()] = None,
    owner: Annotated[Literal["me"] | None, Query(description="Results of the caller's own datasets")] = None,
) -> Page[ResultView]:
    """The results of which the caller may know, each as far as the caller may see it."""
    wanted = queries.Filter(benchmark=benchmark, dataset=dataset, model=model, mine=owner == "me")
    return await queries.browse(session, caller, wanted, asked)


@router.get("/api/v1/results/{result_id}", responses=refusals(NoSuchThing))
async def view_result(
    result_id: Annotated[Id, Path()], caller: CallerParam, session: SessionParam, response: Response
) -> ResultView:
    """One result, as far as the caller may see it."""
    return shown(response, await queries.view(session, caller, result_id), "result")


@router.get("/api/v1/due", responses=refusals(NoSuchThing, NotAllowed))
async def browse_due(
    caller: CallerParam,
    session: SessionParam,
    dataset: Annotated[Id, Query()],
    benchmark: Annotated[Id | None, Query()] = None,
    state: Annotated[
        list[DueState] | None,
        Query(
            description="Only models in this state, or in one of these where it is repeated: "
            "`state=due&state=partial` is all that is still due"
        ),
    ] = None,
) -> Page[DueView]:
    """Every model of the benchmarks for which a dataset is approved, and what is still due of it; one page."""
    return await queries.due(session, caller, dataset_id=dataset, benchmark_id=benchmark, states=state)
