"""The endpoints of benchmarks."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query, Response

from medperf_contracts.paging import Page
from medperf_contracts.registry import BenchmarkChanges, BenchmarkView, NewBenchmark
from medperf_contracts.values import Decision, Id, Name, State
from services.kernel.errors import ChangedMeanwhile, NoSuchThing, NotAllowed, VersionDiffers
from services.kernel.http import CallerParam, ExpectedVersionParam, SessionParam, new_router, refusals, shown
from services.kernel.idempotency import IdempotencyKeyReused, InProgress
from services.kernel.paging import PageParam

from .. import commands, queries
from ..errors import (
    AlreadyOperational,
    ApprovalDecided,
    BenchmarkExists,
    ContainerNotValid,
    NothingRegisteredBehindUrl,
    NotOperational,
    PartsNotOperational,
)

router = new_router()
BenchmarkId = Annotated[Id, Path()]
_COMMAND = (ChangedMeanwhile, IdempotencyKeyReused, InProgress, NoSuchThing, NotAllowed)


@router.post(
    "/api/v1/benchmarks",
    status_code=201,
    responses=refusals(
        BenchmarkExists, ContainerNotValid, IdempotencyKeyReused, InProgress, NoSuchThing, NotAllowed
    ),
)
async def register_benchmark(
    body: NewBenchmark, caller: CallerParam, session: SessionParam, response: Response
) -> BenchmarkView:
    """Register a benchmark. It begins in development, and needs an administrator's approval to be seen."""
    benchmark = await commands.register_benchmark(session, caller, body)
    return shown(response, queries.view_of_benchmark(benchmark), "benchmark")


@router.get("/api/v1/benchmarks", responses=refusals(NotAllowed))
async def browse_benchmarks(
    caller: CallerParam,
    session: SessionParam,
    asked: PageParam,
    owner: Annotated[Literal["me"] | None, Query()] = None,
    name: Annotated[Name | None, Query()] = None,
    state: Annotated[State | None, Query()] = None,
    approval: Annotated[Decision | None, Query()] = None,
) -> Page[BenchmarkView]:
    """The benchmarks that the caller may see."""
    wanted = queries.BenchmarkFilter(mine=owner == "me", name=name, state=state, approval=approval)
    return await queries.browse_benchmarks(session, caller, wanted, asked)


@router.get("/api/v1/benchmarks/{benchmark_id}", responses=refusals(NoSuchThing, NotAllowed))
async def view_benchmark(
    benchmark_id: BenchmarkId, caller: CallerParam, session: SessionParam, response: Response
) -> BenchmarkView:
    """One benchmark."""
    benchmark = await queries.find_benchmark(session, caller, benchmark_id)
    return shown(response, queries.view_of_benchmark(benchmark), "benchmark")


@router.patch(
    "/api/v1/benchmarks/{benchmark_id}",
    responses=refusals(ChangedMeanwhile, NoSuchThing, NotAllowed, NothingRegisteredBehindUrl, VersionDiffers),
)
async def update_benchmark(
    benchmark_id: BenchmarkId,
    body: BenchmarkChanges,
    expected_version: ExpectedVersionParam,
    caller: CallerParam,
    session: SessionParam,
    response: Response,
) -> BenchmarkView:
    """Change what may change in any state: description, validity, URLs."""
    benchmark = await commands.update_benchmark(session, caller, benchmark_id, body, expected_version)
    return shown(response, queries.view_of_benchmark(benchmark), "benchmark")


@router.post(
    "/api/v1/benchmarks/{benchmark_id}/set-operational",
    responses=refusals(*_COMMAND, AlreadyOperational, PartsNotOperational),
)
async def set_benchmark_operational(
    benchmark_id: BenchmarkId, caller: CallerParam, session: SessionParam, response: Response
) -> BenchmarkView:
    """Bring a benchmark into operation; an administrator can then decide about it."""
    benchmark = await commands.set_benchmark_operational(session, caller, benchmark_id)
    return shown(response, queries.view_of_benchmark(benchmark), "benchmark")


@router.post(
    "/api/v1/benchmarks/{benchmark_id}/approve", responses=refusals(*_COMMAND, ApprovalDecided, NotOperational)
)
async def approve_benchmark(
    benchmark_id: BenchmarkId, caller: CallerParam, session: SessionParam, response: Response
) -> BenchmarkView:
    """Approve a benchmark: everybody sees it, and datasets and models may ask to join."""
    benchmark = await commands.approve_benchmark(session, caller, benchmark_id)
    return shown(response, queries.view_of_benchmark(benchmark), "benchmark")


@router.post(
    "/api/v1/benchmarks/{benchmark_id}/reject", responses=refusals(*_COMMAND, ApprovalDecided, NotOperational)
)
async def reject_benchmark(
    benchmark_id: BenchmarkId, caller: CallerParam, session: SessionParam, response: Response
) -> BenchmarkView:
    """Reject a benchmark: only its owner and administrators see it."""
    benchmark = await commands.reject_benchmark(session, caller, benchmark_id)
    return shown(response, queries.view_of_benchmark(benchmark), "benchmark")
