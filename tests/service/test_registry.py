"""The registry: HTTP in, rows and events out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from httpx import Response
from sqlalchemy import Connection, Table, insert, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.exc import StaleDataError

from medperf_contracts import hashing
from medperf_contracts.access import Role
from medperf_contracts.associations import AssociationState, PartKind
from medperf_contracts.events import (
    AssociationApproved,
    AssociationFacts,
    AssociationRejected,
    AssociationRequested,
    AssociationWithdrawn,
)
from medperf_contracts.registry import NewBenchmark, NewContainer, NewDataset
from medperf_contracts.versions import SEEN_HEADER
from service import facts
from service.facts import ADMIN, COMMITTEE, MODEL_OWNER, SITE, STRANGER
from service.peer import Peer, done, made, refused
from services.kernel.auth import Caller
from services.kernel.errors import AppError, ChangedMeanwhile
from services.kernel.service import Definition
from services.kernel.tables import KERNEL
from services.registry import commands
from services.registry.app import DEFINITION
from services.registry.domain.benchmarks import Benchmark
from services.registry.domain.containers import Container
from services.registry.domain.datasets import Dataset
from services.registry.errors import BenchmarkExists, ContainerExists
from services.registry.tables import association_copies, benchmarks, containers, datasets, metadata, progress

CONTAINERS, BENCHMARKS, DATASETS = "/api/v1/containers", "/api/v1/benchmarks", "/api/v1/datasets"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SITE_CALLS = Caller(SITE, "site", is_admin=False, is_operator=False, admitted=frozenset({Role.STRANGER}))
DATA_HASH = "e" * 64
CONTAINER = {
    "name": "preparation",
    "description": "a secret description",
    "manifest": "name: preparation\n",
    "parameters": "size: 64\n",
    "additional_files_url": "/assets/preparation.tar.gz",
    "additional_files_hash": "1" * 64,
}
BENCHMARK = {"name": "chest", "preparation_id": 1, "reference_model_id": 2, "metrics_id": 3}
DATASET = {
    "name": "mytestdata",
    "description": "A tutorial dataset",
    "location": "My machine",
    "generated_uid": DATA_HASH[:40],
    "data_hash": DATA_HASH,
    "preparation_id": 1,
    "statistics": {"cases": 200, "mean": 0.25},
}


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    """The service, empty."""
    return start(DEFINITION)


def register_container(peer: Peer, name: str, *, by: int = COMMITTEE, operational: bool = True) -> int:
    number = made(peer.call("POST", CONTAINERS, CONTAINER | {"name": name, "manifest": f"name: {name}\n"}, by=by))
    if operational:
        done(peer.call("POST", f"{CONTAINERS}/{number}/set-operational", by=by))
    return number


def register_benchmark(peer: Peer, *, approved: bool = True, **changed: Any) -> int:
    """The committee's benchmark, of its containers 1, 2 and 3."""
    number = made(peer.call("POST", BENCHMARKS, BENCHMARK | changed, by=COMMITTEE))
    if approved:
        done(peer.call("POST", f"{BENCHMARKS}/{number}/set-operational", by=COMMITTEE))
        done(peer.call("POST", f"{BENCHMARKS}/{number}/approve", by=ADMIN, admin=True))
    return number


@pytest.fixture
def parts(peer: Peer) -> Peer:
    """The service with the committee's containers 1, 2 and 3 in operation."""
    assert [register_container(peer, name) for name in ("preparation", "reference", "metrics")] == [1, 2, 3]
    return peer


def association(state: AssociationState, kind: PartKind = PartKind.DATASET, **changed: Any) -> AssociationFacts:
    event = {
        AssociationState.PENDING: AssociationRequested,
        AssociationState.APPROVED: AssociationApproved,
        AssociationState.REJECTED: AssociationRejected,
        AssociationState.WITHDRAWN: AssociationWithdrawn,
    }[state]
    return event.model_validate(facts.association(state=state, part_kind=kind, **changed).model_dump())


def ids(peer: Peer, path: str, *, by: int, admin: bool = False) -> list[int]:
    return [item["id"] for item in done(peer.call("GET", path, by=by, admin=admin))["items"]]


# Containers


def test_a_container_begins_in_development_with_hashes_that_the_server_computed(peer: Peer) -> None:
    response = peer.call("POST", CONTAINERS, CONTAINER, by=COMMITTEE)
    assert response.status_code == 201
    assert response.headers["Medperf-Version"] == "container/1@1"
    shown = response.json()
    assert (shown["state"], shown["is_valid"], shown["owner_id"]) == ("DEVELOPMENT", True, COMMITTEE)
    assert shown["owner_name"] == f"user{COMMITTEE}"
    assert {name: shown[name] for name in CONTAINER} == CONTAINER
    assert shown["manifest_hash"] == hashing.text_hash("name: preparation\n")
    assert shown["parameters_hash"] == hashing.text_hash("size: 64\n")
    assert shown["hash"] == hashing.container_hash(
        manifest_hash=shown["manifest_hash"],
        parameters_hash=shown["parameters_hash"],
        additional_files_hash="1" * 64,
        image_hash=None,
    )
    assert done(peer.call("GET", f"{CONTAINERS}/1", by=COMMITTEE)) == shown


def test_the_same_container_of_the_same_owner_is_refused_naming_the_one_there(peer: Peer) -> None:
    made(peer.call("POST", CONTAINERS, CONTAINER, by=COMMITTEE))
    again = peer.call("POST", CONTAINERS, CONTAINER | {"name": "another name"}, by=COMMITTEE)
    problem = refused(again, 409, "container_exists")
    assert problem["existing"] == "container/1"
    assert '"preparation"' in problem["detail"]
    assert made(peer.call("POST", CONTAINERS, CONTAINER, by=MODEL_OWNER)) == 2
    assert made(peer.call("POST", CONTAINERS, CONTAINER | {"parameters": "size: 65\n"}, by=COMMITTEE)) == 3


def test_a_container_in_development_is_seen_by_its_owner_and_administrators_only(peer: Peer) -> None:
    register_container(peer, "mine", operational=False)
    for path in (f"{CONTAINERS}/1", f"{CONTAINERS}/777"):
        refused(peer.call("GET", path, by=STRANGER), 404, "no_such_thing")
    for user, admin, seen in ((COMMITTEE, False, [1]), (ADMIN, True, [1]), (STRANGER, False, [])):
        assert ids(peer, CONTAINERS, by=user, admin=admin) == seen
    done(peer.call("POST", f"{CONTAINERS}/1/set-operational", by=COMMITTEE))
    assert done(peer.call("GET", f"{CONTAINERS}/1", by=STRANGER))["state"] == "OPERATION"
    assert ids(peer, CONTAINERS, by=STRANGER) == [1]


def test_a_container_is_made_operational_once(parts: Peer) -> None:
    again = parts.call("POST", f"{CONTAINERS}/1/set-operational", by=COMMITTEE)
    refused(again, 409, "already_operational")


def test_what_may_change_of_a_container_in_operation_changes_and_raises_its_version(parts: Peer) -> None:
    changes = {"description": "new", "is_valid": False, "additional_files_url": "https://mirror.example/p.tar.gz"}
    before = done(parts.call("GET", f"{CONTAINERS}/1", by=COMMITTEE))
    response = parts.call("PATCH", f"{CONTAINERS}/1", changes, by=COMMITTEE, headers={"If-Match": '"2"'})
    assert done(response) == before | changes | {"version": 3}
    assert (response.headers["Medperf-Version"], response.headers["ETag"]) == ("container/1@3", '"3"')
    last = parts.events()[-1]
    assert (last.type, last.subject, last.aggregateversion) == ("container.updated.v1", "container/1", 3)
    assert last.data["is_valid"] is False


@pytest.mark.parametrize("noun", [CONTAINERS, BENCHMARKS, DATASETS])
@pytest.mark.parametrize(
    "field", ["name", "manifest", "hash", "state", "preparation_id", "statistics", "image_hash", "public_scores"]
)
def test_nothing_that_says_what_a_thing_is_can_be_changed(parts: Peer, noun: str, field: str) -> None:
    register_benchmark(parts, approved=False)
    parts.call("POST", DATASETS, DATASET, by=COMMITTEE)
    before = done(parts.call("GET", f"{noun}/1", by=COMMITTEE))
    response = parts.call("PATCH", f"{noun}/1", {field: "x"}, by=COMMITTEE, headers={"If-Match": '"1"'})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
    assert done(parts.call("GET", f"{noun}/1", by=COMMITTEE)) == before


def test_a_url_without_a_registered_hash_is_refused_and_changes_nothing(parts: Peer) -> None:
    register_benchmark(parts)
    for path, changes in (
        (f"{CONTAINERS}/1", {"description": "new", "image_url": "/assets/image.tar"}),
        (f"{BENCHMARKS}/1", {"description": "new", "demo_data_url": "/assets/demo.tar.gz"}),
    ):
        before = done(parts.call("GET", path, by=COMMITTEE))
        version = {"If-Match": f'"{before["version"]}"'}
        response = parts.call("PATCH", path, changes, by=COMMITTEE, headers=version)
        refused(response, 409, "nothing_registered_behind_url")
        assert done(parts.call("GET", path, by=COMMITTEE)) == before


@pytest.mark.parametrize(
    ("noun", "path", "by"),
    [(Container, CONTAINERS, COMMITTEE), (Benchmark, BENCHMARKS, COMMITTEE), (Dataset, DATASETS, SITE)],
)
def test_two_sessions_cannot_both_change_the_same_version(
    parts: Peer, noun: type[Container | Benchmark | Dataset], path: str, by: int
) -> None:
    register_benchmark(parts)
    made(parts.call("POST", DATASETS, DATASET, by=SITE))

    async def change_twice() -> None:
        async with parts.service.database.read() as first:
            held = await first.get_one(noun, 1)
            first.expunge(held)
        async with parts.service.database.write() as session:
            (await session.get_one(noun, 1)).description = "the first"
        async with parts.service.database.write() as session:
            session.add(held)
            held.description = "the second"

    with pytest.raises(StaleDataError):
        parts.run(change_twice())
    assert done(parts.call("GET", f"{path}/1", by=by))["description"] == "the first"


# Benchmarks


def test_a_benchmark_begins_in_development_and_needs_an_administrator_to_be_open(parts: Peer) -> None:
    demo = {
        "demo_data_url": "/assets/demo.tar.gz",
        "demo_data_hash": "f" * 64,
        "docs_url": "https://docs.example/",
    }
    response = parts.call("POST", BENCHMARKS, BENCHMARK | demo | {"public_scores": True}, by=COMMITTEE)
    assert (response.status_code, response.headers["Medperf-Version"]) == (201, "benchmark/1@1")
    shown = response.json()
    assert (shown["state"], shown["approval"], shown["is_valid"]) == ("DEVELOPMENT", "PENDING", True)
    assert {name: shown[name] for name in demo} == demo
    preparation, reference, metrics = (
        done(parts.call("GET", f"{CONTAINERS}/{number}", by=STRANGER))["hash"] for number in (1, 2, 3)
    )
    assert shown["hash"] == hashing.benchmark_hash(
        preparation=preparation, reference_model=reference, metrics=metrics, demo_data="f" * 64
    )
    operational = done(parts.call("POST", f"{BENCHMARKS}/1/set-operational", by=COMMITTEE))
    assert (operational["state"], operational["approval"]) == ("OPERATION", "PENDING")
    approved = done(parts.call("POST", f"{BENCHMARKS}/1/approve", by=ADMIN, admin=True))
    assert (approved["approval"], approved["version"]) == ("APPROVED", 3)
    told = [event for event in parts.events() if event.subject == "benchmark/1"]
    assert [(event.type, event.aggregateversion) for event in told] == [
        ("benchmark.registered.v1", 1),
        ("benchmark.made_operational.v1", 2),
        ("benchmark.approved.v1", 3),
    ]
    assert told[-1].data == {
        "id": 1,
        "name": "chest",
        "owner_id": COMMITTEE,
        "hash": shown["hash"],
        "state": "OPERATION",
        "approval": "APPROVED",
        "is_valid": True,
        "preparation_id": 1,
        "preparation_hash": preparation,
        "reference_model_id": 2,
        "metrics_id": 3,
        "metrics_hash": metrics,
        "public_scores": True,
        "decided_by": 1,
    }


def test_a_benchmark_is_seen_by_strangers_only_while_operational_and_approved(parts: Peer) -> None:
    def seen_by(user: int, *, admin: bool = False) -> bool:
        listed = 1 in ids(parts, BENCHMARKS, by=user, admin=admin)
        assert (parts.call("GET", f"{BENCHMARKS}/1", by=user, admin=admin).status_code == 200) is listed
        return listed

    register_benchmark(parts, approved=False)
    assert (seen_by(STRANGER), seen_by(COMMITTEE), seen_by(ADMIN, admin=True)) == (False, True, True)
    done(parts.call("POST", f"{BENCHMARKS}/1/set-operational", by=COMMITTEE))
    assert (seen_by(STRANGER), seen_by(COMMITTEE), seen_by(ADMIN, admin=True)) == (False, True, True)
    done(parts.call("POST", f"{BENCHMARKS}/1/approve", by=ADMIN, admin=True))
    assert (seen_by(STRANGER), seen_by(COMMITTEE), seen_by(ADMIN, admin=True)) == (True, True, True)


def test_a_rejected_benchmark_stays_hidden_until_the_rejection_is_taken_back(parts: Peer) -> None:
    register_benchmark(parts, approved=False)
    refused(parts.call("POST", f"{BENCHMARKS}/1/reject", by=ADMIN, admin=True), 409, "benchmark_not_operational")
    done(parts.call("POST", f"{BENCHMARKS}/1/set-operational", by=COMMITTEE))
    done(parts.call("POST", f"{BENCHMARKS}/1/reject", by=ADMIN, admin=True))
    refused(parts.call("GET", f"{BENCHMARKS}/1", by=STRANGER), 404, "no_such_thing")
    refused(parts.call("POST", f"{BENCHMARKS}/1/reject", by=ADMIN, admin=True), 409, "approval_decided")
    assert parts.events()[-1].type == "benchmark.rejected.v1"
    done(parts.call("POST", f"{BENCHMARKS}/1/approve", by=ADMIN, admin=True))
    assert parts.events()[-1].type == "benchmark.approved.v1"


def test_a_benchmark_is_made_of_containers_that_its_owner_may_see_and_that_are_valid(parts: Peer) -> None:
    hidden = register_container(parts, "hidden", by=MODEL_OWNER, operational=False)
    for role in ("preparation_id", "reference_model_id", "metrics_id"):
        for number in (hidden, 777):
            response = parts.call("POST", BENCHMARKS, BENCHMARK | {role: number}, by=COMMITTEE)
            refused(response, 404, "no_such_thing")
    done(parts.call("PATCH", f"{CONTAINERS}/3", {"is_valid": False}, by=COMMITTEE, headers={"If-Match": "2"}))
    recorded = len(parts.events())
    refused(parts.call("POST", BENCHMARKS, BENCHMARK, by=COMMITTEE), 409, "container_not_valid")
    assert len(parts.events()) == recorded
    assert ids(parts, BENCHMARKS, by=COMMITTEE) == []


def test_one_container_may_have_several_roles_in_a_benchmark(parts: Peer) -> None:
    register_benchmark(parts, preparation_id=1, reference_model_id=1, metrics_id=1)


def test_a_benchmark_goes_into_operation_only_with_parts_that_are(parts: Peer) -> None:
    own = register_container(parts, "own", operational=False)
    register_benchmark(parts, approved=False, reference_model_id=own)
    problem = refused(
        parts.call("POST", f"{BENCHMARKS}/1/set-operational", by=COMMITTEE), 409, "parts_not_operational"
    )
    assert f"container {own} " in problem["detail"]
    assert "container 1 " not in problem["detail"]
    done(parts.call("POST", f"{CONTAINERS}/{own}/set-operational", by=COMMITTEE))
    done(parts.call("POST", f"{BENCHMARKS}/1/set-operational", by=COMMITTEE))
    refused(parts.call("POST", f"{BENCHMARKS}/1/set-operational", by=COMMITTEE), 409, "already_operational")


def test_the_same_benchmark_of_the_same_owner_is_refused_naming_the_one_there(parts: Peer) -> None:
    register_benchmark(parts, approved=False)
    problem = refused(
        parts.call("POST", BENCHMARKS, BENCHMARK | {"name": "again"}, by=COMMITTEE), 409, "benchmark_exists"
    )
    assert problem["existing"] == "benchmark/1"
    assert '"chest"' in problem["detail"]
    assert made(parts.call("POST", BENCHMARKS, BENCHMARK, by=MODEL_OWNER)) == 2
    demo = {"demo_data_url": "/assets/demo.tar.gz", "demo_data_hash": "f" * 64}
    assert made(parts.call("POST", BENCHMARKS, BENCHMARK | demo, by=COMMITTEE)) == 3


def test_a_benchmarks_description_validity_and_urls_may_change(parts: Peer) -> None:
    register_benchmark(parts, demo_data_url="/assets/demo.tar.gz", demo_data_hash="f" * 64)
    before = done(parts.call("GET", f"{BENCHMARKS}/1", by=STRANGER))
    changes = {
        "description": "new",
        "docs_url": "https://docs.example/",
        "demo_data_url": "https://mirror.example/demo.tar.gz",
        "is_valid": False,
    }
    response = parts.call("PATCH", f"{BENCHMARKS}/1", changes, by=COMMITTEE, headers={"If-Match": '"3"'})
    assert done(response) == before | changes | {"version": 4}
    last = parts.events()[-1]
    assert (last.type, last.aggregateversion, last.data["is_valid"]) == ("benchmark.updated.v1", 4, False)


def test_null_clears_what_may_be_empty_and_nothing_else(parts: Peer) -> None:
    register_benchmark(parts, docs_url="https://docs.example/", approved=False)
    version = {"If-Match": '"1"'}
    for field in ("description", "demo_data_url", "is_valid"):
        response = parts.call("PATCH", f"{BENCHMARKS}/1", {field: None}, by=COMMITTEE, headers=version)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_input"), field
    response = parts.call("PATCH", f"{BENCHMARKS}/1", {"docs_url": None}, by=COMMITTEE, headers=version)
    assert (done(response)["docs_url"], done(response)["version"]) == (None, 2)


# Datasets


def test_a_dataset_is_registered_directly_in_operation(parts: Peer) -> None:
    response = parts.call("POST", DATASETS, DATASET, by=SITE)
    assert (response.status_code, response.headers["Medperf-Version"]) == (201, "dataset/1@1")
    shown = response.json()
    assert {name: shown[name] for name in DATASET} == DATASET
    assert (shown["state"], shown["is_valid"], shown["owner_name"]) == ("OPERATION", True, f"user{SITE}")
    preparation = done(parts.call("GET", f"{CONTAINERS}/1", by=SITE))
    assert shown["preparation_hash"] == preparation["hash"]
    last = parts.events()[-1]
    assert (last.type, last.subject, last.aggregateversion) == ("dataset.registered.v1", "dataset/1", 1)
    assert last.data == {
        "id": 1,
        "name": "mytestdata",
        "owner_id": SITE,
        "data_hash": DATA_HASH,
        "preparation_hash": preparation["hash"],
        "state": "OPERATION",
        "is_valid": True,
    }


def test_the_same_dataset_of_the_same_owner_is_answered_with_the_one_there_unchanged(parts: Peer) -> None:
    first = parts.call("POST", DATASETS, DATASET, by=SITE).json()
    recorded = len(parts.events())
    done(parts.call("PATCH", f"{CONTAINERS}/1", {"is_valid": False}, by=COMMITTEE, headers={"If-Match": "2"}))
    again = parts.call("POST", DATASETS, DATASET | {"name": "renamed", "statistics": {}}, by=SITE)
    assert done(again) == first
    assert again.headers["Medperf-Version"] == "dataset/1@1"
    assert [event.type for event in parts.events()[recorded:]] == ["container.updated.v1"]


def test_the_same_data_of_another_owner_or_another_preparation_is_a_dataset_of_its_own(parts: Peer) -> None:
    assert made(parts.call("POST", DATASETS, DATASET, by=SITE)) == 1
    assert made(parts.call("POST", DATASETS, DATASET, by=MODEL_OWNER)) == 2
    assert made(parts.call("POST", DATASETS, DATASET | {"preparation_id": 2}, by=SITE)) == 3


def test_a_dataset_names_a_preparation_that_its_owner_may_see_and_that_is_valid(parts: Peer) -> None:
    hidden = register_container(parts, "hidden", operational=False)
    for number in (hidden, 777):
        response = parts.call("POST", DATASETS, DATASET | {"preparation_id": number}, by=SITE)
        refused(response, 404, "no_such_thing")
    done(parts.call("PATCH", f"{CONTAINERS}/1", {"is_valid": False}, by=COMMITTEE, headers={"If-Match": "2"}))
    refused(parts.call("POST", DATASETS, DATASET, by=SITE), 409, "container_not_valid")
    assert ids(parts, DATASETS, by=SITE) == []


@pytest.mark.parametrize("state", AssociationState)
def test_a_benchmarks_owner_sees_a_dataset_that_asked_to_join_whatever_came_of_that(
    parts: Peer, state: AssociationState
) -> None:
    made(parts.call("POST", DATASETS, DATASET, by=SITE))
    parts.tell(association(AssociationState.PENDING), version=1)
    assert done(parts.call("GET", f"{DATASETS}/1", by=COMMITTEE))["statistics"] == DATASET["statistics"]
    assert ids(parts, DATASETS, by=COMMITTEE) == [1]
    parts.tell(association(state), version=2)
    done(parts.call("GET", f"{DATASETS}/1", by=COMMITTEE))
    for query in ("", "?benchmark=1"):
        assert ids(parts, f"{DATASETS}{query}", by=COMMITTEE) == [1]
    refused(parts.call("GET", f"{DATASETS}/1", by=STRANGER), 404, "no_such_thing")
    assert ids(parts, DATASETS, by=STRANGER) == []
    assert ids(parts, DATASETS, by=ADMIN, admin=True) == [1]


def test_a_benchmarks_owner_cannot_find_out_which_other_benchmarks_a_dataset_asked_to_join(parts: Peer) -> None:
    made(parts.call("POST", DATASETS, DATASET, by=SITE))
    parts.tell(association(AssociationState.APPROVED))
    other = association(AssociationState.PENDING)
    parts.tell(other.model_copy(update={"id": 9, "benchmark_id": 2, "benchmark_owner_id": MODEL_OWNER}))
    for by, seen in ((SITE, [1]), (MODEL_OWNER, [1]), (COMMITTEE, []), (STRANGER, [])):
        assert ids(parts, f"{DATASETS}?benchmark=2", by=by) == seen
    assert ids(parts, f"{DATASETS}?benchmark=2", by=ADMIN, admin=True) == [1]


def test_asking_with_one_dataset_does_not_show_its_owners_others(parts: Peer) -> None:
    made(parts.call("POST", DATASETS, DATASET, by=SITE))
    other = {"data_hash": "d" * 64, "generated_uid": "d" * 40}
    made(parts.call("POST", DATASETS, DATASET | other, by=SITE))
    parts.tell(association(AssociationState.APPROVED))
    refused(parts.call("GET", f"{DATASETS}/2", by=COMMITTEE), 404, "no_such_thing")
    assert ids(parts, DATASETS, by=COMMITTEE) == [1]


def test_a_models_association_does_not_show_the_dataset_of_the_same_number(parts: Peer) -> None:
    made(parts.call("POST", DATASETS, DATASET, by=SITE))
    parts.tell(association(AssociationState.APPROVED, PartKind.MODEL))
    refused(parts.call("GET", f"{DATASETS}/1", by=COMMITTEE), 404, "no_such_thing")
    assert ids(parts, DATASETS, by=COMMITTEE) == []
    assert ids(parts, f"{DATASETS}?benchmark=1", by=SITE) == []


def test_a_request_that_has_seen_an_association_waits_for_it(parts: Peer) -> None:
    made(parts.call("POST", DATASETS, DATASET, by=SITE))

    async def look_before_the_news_is_here() -> Response:
        look = asyncio.create_task(
            parts.send("GET", f"{DATASETS}/1", by=COMMITTEE, headers={SEEN_HEADER: "association/1@2"})
        )
        await asyncio.sleep(0.1)
        assert not look.done()
        async with parts.service.database.write() as session:
            await session.execute(
                insert(association_copies).values(
                    id=1,
                    version=2,
                    benchmark_id=1,
                    benchmark_owner_id=COMMITTEE,
                    part_kind=PartKind.DATASET,
                    part_id=1,
                    state=AssociationState.PENDING,
                )
            )
        return await look

    done(parts.run(look_before_the_news_is_here()))


def test_a_datasets_description_location_and_validity_may_change(parts: Peer) -> None:
    before = parts.call("POST", DATASETS, DATASET, by=SITE).json()
    changes = {"description": "new", "location": "Ward 3", "is_valid": False}
    response = parts.call("PATCH", f"{DATASETS}/1", changes, by=SITE, headers={"If-Match": '"1"'})
    assert done(response) == before | changes | {"version": 2}
    last = parts.events()[-1]
    assert (last.type, last.aggregateversion, last.data["is_valid"]) == ("dataset.updated.v1", 2, False)


# What holds for each noun


@pytest.fixture
def one_of_each(parts: Peer) -> Peer:
    """Containers 1 to 3 and benchmark 1 open; the site's dataset 1 asks to join it.

    Container 4 is in development, benchmark 2 too; benchmark 3 is in operation and waits for an administrator.
    """
    register_benchmark(parts)
    register_container(parts, "unfinished", operational=False)
    register_benchmark(parts, approved=False, metrics_id=4)
    number = register_benchmark(parts, approved=False, metrics_id=1)
    done(parts.call("POST", f"{BENCHMARKS}/{number}/set-operational", by=COMMITTEE))
    made(parts.call("POST", DATASETS, DATASET, by=SITE))
    parts.tell(association(AssociationState.PENDING))
    return parts


@pytest.mark.parametrize(("path", "owner"), [(CONTAINERS, COMMITTEE), (BENCHMARKS, COMMITTEE), (DATASETS, SITE)])
def test_a_change_names_the_version_that_it_changes(one_of_each: Peer, path: str, owner: int) -> None:
    before = done(one_of_each.call("GET", f"{path}/1", by=owner))
    recorded = one_of_each.events()
    body = {"description": "new"}
    refused(one_of_each.call("PATCH", f"{path}/1", body, by=owner), 400, "version_required")
    for junk in ("", "*", '"x"', '"1.5"', '"-1"', "9" * 5_000):
        response = one_of_each.call("PATCH", f"{path}/1", body, by=owner, headers={"If-Match": junk})
        refused(response, 400, "version_required")
    for version in (before["version"] - 1, before["version"] + 1):
        response = one_of_each.call("PATCH", f"{path}/1", body, by=owner, headers={"If-Match": f'"{version}"'})
        refused(response, 412, "precondition_failed")
    assert done(one_of_each.call("GET", f"{path}/1", by=owner)) == before
    assert one_of_each.events() == recorded


@pytest.mark.parametrize(("path", "owner"), [(CONTAINERS, COMMITTEE), (BENCHMARKS, COMMITTEE), (DATASETS, SITE)])
def test_a_change_that_changes_nothing_records_no_event(one_of_each: Peer, path: str, owner: int) -> None:
    before = done(one_of_each.call("GET", f"{path}/1", by=owner))
    recorded = one_of_each.events()
    same = {"description": before["description"], "is_valid": True}
    headers = {"If-Match": f'"{before["version"]}"'}
    assert done(one_of_each.call("PATCH", f"{path}/1", same, by=owner, headers=headers)) == before
    assert one_of_each.events() == recorded


# Each line: endpoint, then the answers to nobody, a stranger, the other side, an administrator, the owner.
ANSWERS: list[tuple[str, str, dict[str, Any] | None, tuple[int, int, int, int, int]]] = [
    ("GET", CONTAINERS, None, (401, 200, 200, 200, 200)),
    ("GET", f"{CONTAINERS}/1", None, (401, 200, 200, 200, 200)),
    ("GET", f"{CONTAINERS}/4", None, (401, 404, 404, 200, 200)),
    ("PATCH", f"{CONTAINERS}/1", {}, (401, 403, 403, 200, 200)),
    ("PATCH", f"{CONTAINERS}/4", {}, (401, 404, 404, 200, 200)),
    ("POST", f"{CONTAINERS}/1/set-operational", None, (401, 403, 403, 403, 409)),
    ("POST", f"{CONTAINERS}/4/set-operational", None, (401, 404, 404, 403, 200)),
    ("GET", BENCHMARKS, None, (401, 200, 200, 200, 200)),
    ("GET", f"{BENCHMARKS}/1", None, (401, 200, 200, 200, 200)),
    ("GET", f"{BENCHMARKS}/2", None, (401, 404, 404, 200, 200)),
    ("PATCH", f"{BENCHMARKS}/1", {}, (401, 403, 403, 200, 200)),
    ("PATCH", f"{BENCHMARKS}/2", {}, (401, 404, 404, 200, 200)),
    ("POST", f"{BENCHMARKS}/2/set-operational", None, (401, 404, 404, 403, 409)),
    ("POST", f"{BENCHMARKS}/3/approve", None, (401, 403, 403, 200, 403)),
    ("POST", f"{BENCHMARKS}/3/reject", None, (401, 403, 403, 200, 403)),
    ("GET", DATASETS, None, (401, 200, 200, 200, 200)),
    ("GET", f"{DATASETS}/1", None, (401, 404, 200, 200, 200)),
    ("PATCH", f"{DATASETS}/1", {}, (401, 404, 403, 200, 200)),
    ("POST", CONTAINERS, CONTAINER | {"manifest": "name: new\n"}, (401, 201, 201, 201, 201)),
    (
        "POST",
        BENCHMARKS,
        BENCHMARK | {"demo_data_url": "/d", "demo_data_hash": "f" * 64},
        (401, 201, 201, 201, 201),
    ),
    ("POST", DATASETS, DATASET | {"preparation_id": 2}, (401, 201, 201, 201, 201)),
]


@pytest.mark.parametrize(("method", "path", "body", "answers"), ANSWERS)
def test_each_role_gets_what_it_may_have_and_no_more(
    one_of_each: Peer, method: str, path: str, body: dict[str, Any] | None, answers: tuple[int, ...]
) -> None:
    owner, other_side = (SITE, COMMITTEE) if path.startswith(DATASETS) else (COMMITTEE, SITE)
    headers = {}
    if method == "PATCH":
        version = done(one_of_each.call("GET", path, by=ADMIN, admin=True))["version"]
        headers = {"If-Match": f'"{version}"'}
    callers: tuple[dict[str, Any], ...] = (
        {},
        {"by": STRANGER},
        {"by": other_side},
        {"by": ADMIN, "admin": True},
        {"by": owner},
    )
    got = tuple(one_of_each.call(method, path, body, headers=headers, **caller).status_code for caller in callers)
    assert got == answers


FILTERS = [
    (f"{CONTAINERS}?owner=me", [4], MODEL_OWNER),
    (f"{CONTAINERS}?owner=me", [1, 2, 3], COMMITTEE),
    (f"{CONTAINERS}?name=metrics", [3], SITE),
    (f"{CONTAINERS}?name=metric", [], SITE),
    (f"{CONTAINERS}?state=DEVELOPMENT", [4], MODEL_OWNER),
    (f"{CONTAINERS}?state=OPERATION", [1, 2, 3], MODEL_OWNER),
    (f"{BENCHMARKS}?owner=me", [], SITE),
    (f"{BENCHMARKS}?owner=me", [1, 2], COMMITTEE),
    (f"{BENCHMARKS}?name=second", [2], COMMITTEE),
    (f"{BENCHMARKS}?state=OPERATION", [1], COMMITTEE),
    (f"{BENCHMARKS}?approval=PENDING", [2], COMMITTEE),
    (f"{BENCHMARKS}?approval=APPROVED", [1], COMMITTEE),
    (f"{DATASETS}?owner=me", [], COMMITTEE),
    (f"{DATASETS}?owner=me", [1, 2], SITE),
    (f"{DATASETS}?benchmark=1", [1], SITE),
    (f"{DATASETS}?benchmark=2", [], SITE),
    (f"{DATASETS}?data_hash={'d' * 64}", [2], SITE),
    (f"{DATASETS}?generated_uid={DATA_HASH[:40]}", [1], SITE),
    (f"{DATASETS}?generated_uid={DATA_HASH[:40]}", [1], COMMITTEE),
]


def test_every_filter_keeps_what_it_names_of_what_the_caller_may_see(parts: Peer) -> None:
    register_container(parts, "unfinished", by=MODEL_OWNER, operational=False)
    register_benchmark(parts)
    register_benchmark(parts, approved=False, name="second", metrics_id=2)
    made(parts.call("POST", DATASETS, DATASET, by=SITE))
    other = {"data_hash": "d" * 64, "generated_uid": "d" * 40}
    made(parts.call("POST", DATASETS, DATASET | other, by=SITE))
    made(parts.call("POST", DATASETS, DATASET, by=MODEL_OWNER))
    parts.tell(association(AssociationState.PENDING))
    for path, expected, by in FILTERS:
        assert ids(parts, path, by=by) == expected, (path, by)
    assert ids(parts, f"{DATASETS}?owner=me", by=ADMIN, admin=True) == []


@pytest.mark.parametrize("path", [CONTAINERS, BENCHMARKS, DATASETS])
def test_the_filter_by_owner_takes_nothing_but_me(peer: Peer, path: str) -> None:
    response = peer.call("GET", f"{path}?owner={COMMITTEE}", by=STRANGER)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


@pytest.mark.parametrize("path", [CONTAINERS, BENCHMARKS, DATASETS])
def test_pages_hold_every_thing_once(parts: Peer, path: str) -> None:
    for number in (1, 2, 3):
        register_benchmark(parts, approved=False, metrics_id=number)
        other = {"data_hash": str(number) * 64, "generated_uid": str(number) * 40}
        made(parts.call("POST", DATASETS, DATASET | other, by=COMMITTEE))
    seen: list[int] = []
    cursor: str | None = "0"
    for _ in range(2):
        page = done(parts.call("GET", f"{path}?limit=2&cursor={cursor}", by=COMMITTEE))
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert (seen, cursor) == ([1, 2, 3], None)


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        (CONTAINERS, CONTAINER, "container"),
        (BENCHMARKS, BENCHMARK, "benchmark"),
        (DATASETS, DATASET, "dataset"),
        (f"{CONTAINERS}/4/set-operational", None, "container"),
    ],
)
def test_the_same_key_is_answered_as_the_first_time_and_done_once(
    parts: Peer, path: str, body: dict[str, Any] | None, kind: str
) -> None:
    register_container(parts, "unfinished", by=SITE, operational=False)
    recorded = len(parts.events())
    first, second = (parts.call("POST", path, body, by=SITE, key="the-same-key") for _ in range(2))
    assert first.is_success
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    assert second.headers["Medperf-Version"] == first.headers["Medperf-Version"]
    assert first.headers["Medperf-Version"].startswith(f"{kind}/")
    assert len(parts.events()) == recorded + 1
    if body is not None:
        other = parts.call("POST", path, body | {"name": "other"}, by=SITE, key="the-same-key")
        refused(other, 409, "idempotency_key_reused")


async def container_beside_its_twin(session: AsyncSession) -> None:
    new = NewContainer.model_validate(CONTAINER)
    session.add(Container.register(new, by=SITE, owner_name="site", at=NOW))
    await commands.register_container(session, SITE_CALLS, new)


async def benchmark_beside_its_twin(session: AsyncSession) -> None:
    new = NewBenchmark.model_validate(BENCHMARK)
    session.add(
        Benchmark.register(
            new,
            preparation=await session.get_one(Container, 1),
            reference_model=await session.get_one(Container, 2),
            metrics=await session.get_one(Container, 3),
            by=SITE,
            owner_name="site",
            at=NOW,
        )
    )
    await commands.register_benchmark(session, SITE_CALLS, new)


async def dataset_beside_its_twin(session: AsyncSession) -> None:
    new = NewDataset.model_validate(DATASET)
    preparation = await session.get_one(Container, 1)
    session.add(Dataset.register(new, preparation=preparation, by=SITE, owner_name="site", at=NOW))
    await commands.register_dataset(session, SITE_CALLS, new)


@pytest.mark.parametrize(
    ("register", "refusal"),
    [
        (container_beside_its_twin, ContainerExists),
        (benchmark_beside_its_twin, BenchmarkExists),
        (dataset_beside_its_twin, ChangedMeanwhile),
    ],
)
def test_a_twin_that_the_check_cannot_see_is_refused_by_the_unique_index(
    parts: Peer, register: Callable[[AsyncSession], Coroutine[Any, Any, None]], refusal: type[AppError]
) -> None:
    """The twin reaches the table with the new row, after the check: as another session's would at that moment."""

    async def register_twice() -> None:
        async with parts.service.database.write() as session:
            await register(session)

    recorded = parts.events()
    with pytest.raises(refusal):
        parts.run(register_twice())
    assert parts.events() == recorded


# The schema


def test_the_migrations_make_the_schema_that_the_code_maps(peer: Peer) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, [KERNEL, metadata]))  # type: ignore[arg-type]

    async def compare() -> list[Any]:
        async with peer.service.database.engine.connect() as connection:
            return await connection.run_sync(differences)

    assert peer.run(compare()) == []


@pytest.mark.only_on(
    "sqlite", because="its plan does not depend on how many rows there are; the indexes are the same"
)
@pytest.mark.parametrize(
    ("table", "column"),
    [
        (containers, "owner_id"),
        (containers, "name"),
        (containers, "state"),
        (benchmarks, "owner_id"),
        (benchmarks, "name"),
        (benchmarks, "state"),
        (benchmarks, "approval"),
        (datasets, "owner_id"),
        (datasets, "data_hash"),
        (datasets, "generated_uid"),
        (progress, "benchmark_id"),
        (progress, "owner_id"),
        (association_copies, "benchmark_id"),
        (association_copies, "benchmark_owner_id"),
        (association_copies, "part_id"),
    ],
)
def test_an_index_serves_each_filter(peer: Peer, table: Table, column: str) -> None:
    async def plan() -> str:
        async with peer.service.database.read() as session:
            query = f"EXPLAIN QUERY PLAN SELECT * FROM {table.name} WHERE {column} = 1"
            return str((await session.execute(text(query))).mappings().one()["detail"])

    assert f"SEARCH {table.name} USING INDEX" in peer.run(plan())
