"""The rules of containers, benchmarks and datasets."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from medperf_contracts.access import Role
from medperf_contracts.registry import (
    BenchmarkChanges,
    ContainerChanges,
    DatasetChanges,
    NewBenchmark,
    NewContainer,
    NewDataset,
)
from medperf_contracts.values import Decision, State
from services.registry.domain.benchmarks import Benchmark
from services.registry.domain.containers import Container
from services.registry.domain.datasets import Dataset
from services.registry.errors import (
    AlreadyOperational,
    ApprovalDecided,
    ContainerNotValid,
    NothingRegisteredBehindUrl,
    NotOperational,
    PartsNotOperational,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OWNER, ADMINISTRATOR, SOMEBODY = 10, 1, 99
DATA_HASH = "e" * 64


def container(
    number: int = 1, *, state: State = State.OPERATION, is_valid: bool = True, **given: Any
) -> Container:
    new = NewContainer.model_validate({"name": "c", "manifest": f"name: {number}\n"} | given)
    made = Container.register(new, by=OWNER, owner_name="owner", at=NOW)
    made.id, made.version, made.state, made.is_valid = number, 1, state, is_valid
    return made


def benchmark(
    *, state: State = State.DEVELOPMENT, approval: Decision = Decision.PENDING, **given: Any
) -> Benchmark:
    new = NewBenchmark.model_validate(
        {"name": "b", "preparation_id": 1, "reference_model_id": 2, "metrics_id": 3} | given
    )
    made = Benchmark.register(
        new,
        preparation=container(1),
        reference_model=container(2),
        metrics=container(3),
        by=OWNER,
        owner_name="owner",
        at=NOW,
    )
    made.id, made.version, made.state, made.approval = 1, 1, state, approval
    return made


def dataset(preparation: Container) -> Dataset:
    new = NewDataset(
        name="d", generated_uid=DATA_HASH[:40], data_hash=DATA_HASH, preparation_id=1, statistics={"cases": 3}
    )
    made = Dataset.register(new, preparation=preparation, by=OWNER, owner_name="owner", at=NOW)
    made.id, made.version = 1, 1
    return made


def test_a_containers_hash_is_over_the_hashes_of_all_its_parts() -> None:
    made = container(
        manifest="name: é\n",
        parameters="a: 1\n",
        additional_files_url="/assets/a.tar.gz",
        additional_files_hash="1" * 64,
        image_hash="2" * 64,
    )
    assert made.manifest_hash == hashlib.sha256("name: é\n".encode()).hexdigest()
    assert made.parameters_hash == hashlib.sha256(b"a: 1\n").hexdigest()
    parts = {
        "additional_files": "1" * 64,
        "image": "2" * 64,
        "manifest": made.manifest_hash,
        "parameters": made.parameters_hash,
    }
    assert made.hash == hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def test_a_container_without_parameters_differs_from_one_with_others() -> None:
    hashes = {container(parameters=text).hash for text in (None, "a: 1\n", "a: 2\n")}
    assert len(hashes) == 3


def test_a_benchmarks_hash_changes_with_its_demo_data_and_not_with_its_name() -> None:
    assert benchmark().hash == benchmark(name="other", description="other").hash
    assert benchmark().hash != benchmark(demo_data_url="/assets/demo.tar.gz", demo_data_hash="f" * 64).hash


def test_a_new_container_is_valid_and_in_development() -> None:
    new = NewContainer(name="c", manifest="name: c\n")
    made = Container.register(new, by=OWNER, owner_name="owner", at=NOW)
    assert (made.state, made.is_valid, made.owner_name, made.created_at) == (State.DEVELOPMENT, True, "owner", NOW)


def test_an_operational_container_or_benchmark_cannot_be_made_operational_again() -> None:
    with pytest.raises(AlreadyOperational):
        container(state=State.OPERATION).set_operational()
    with pytest.raises(AlreadyOperational):
        benchmark(state=State.OPERATION).set_operational([])


@pytest.mark.parametrize("part", ["additional_files", "image"])
def test_a_url_cannot_be_given_where_no_hash_is_registered(part: str) -> None:
    bare = container()
    with pytest.raises(NothingRegisteredBehindUrl, match=part):
        bare.update(ContainerChanges.model_validate({f"{part}_url": "/assets/x"}))
    assert bare.additional_files_url is bare.image_url is None


def test_a_demo_data_url_cannot_be_given_where_no_hash_is_registered() -> None:
    with pytest.raises(NothingRegisteredBehindUrl, match="demo_data_hash"):
        benchmark().update(BenchmarkChanges(demo_data_url="/assets/demo.tar.gz"))


def test_a_change_that_changes_nothing_has_no_event() -> None:
    assert container(description="as it is").update(ContainerChanges(description="as it is")) is None
    assert benchmark().update(BenchmarkChanges(is_valid=True)) is None
    assert dataset(container()).update(DatasetChanges()) is None


def test_a_change_of_validity_is_in_the_event() -> None:
    event = container().update(ContainerChanges(is_valid=False))
    assert event is not None
    assert event.is_valid is False


def test_a_field_that_is_left_out_stays_as_it_is() -> None:
    changed = dataset(container())
    changed.update(DatasetChanges(description="new"))
    changed.update(DatasetChanges(location="Ward 3"))
    assert (changed.description, changed.location, changed.is_valid) == ("new", "Ward 3", True)


def test_a_benchmark_of_parts_that_cannot_run_names_each_and_why() -> None:
    parts = [
        container(1),
        container(2, state=State.DEVELOPMENT),
        container(3, state=State.DEVELOPMENT, is_valid=False),
        container(4, is_valid=False),
    ]
    unready = benchmark()
    with pytest.raises(PartsNotOperational) as refused:
        unready.set_operational(parts)
    assert "container 1 " not in refused.value.detail
    assert "container 2 is still in development," in refused.value.detail
    assert "container 3 is still in development and marked invalid," in refused.value.detail
    assert "container 4 is marked invalid." in refused.value.detail
    assert unready.state is State.DEVELOPMENT


@pytest.mark.parametrize("role", ["preparation", "reference_model", "metrics"])
def test_a_benchmark_cannot_be_made_of_an_invalid_container(role: str) -> None:
    new = NewBenchmark(name="b", preparation_id=1, reference_model_id=2, metrics_id=3)
    parts = {"preparation": container(1), "reference_model": container(2), "metrics": container(3)}
    parts[role].is_valid = False
    with pytest.raises(ContainerNotValid):
        Benchmark.register(new, **parts, by=OWNER, owner_name="owner", at=NOW)


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_benchmark_in_development_cannot_be_decided(verb: str) -> None:
    undecided = benchmark()
    with pytest.raises(NotOperational) as refused:
        getattr(undecided, verb)(by=ADMINISTRATOR)
    assert refused.value.hint.endswith(f"medperf benchmark set-operational {undecided.id}")
    assert (undecided.approval, undecided.decided_by) == (Decision.PENDING, None)


def test_a_rejection_can_be_taken_back() -> None:
    made = benchmark(state=State.OPERATION, approval=Decision.REJECTED)
    event = made.approve(by=ADMINISTRATOR)
    assert (event.approval, event.decided_by) == (Decision.APPROVED, ADMINISTRATOR)


@pytest.mark.parametrize(
    ("verb", "decided", "command"),
    [
        ("approve", Decision.APPROVED, "benchmark view {id}"),
        ("reject", Decision.APPROVED, "benchmark update {id} --invalid"),
        ("reject", Decision.REJECTED, "benchmark view {id}"),
    ],
)
def test_a_decided_benchmark_cannot_be_decided_again(verb: str, decided: Decision, command: str) -> None:
    made = benchmark(state=State.OPERATION, approval=decided)
    with pytest.raises(ApprovalDecided, match=decided.value) as refused:
        getattr(made, verb)(by=ADMINISTRATOR)
    assert refused.value.hint.endswith(command.format(id=made.id))
    assert made.approval is decided


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("approval", Decision)
def test_only_an_operational_and_approved_benchmark_is_visible_to_strangers(
    state: State, approval: Decision
) -> None:
    made = benchmark(state=state, approval=approval)
    is_open = (state, approval) == (State.OPERATION, Decision.APPROVED)
    assert made.is_visible_to(SOMEBODY) is is_open
    assert made.is_visible_to(OWNER)


def test_a_container_in_development_is_visible_to_its_owner_alone() -> None:
    made = container(state=State.DEVELOPMENT)
    assert made.is_visible_to(OWNER)
    assert not made.is_visible_to(SOMEBODY)


def test_a_benchmarks_facts_hold_the_hashes_of_what_prepares_and_scores() -> None:
    made = benchmark()
    event = made.registered()
    assert (event.preparation_hash, event.metrics_hash) == (container(1).hash, container(3).hash)
    assert (event.preparation_id, event.reference_model_id, event.metrics_id) == (1, 2, 3)


def test_a_dataset_is_operational_at_once_and_names_what_prepared_it() -> None:
    preparation = container()
    made = dataset(preparation)
    assert (made.state, made.is_valid, made.preparation_hash) == (State.OPERATION, True, preparation.hash)


def test_a_dataset_cannot_come_from_an_invalid_preparation() -> None:
    with pytest.raises(ContainerNotValid):
        dataset(container(is_valid=False))


def test_the_owner_of_a_dataset_is_not_also_its_other_side() -> None:
    made = dataset(container())
    assert made.roles_of(OWNER, benchmark_owner_ids={OWNER, 20}) == {Role.OWNER}
    assert made.roles_of(20, benchmark_owner_ids={OWNER, 20}) == {Role.OTHER_SIDE}
    assert made.roles_of(SOMEBODY, benchmark_owner_ids={OWNER, 20}) == set()


@pytest.mark.parametrize("sign", ["\u200b", "\u2028", "\u2060", "\ufeff", "\u200f", "\u061c", "\x07", "\n"])
def test_a_name_holds_no_sign_that_nobody_sees(sign: str) -> None:
    with pytest.raises(ValidationError, match="control or invisible characters"):
        NewContainer(name=f"che{sign}st", manifest="a: 1")


def test_a_name_in_any_script_is_fine_and_the_spaces_around_it_are_not_kept() -> None:
    persian = "\u0645\u06cc\u200c\u0631\u0648\u062f"
    assert NewContainer(name=f"  {persian} ", manifest="a: 1").name == persian
