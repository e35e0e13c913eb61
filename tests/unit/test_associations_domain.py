"""How early a model is run: what the benchmark's owner may say of it, without a database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from medperf_contracts.access import Role
from medperf_contracts.associations import AssociationPriority, AssociationState, PartKind
from medperf_contracts.events import EVERY_EVENT, AssociationFacts, AssociationPrioritized
from medperf_contracts.values import Decision, State
from services.associations.domain import Association, Benchmark, Part
from services.associations.errors import AssociationOver, HasNoPriority

AT = datetime(2026, 1, 1, tzinfo=UTC)
COMMITTEE, SITE, MODEL_OWNER, STRANGER = 10, 20, 30, 99
BENCHMARK = Benchmark(
    id=1,
    name="chest",
    owner_id=COMMITTEE,
    state=State.OPERATION,
    approval=Decision.APPROVED,
    is_valid=True,
    preparation_hash="a" * 64,
    reference_model_id=2,
)


def requested(kind: PartKind = PartKind.MODEL, *, by: int = MODEL_OWNER) -> Association:
    owner = MODEL_OWNER if kind is PartKind.MODEL else SITE
    part = Part(kind, 4, "second", owner, State.OPERATION, is_valid=True, preparation_hash="a" * 64)
    made = Association.request(BENCHMARK, part, by=by, at=AT, summary={})
    made.id, made.version = 7, 1
    return made


@pytest.mark.parametrize("state", [AssociationState.PENDING, AssociationState.APPROVED])
def test_a_live_association_of_a_model_gets_a_priority_and_nothing_else_of_it_changes(
    state: AssociationState,
) -> None:
    association = requested()
    association.state = state
    before = dict(vars(association))
    event = association.set_priority(10)
    assert vars(association) == before | {"priority": 10}
    assert isinstance(event, AssociationPrioritized)
    assert (event.priority, event.state) == (10, state)
    assert dict(event) == association.facts()


def test_a_model_has_the_priority_0_until_one_is_set_and_the_same_one_again_is_no_change() -> None:
    association = requested()
    assert association.priority == 0
    assert association.set_priority(0) is None
    assert association.set_priority(-3) is not None
    assert association.set_priority(-3) is None
    assert association.priority == -3


def test_a_dataset_has_no_priority() -> None:
    association = requested(PartKind.DATASET, by=SITE)
    with pytest.raises(HasNoPriority, match="Association 7 is a dataset's"):
        association.set_priority(1)
    assert association.priority == 0


@pytest.mark.parametrize("state", [AssociationState.REJECTED, AssociationState.WITHDRAWN])
def test_an_association_that_is_over_gets_no_priority(state: AssociationState) -> None:
    association = requested()
    association.state = state
    with pytest.raises(AssociationOver, match=f"Association 7 is {state}"):
        association.set_priority(1)
    assert association.priority == 0


@pytest.mark.parametrize("by", [COMMITTEE, MODEL_OWNER])
def test_the_order_is_the_benchmarks_owners_whoever_asked(by: int) -> None:
    association = requested(by=by)
    roles = {user: association.roles_in_order(user) for user in (COMMITTEE, MODEL_OWNER, STRANGER)}
    assert roles == {COMMITTEE: {Role.OWNER}, MODEL_OWNER: {Role.OTHER_SIDE}, STRANGER: set()}


@pytest.mark.parametrize("priority", [-1000, -1, 0, 1000])
def test_a_priority_is_a_whole_number_within_its_bounds(priority: int) -> None:
    assert AssociationPriority.model_validate({"priority": priority}).priority == priority


@pytest.mark.parametrize("priority", [-1001, 1001, 1.5, 1.0, "1", True, None])
def test_what_is_no_such_number_is_no_priority(priority: Any) -> None:
    with pytest.raises(ValidationError):
        AssociationPriority.model_validate({"priority": priority})


@pytest.mark.parametrize("event", [each for each in EVERY_EVENT if issubclass(each, AssociationFacts)])
def test_an_event_from_before_there_were_priorities_tells_of_0(event: type[AssociationFacts]) -> None:
    facts = {name: value for name, value in requested().facts().items() if name != "priority"}
    assert event.model_validate(facts).priority == 0
