"""The endpoints of containers."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query, Response

from medperf_contracts.paging import Page
from medperf_contracts.registry import ContainerChanges, ContainerView, NewContainer
from medperf_contracts.values import Id, Name, State
from services.kernel.errors import ChangedMeanwhile, NoSuchThing, NotAllowed, VersionDiffers
from services.kernel.http import CallerParam, ExpectedVersionParam, SessionParam, new_router, refusals, shown
from services.kernel.idempotency import IdempotencyKeyReused, InProgress
from services.kernel.paging import PageParam

from .. import commands, queries
from ..errors import AlreadyOperational, ContainerExists, NothingRegisteredBehindUrl

router = new_router()
ContainerId = Annotated[Id, Path()]


@router.post(
    "/api/v1/containers",
    status_code=201,
    responses=refusals(ContainerExists, IdempotencyKeyReused, InProgress, NotAllowed),
)
async def register_container(
    body: NewContainer, caller: CallerParam, session: SessionParam, response: Response
) -> ContainerView:
    """Register a container. It begins in development, where only its owner and administrators see it."""
    container = await commands.register_container(session, caller, body)
    return shown(response, queries.view_of_container(container), "container")


@router.get("/api/v1/containers", responses=refusals(NotAllowed))
async def browse_containers(
    caller: CallerParam,
    session: SessionParam,
    asked: PageParam,
    owner: Annotated[Literal["me"] | None, Query()] = None,
    name: Annotated[Name | None, Query()] = None,
    state: Annotated[State | None, Query()] = None,
) -> Page[ContainerView]:
    """The containers that the caller may see."""
    wanted = queries.ContainerFilter(mine=owner == "me", name=name, state=state)
    return await queries.browse_containers(session, caller, wanted, asked)


@router.get("/api/v1/containers/{container_id}", responses=refusals(NoSuchThing, NotAllowed))
async def view_container(
    container_id: ContainerId, caller: CallerParam, session: SessionParam, response: Response
) -> ContainerView:
    """One container."""
    container = await queries.find_container(session, caller, container_id)
    return shown(response, queries.view_of_container(container), "container")


@router.patch(
    "/api/v1/containers/{container_id}",
    responses=refusals(ChangedMeanwhile, NoSuchThing, NotAllowed, NothingRegisteredBehindUrl, VersionDiffers),
)
async def update_container(
    container_id: ContainerId,
    body: ContainerChanges,
    expected_version: ExpectedVersionParam,
    caller: CallerParam,
    session: SessionParam,
    response: Response,
) -> ContainerView:
    """Change what may change in any state: description, validity, URLs."""
    container = await commands.update_container(session, caller, container_id, body, expected_version)
    return shown(response, queries.view_of_container(container), "container")


@router.post(
    "/api/v1/containers/{container_id}/set-operational",
    responses=refusals(
        AlreadyOperational, ChangedMeanwhile, IdempotencyKeyReused, InProgress, NoSuchThing, NotAllowed
    ),
)
async def set_container_operational(
    container_id: ContainerId, caller: CallerParam, session: SessionParam, response: Response
) -> ContainerView:
    """Bring a container into operation; from then on everybody who is logged in sees it."""
    container = await commands.set_container_operational(session, caller, container_id)
    return shown(response, queries.view_of_container(container), "container")
