"""Other services' facts, as their events tell them: whole and valid, changed where a test says so."""

from __future__ import annotations

from typing import Any

from medperf_contracts.associations import AssociationState, PartKind
from medperf_contracts.events import (
    AssociationApproved,
    BenchmarkApproved,
    ContainerMadeOperational,
    DatasetRegistered,
)
from medperf_contracts.values import Decision, State

PREPARATION_HASH, METRICS_HASH = "a" * 64, "c" * 64
COMMITTEE, SITE, MODEL_OWNER, STRANGER, ADMIN = 10, 20, 30, 99, 1


def benchmark(**changed: Any) -> BenchmarkApproved:
    """Benchmark 1 of the committee, open, with reference model 2."""
    facts = {
        "id": 1,
        "name": "chest",
        "owner_id": COMMITTEE,
        "hash": "d" * 64,
        "state": State.OPERATION,
        "approval": Decision.APPROVED,
        "is_valid": True,
        "preparation_id": 1,
        "preparation_hash": PREPARATION_HASH,
        "reference_model_id": 2,
        "metrics_id": 3,
        "metrics_hash": METRICS_HASH,
        "public_scores": False,
    }
    return BenchmarkApproved.model_validate(facts | changed)


def container(**changed: Any) -> ContainerMadeOperational:
    """Container 4 of the model owner, in operation."""
    facts = {
        "id": 4,
        "name": "second",
        "owner_id": MODEL_OWNER,
        "hash": "4" * 64,
        "state": State.OPERATION,
        "is_valid": True,
    }
    return ContainerMadeOperational.model_validate(facts | changed)


def dataset(**changed: Any) -> DatasetRegistered:
    """Dataset 1 of the site, prepared for benchmark 1."""
    facts = {
        "id": 1,
        "name": "mydata",
        "owner_id": SITE,
        "data_hash": "e" * 64,
        "preparation_hash": PREPARATION_HASH,
        "state": State.OPERATION,
        "is_valid": True,
    }
    return DatasetRegistered.model_validate(facts | changed)


def association(**changed: Any) -> AssociationApproved:
    """The approved association of dataset 1 with benchmark 1."""
    facts = {
        "id": 1,
        "benchmark_id": 1,
        "benchmark_name": "chest",
        "benchmark_owner_id": COMMITTEE,
        "part_kind": PartKind.DATASET,
        "part_id": 1,
        "part_name": "mydata",
        "part_owner_id": SITE,
        "state": AssociationState.APPROVED,
        "requested_by": SITE,
        "decided_by": COMMITTEE,
    }
    return AssociationApproved.model_validate(facts | changed)
