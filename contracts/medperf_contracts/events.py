"""The events. Each carries, whole, what other services need of its thing after the change.

Never in an event: scores, statistics, descriptions, reasons, or the text of a manifest.
An optional field added keeps v1; anything else is a v2 published beside it.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from .associations import AssociationState, PartKind, Priority
from .values import Blake3, Decision, Id, Sha256, State


class Event(BaseModel):
    """Something that happened to a thing of `KIND`; published under `TOPIC`."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    KIND: ClassVar[str]
    TOPIC: ClassVar[str]

    id: Id


class ContainerFacts(Event):
    """What others need to know of a container."""

    KIND: ClassVar[str] = "container"

    name: str
    owner_id: Id
    hash: Sha256
    state: State
    is_valid: bool


class ContainerRegistered(ContainerFacts):
    TOPIC: ClassVar[str] = "container.registered.v1"


class ContainerMadeOperational(ContainerFacts):
    TOPIC: ClassVar[str] = "container.made_operational.v1"


class ContainerUpdated(ContainerFacts):
    TOPIC: ClassVar[str] = "container.updated.v1"


class BenchmarkFacts(Event):
    """What others need to know of a benchmark."""

    KIND: ClassVar[str] = "benchmark"

    name: str
    owner_id: Id
    hash: Sha256
    state: State
    approval: Decision
    is_valid: bool
    preparation_id: Id
    preparation_hash: Sha256
    reference_model_id: Id
    metrics_id: Id
    metrics_hash: Sha256
    public_scores: bool
    decided_by: Id | None = None


class BenchmarkRegistered(BenchmarkFacts):
    TOPIC: ClassVar[str] = "benchmark.registered.v1"


class BenchmarkMadeOperational(BenchmarkFacts):
    TOPIC: ClassVar[str] = "benchmark.made_operational.v1"


class BenchmarkApproved(BenchmarkFacts):
    TOPIC: ClassVar[str] = "benchmark.approved.v1"


class BenchmarkRejected(BenchmarkFacts):
    TOPIC: ClassVar[str] = "benchmark.rejected.v1"


class BenchmarkUpdated(BenchmarkFacts):
    TOPIC: ClassVar[str] = "benchmark.updated.v1"


class DatasetFacts(Event):
    """What others need to know of a dataset."""

    KIND: ClassVar[str] = "dataset"

    name: str
    owner_id: Id
    data_hash: Blake3
    preparation_hash: Sha256
    state: State
    is_valid: bool


class DatasetRegistered(DatasetFacts):
    TOPIC: ClassVar[str] = "dataset.registered.v1"


class DatasetUpdated(DatasetFacts):
    TOPIC: ClassVar[str] = "dataset.updated.v1"


class AssociationFacts(Event):
    """What others need to know of an association."""

    KIND: ClassVar[str] = "association"

    benchmark_id: Id
    benchmark_name: str
    benchmark_owner_id: Id
    part_kind: PartKind
    part_id: Id
    part_name: str
    part_owner_id: Id
    state: AssociationState
    requested_by: Id
    decided_by: Id | None
    priority: Priority = 0


class AssociationRequested(AssociationFacts):
    TOPIC: ClassVar[str] = "association.requested.v1"


class AssociationApproved(AssociationFacts):
    TOPIC: ClassVar[str] = "association.approved.v1"


class AssociationRejected(AssociationFacts):
    TOPIC: ClassVar[str] = "association.rejected.v1"


class AssociationWithdrawn(AssociationFacts):
    TOPIC: ClassVar[str] = "association.withdrawn.v1"


class AssociationPrioritized(AssociationFacts):
    TOPIC: ClassVar[str] = "association.prioritized.v1"


class ResultSubmitted(Event):
    """A result was accepted. Its scores are not in the event."""

    KIND: ClassVar[str] = "result"
    TOPIC: ClassVar[str] = "result.submitted.v1"

    benchmark_id: Id
    benchmark_name: str
    benchmark_owner_id: Id
    model_id: Id
    model_name: str
    model_owner_id: Id
    dataset_id: Id
    dataset_owner_id: Id
    is_partial: bool


CONTAINER_EVENTS = (ContainerRegistered, ContainerMadeOperational, ContainerUpdated)
BENCHMARK_EVENTS = (
    BenchmarkRegistered,
    BenchmarkMadeOperational,
    BenchmarkApproved,
    BenchmarkRejected,
    BenchmarkUpdated,
)
DATASET_EVENTS = (DatasetRegistered, DatasetUpdated)
# What a side is asked, or told: notifications go out for these.
ASSOCIATION_DECISIONS = (AssociationRequested, AssociationApproved, AssociationRejected, AssociationWithdrawn)
ASSOCIATION_EVENTS = (*ASSOCIATION_DECISIONS, AssociationPrioritized)
RESULT_EVENTS = (ResultSubmitted,)
EVERY_EVENT: tuple[type[Event], ...] = (
    *CONTAINER_EVENTS,
    *BENCHMARK_EVENTS,
    *DATASET_EVENTS,
    *ASSOCIATION_EVENTS,
    *RESULT_EVENTS,
)
