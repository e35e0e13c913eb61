"""The endpoints of datasets."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query, Response

from medperf_contracts.paging import Page
from medperf_contracts.registry import DatasetChanges, DatasetView, NewDataset
from medperf_contracts.values import Blake3, GeneratedUid, Id
from services.kernel.errors import ChangedMeanwhile, NoSuchThing, NotAllowed, VersionDiffers
from services.kernel.http import CallerParam, ExpectedVersionParam, SessionParam, new_router, refusals, shown
from services.kernel.idempotency import IdempotencyKeyReused, InProgress
from services.kernel.paging import PageParam

from .. import commands, queries
from ..errors import ContainerNotValid

router = new_router()
DatasetId = Annotated[Id, Path()]


@router.post(
    "/api/v1/datasets",
    status_code=201,
    responses={
        200: {"model": DatasetView, "description": "The caller registered it before: the one there is, unchanged"},
        **refusals(ChangedMeanwhile, ContainerNotValid, IdempotencyKeyReused, InProgress, NoSuchThing, NotAllowed),
    },
)
async def register_dataset(
    body: NewDataset, caller: CallerParam, session: SessionParam, response: Response
) -> DatasetView:
    """Register a prepared dataset's metadata, directly in operation."""
    dataset, is_new = await commands.register_dataset(session, caller, body)
    response.status_code = 201 if is_new else 200
    return shown(response, queries.view_of_dataset(dataset), "dataset")


@router.get("/api/v1/datasets", responses=refusals(NotAllowed))
async def browse_datasets(
    caller: CallerParam,
    session: SessionParam,
    asked: PageParam,
    owner: Annotated[Literal["me"] | None, Query()] = None,
    benchmark: Annotated[Id | None, Query(description="Those that asked to join it")] = None,
    data_hash: Annotated[Blake3 | None, Query()] = None,
    generated_uid: Annotated[GeneratedUid | None, Query()] = None,
) -> Page[DatasetView]:
    """The datasets that the caller may see."""
    wanted = queries.DatasetFilter(
        mine=owner == "me", benchmark=benchmark, data_hash=data_hash, generated_uid=generated_uid
    )
    return await queries.browse_datasets(session, caller, wanted, asked)


@router.get("/api/v1/datasets/{dataset_id}", responses=refusals(NoSuchThing, NotAllowed))
async def view_dataset(
    dataset_id: DatasetId, caller: CallerParam, session: SessionParam, response: Response
) -> DatasetView:
    """One dataset."""
    dataset = await queries.find_dataset(session, caller, dataset_id)
    return shown(response, queries.view_of_dataset(dataset), "dataset")


@router.patch(
    "/api/v1/datasets/{dataset_id}",
    responses=refusals(ChangedMeanwhile, NoSuchThing, NotAllowed, VersionDiffers),
)
async def update_dataset(
    dataset_id: DatasetId,
    body: DatasetChanges,
    expected_version: ExpectedVersionParam,
    caller: CallerParam,
    session: SessionParam,
    response: Response,
) -> DatasetView:
    """Change what may change in any state: description, location, validity."""
    dataset = await commands.update_dataset(session, caller, dataset_id, body, expected_version)
    return shown(response, queries.view_of_dataset(dataset), "dataset")
