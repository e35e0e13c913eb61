"""Who is told what, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from medperf_contracts.associations import AssociationState, PartKind
from medperf_contracts.events import (
    AssociationApproved,
    AssociationFacts,
    AssociationRejected,
    AssociationRequested,
    AssociationWithdrawn,
    BenchmarkApproved,
    BenchmarkFacts,
    BenchmarkRejected,
    BenchmarkUpdated,
    ResultSubmitted,
)
from medperf_contracts.values import Decision, State
from services.notifications.domain import Notification, of_association, of_benchmark, of_result

SITE, COMMITTEE, MODEL_OWNER, ADMINISTRATOR = 20, 10, 30, 1
AT = datetime(2026, 3, 4, tzinfo=UTC)
STATES: dict[type[AssociationFacts], AssociationState] = {
    AssociationRequested: AssociationState.PENDING,
    AssociationApproved: AssociationState.APPROVED,
    AssociationRejected: AssociationState.REJECTED,
    AssociationWithdrawn: AssociationState.WITHDRAWN,
}
MODEL: dict[str, Any] = {
    "part_kind": PartKind.MODEL,
    "part_id": 4,
    "part_name": "cnn",
    "part_owner_id": MODEL_OWNER,
}


def association(event: type[AssociationFacts], **changed: Any) -> AssociationFacts:
    facts = {
        "id": 7,
        "benchmark_id": 1,
        "benchmark_name": "CheXpert tutorial",
        "benchmark_owner_id": COMMITTEE,
        "part_kind": PartKind.DATASET,
        "part_id": 5,
        "part_name": "mytestdata",
        "part_owner_id": SITE,
        "state": STATES[event],
        "requested_by": SITE,
        "decided_by": None if event is AssociationRequested else COMMITTEE,
    }
    return event.model_validate(facts | changed)


def benchmark(event: type[BenchmarkFacts], *, decided_by: int = ADMINISTRATOR) -> BenchmarkFacts:
    return event(
        id=1,
        name="CheXpert tutorial",
        owner_id=COMMITTEE,
        hash="d" * 64,
        state=State.OPERATION,
        approval=Decision.REJECTED if event is BenchmarkRejected else Decision.APPROVED,
        is_valid=True,
        preparation_id=1,
        preparation_hash="a" * 64,
        reference_model_id=2,
        metrics_id=3,
        metrics_hash="c" * 64,
        public_scores=False,
        decided_by=decided_by,
    )


def result(**changed: Any) -> ResultSubmitted:
    facts = {
        "id": 3,
        "benchmark_id": 1,
        "benchmark_name": "CheXpert tutorial",
        "benchmark_owner_id": COMMITTEE,
        "model_id": 4,
        "model_name": "cnn",
        "model_owner_id": MODEL_OWNER,
        "dataset_id": 5,
        "dataset_owner_id": SITE,
        "is_partial": False,
    }
    return ResultSubmitted.model_validate(facts | changed)


def test_a_datasets_request_tells_the_benchmarks_owner_how_to_decide() -> None:
    assert of_association(association(AssociationRequested)) == [
        (
            COMMITTEE,
            "Dataset 'mytestdata' (5) asks to join your benchmark 'CheXpert tutorial' (1). "
            "Decide with: medperf association approve --benchmark_uid 1 --data_uid 5",
        )
    ]


def test_an_invited_models_owner_is_told_how_to_decide() -> None:
    assert of_association(association(AssociationRequested, **MODEL, requested_by=COMMITTEE)) == [
        (
            MODEL_OWNER,
            "Your model 'cnn' (4) is invited to join benchmark 'CheXpert tutorial' (1). "
            "Decide with: medperf association approve --benchmark_uid 1 --model_uid 4",
        )
    ]


def test_a_model_that_asks_is_not_called_invited() -> None:
    ((reader, text),) = of_association(association(AssociationRequested, **MODEL, requested_by=MODEL_OWNER))
    assert (reader, "Model 'cnn' (4) asks to join your benchmark" in text) == (COMMITTEE, True)


def test_an_approval_tells_the_data_owner_what_to_run() -> None:
    assert of_association(association(AssociationApproved)) == [
        (
            SITE,
            "Your dataset 'mytestdata' (5) was accepted into benchmark 'CheXpert tutorial' (1). "
            "Run its models with: medperf benchmark run --benchmark 1 --data_uid 5",
        )
    ]


def test_an_approved_invitation_tells_the_benchmarks_owner() -> None:
    event = association(AssociationApproved, **MODEL, requested_by=COMMITTEE, decided_by=MODEL_OWNER)
    assert of_association(event) == [
        (
            COMMITTEE,
            "Model 'cnn' (4) was accepted into your benchmark 'CheXpert tutorial' (1). "
            "See it with: medperf association view 7",
        )
    ]


def test_a_rejection_tells_the_side_that_asked_where_the_reason_stands() -> None:
    assert of_association(association(AssociationRejected)) == [
        (
            SITE,
            "Your dataset 'mytestdata' (5) was not accepted into benchmark 'CheXpert tutorial' (1). "
            "See why with: medperf association view 7",
        )
    ]


@pytest.mark.parametrize(("decided_by", "reader"), [(SITE, COMMITTEE), (COMMITTEE, SITE)])
def test_a_withdrawal_tells_the_side_that_did_not_withdraw(decided_by: int, reader: int) -> None:
    ((told, text),) = of_association(association(AssociationWithdrawn, decided_by=decided_by))
    assert told == reader
    assert "was withdrawn. See why with: medperf association view 7" in text


@pytest.mark.parametrize("event", list(STATES))
def test_nobody_is_told_of_what_they_did_with_themselves(event: type[AssociationFacts]) -> None:
    alone = {"part_owner_id": COMMITTEE, "requested_by": COMMITTEE, "decided_by": COMMITTEE}
    assert of_association(association(event, **alone)) == []


@pytest.mark.parametrize(
    ("event", "says"), [(BenchmarkApproved, "was approved"), (BenchmarkRejected, "was rejected")]
)
def test_a_benchmarks_owner_is_told_what_was_decided(event: type[BenchmarkFacts], says: str) -> None:
    ((reader, text),) = of_benchmark(benchmark(event))
    assert reader == COMMITTEE
    assert f"Your benchmark 'CheXpert tutorial' (1) {says}" in text
    assert "medperf " in text


def test_an_owner_who_decided_of_their_own_benchmark_is_not_told() -> None:
    assert of_benchmark(benchmark(BenchmarkApproved, decided_by=COMMITTEE)) == []


def test_an_event_that_has_no_sentence_is_an_error_and_not_silence() -> None:
    class AssociationHeard(AssociationFacts):
        TOPIC = "association.heard.v1"

    heard = AssociationHeard.model_validate(association(AssociationApproved).model_dump())
    with pytest.raises(TypeError, match=r"association\.heard\.v1 tells nobody"):
        of_association(heard)
    with pytest.raises(TypeError, match=r"benchmark\.updated\.v1 tells nobody"):
        of_benchmark(benchmark(BenchmarkUpdated))


def test_a_result_tells_the_model_owner_without_dataset_or_site() -> None:
    told = dict(of_result(result(dataset_id=8642, dataset_owner_id=9753)))
    assert set(told) == {COMMITTEE, MODEL_OWNER}
    assert told[MODEL_OWNER] == (
        "There is a new result of your model 'cnn' (4) on benchmark 'CheXpert tutorial' (1). "
        "See it with: medperf result view 3"
    )
    assert told[COMMITTEE] == (
        "There is a new result of model 'cnn' (4) on dataset 8642 in your benchmark 'CheXpert tutorial' (1). "
        "See it with: medperf result view 3"
    )
    assert not any("9753" in text for text in told.values())


def test_one_person_who_owns_benchmark_and_model_is_told_once() -> None:
    ((reader, text),) = of_result(result(model_owner_id=COMMITTEE))
    assert (reader, "on dataset 5" in text) == (COMMITTEE, True)


@pytest.mark.parametrize(
    ("owned", "told"),
    [
        ({"benchmark_owner_id": SITE}, [MODEL_OWNER]),
        ({"model_owner_id": SITE}, [COMMITTEE]),
        ({"benchmark_owner_id": SITE, "model_owner_id": SITE}, []),
    ],
)
def test_who_submitted_a_result_is_not_told_of_it(owned: dict[str, int], told: list[int]) -> None:
    assert [reader for reader, _ in of_result(result(**owned))] == told


def test_a_partial_result_is_called_partial() -> None:
    assert all("new partial result of" in text for _, text in of_result(result(is_partial=True)))


def test_read_again_keeps_the_first_time() -> None:
    notification = Notification(
        user_id=SITE, event_id="e", topic="t", about="result/3", text="x", created_at=AT, read_at=None
    )
    notification.mark_read(at=AT)
    notification.mark_read(at=AT + timedelta(hours=1))
    assert notification.read_at == AT
