"""The rules of results, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy.dialects import postgresql

from medperf_contracts.results import DueState, NewResult
from medperf_contracts.values import Decision, State
from services.kernel.errors import Conflict
from services.results.commands import approvals_held
from services.results.domain import Benchmark, Dataset, Model, Result, Sight, Standing, due_state
from services.results.errors import (
    AlreadySubmitted,
    AssociationNotApproved,
    BenchmarkNotOpen,
    HashDiffers,
    ModelNotInBenchmark,
    NotValid,
)

SITE, COMMITTEE, MODEL_OWNER, STRANGER = 20, 10, 30, 99
AT = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
BENCHMARK = Benchmark(
    id=1,
    name="chest",
    owner_id=COMMITTEE,
    state=State.OPERATION,
    approval=Decision.APPROVED,
    is_valid=True,
    reference_model_id=2,
    metrics_hash="c" * 64,
    public_scores=False,
)
MODEL = Model(id=4, name="second", owner_id=MODEL_OWNER, hash="4" * 64, state=State.OPERATION, is_valid=True)
REFERENCE = replace(MODEL, id=2, name="reference", owner_id=COMMITTEE)
DATASET = Dataset(id=1, owner_id=SITE, data_hash="e" * 64, is_valid=True)
STANDING = Standing(
    BENCHMARK, MODEL, DATASET, dataset_is_approved=True, model_is_approved=True, metrics_are_valid=True
)
# What ends a result's being due, each alone, and the refusal that says so.
ENDINGS: list[tuple[Standing, type[Conflict], str]] = [
    (
        replace(STANDING, dataset_is_approved=False),
        AssociationNotApproved,
        "the dataset has no approved association",
    ),
    (replace(STANDING, model_is_approved=False), ModelNotInBenchmark, "the model has no approved association"),
    (replace(STANDING, benchmark=replace(BENCHMARK, is_valid=False)), BenchmarkNotOpen, "marked invalid"),
    (
        replace(STANDING, benchmark=replace(BENCHMARK, state=State.DEVELOPMENT)),
        BenchmarkNotOpen,
        "not approved and in operation",
    ),
    (
        replace(STANDING, benchmark=replace(BENCHMARK, approval=Decision.REJECTED)),
        BenchmarkNotOpen,
        "not approved and in operation",
    ),
    (replace(STANDING, model=replace(MODEL, is_valid=False)), NotValid, "the model is marked invalid"),
    (
        replace(STANDING, model=replace(MODEL, state=State.DEVELOPMENT)),
        NotValid,
        "the model is still in development",
    ),
    (replace(STANDING, metrics_are_valid=False), NotValid, "metrics container is marked invalid"),
    (replace(STANDING, dataset=replace(DATASET, is_valid=False)), NotValid, "the dataset is marked invalid"),
]


def offered(**changed: Any) -> NewResult:
    body = {
        "benchmark_id": 1,
        "model_id": 4,
        "dataset_id": 1,
        "metrics": {"auc": 0.9},
        "engine": "sandbox",
        "dataset_hash": "e" * 64,
        "model_hash": "4" * 64,
        "metrics_hash": "c" * 64,
        "started_at": AT,
        "finished_at": AT + timedelta(seconds=9),
    }
    return NewResult.model_validate(body | changed)


def accepted(*, is_partial: bool) -> Result:
    result = Result.submit(offered(is_partial=is_partial), STANDING, [], at=AT)
    result.id = 7
    return result


def test_a_result_is_accepted_where_one_is_due() -> None:
    result = Result.submit(offered(), STANDING, [], at=AT)
    assert (result.benchmark_id, result.model_id, result.dataset_id, result.is_partial) == (1, 4, 1, False)
    assert (result.metrics, result.submitted_at) == ({"auc": 0.9}, AT)


@pytest.mark.parametrize(("standing", "refusal", "why"), ENDINGS)
def test_each_ending_alone_refuses_the_result_and_says_why(
    standing: Standing, refusal: type[Conflict], why: str
) -> None:
    with pytest.raises(refusal) as caught:
        Result.submit(offered(), standing, [], at=AT)
    assert why in caught.value.detail
    assert caught.value.hint
    assert [obstacle.refusal for obstacle in standing.obstacles()] == [refusal]


def test_a_reason_that_others_read_never_names_the_dataset() -> None:
    standing = replace(STANDING, dataset=replace(DATASET, id=8642, is_valid=False), dataset_is_approved=False)
    assert len(standing.obstacles()) == 2
    assert not any("8642" in obstacle.why for obstacle in standing.obstacles())


def test_the_reference_model_needs_no_association_but_must_be_valid() -> None:
    standing = replace(STANDING, model=REFERENCE, model_is_approved=False)
    assert standing.obstacles() == []
    invalid = replace(standing, model=replace(REFERENCE, is_valid=False))
    assert [obstacle.refusal for obstacle in invalid.obstacles()] == [NotValid]


@pytest.mark.parametrize(
    ("earlier", "offers_partial", "is_accepted"),
    [(True, False, True), (True, True, False), (False, True, False), (False, False, False)],
)
def test_only_a_whole_result_may_follow_and_only_a_partial_one(
    earlier: bool, offers_partial: bool, is_accepted: bool
) -> None:
    def submit() -> Result:
        return Result.submit(offered(is_partial=offers_partial), STANDING, [accepted(is_partial=earlier)], at=AT)

    if is_accepted:
        assert submit().is_partial is False
        return
    with pytest.raises(AlreadySubmitted) as caught:
        submit()
    assert caught.value.existing == "result/7"


def test_what_was_submitted_is_said_before_why_it_would_not_be_due() -> None:
    ended = replace(STANDING, dataset_is_approved=False)
    with pytest.raises(AlreadySubmitted):
        Result.submit(offered(), ended, [accepted(is_partial=False)], at=AT)


@pytest.mark.parametrize(
    ("field", "named"),
    [("dataset_hash", "dataset 1"), ("model_hash", "model 4"), ("metrics_hash", "metrics container")],
)
def test_a_hash_that_is_not_the_registered_one_is_refused_and_named(field: str, named: str) -> None:
    with pytest.raises(HashDiffers) as caught:
        Result.submit(offered(**{field: "f" * 64}), STANDING, [], at=AT)
    assert named in caught.value.detail
    others = {"dataset 1", "model 4", "metrics container"} - {named}
    assert not any(other in caught.value.detail for other in others)


def test_a_run_cannot_end_before_it_began() -> None:
    with pytest.raises(ValidationError, match="must not be before started_at"):
        offered(finished_at=AT - timedelta(seconds=1))
    assert offered(finished_at=AT).finished_at == AT


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_time_that_could_not_be_read_again_is_refused(moment: str) -> None:
    with pytest.raises(ValidationError, match="between the years 1 and 9999"):
        offered(started_at=moment, finished_at=moment)


@pytest.mark.parametrize("changed", [{"metrics": {}}, {"engine": " "}])
def test_a_result_says_something(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        offered(**changed)


@pytest.mark.parametrize(
    ("user", "is_admin", "public", "sight"),
    [
        (SITE, False, False, Sight.WHOLE),
        (COMMITTEE, False, False, Sight.WHOLE),
        (STRANGER, True, False, Sight.EXISTENCE),
        (STRANGER, True, True, Sight.SCORES),
        (COMMITTEE, True, False, Sight.WHOLE),
        (MODEL_OWNER, False, False, Sight.EXISTENCE),
        (MODEL_OWNER, False, True, Sight.SCORES),
        (STRANGER, False, True, Sight.SCORES),
        (STRANGER, False, False, Sight.NOTHING),
    ],
)
def test_each_sees_no_more_of_a_result_than_the_table_says(
    user: int, is_admin: bool, public: bool, sight: Sight
) -> None:
    standing = replace(STANDING, benchmark=replace(BENCHMARK, public_scores=public))
    assert standing.sight_of(user, is_admin=is_admin) is sight


def test_what_is_not_published_is_known_to_its_owner_only() -> None:
    hidden = replace(STANDING, benchmark=replace(BENCHMARK, approval=Decision.PENDING))
    assert (hidden.is_known_to(COMMITTEE), hidden.is_known_to(SITE)) == (True, False)
    foreign = replace(STANDING, model=replace(MODEL, state=State.DEVELOPMENT), model_is_approved=False)
    assert (foreign.is_known_to(MODEL_OWNER), foreign.is_known_to(SITE)) == (True, False)
    assert replace(foreign, model_is_approved=True).is_known_to(SITE)
    assert replace(foreign, model=replace(REFERENCE, state=State.DEVELOPMENT)).is_known_to(SITE)
    assert replace(foreign, model=MODEL).is_known_to(SITE)


def test_due_turns_partial_and_then_accepted() -> None:
    assert due_state(whole_id=None, partial_id=None) is DueState.DUE
    assert due_state(whole_id=None, partial_id=3) is DueState.PARTIAL
    assert due_state(whole_id=4, partial_id=3) is DueState.ACCEPTED
    assert due_state(whole_id=4, partial_id=None) is DueState.ACCEPTED


def test_the_event_names_owners_and_carries_no_scores() -> None:
    event = accepted(is_partial=True).submitted(STANDING)
    assert (event.dataset_owner_id, event.benchmark_owner_id, event.model_owner_id) == (
        SITE,
        COMMITTEE,
        MODEL_OWNER,
    )
    assert (event.benchmark_name, event.model_name, event.is_partial) == ("chest", "second", True)
    assert "auc" not in event.model_dump_json()


def test_on_postgresql_both_approvals_are_held_until_the_commit() -> None:
    """Only the statements can be read here: on SQLite the one writer makes the same order by itself."""
    dataset, model = (
        str(statement.compile(dialect=postgresql.dialect())) for statement in approvals_held(offered())
    )
    assert dataset.endswith("FOR UPDATE")
    assert model.endswith("FOR SHARE")
