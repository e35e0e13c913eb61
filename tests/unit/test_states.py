"""Whatever is tried on a thing, in any order and by anybody: it goes the ways of one table, and no other.

The table is written here once more; each machine tries random words on a thing and on the table, and compares.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from medperf_contracts.associations import AssociationState, PartKind
from medperf_contracts.registry import BenchmarkChanges, ContainerChanges, NewBenchmark, NewContainer
from medperf_contracts.values import Decision, State
from services.associations.domain import Association, Part
from services.associations.domain import Benchmark as KnownBenchmark
from services.kernel.errors import Conflict
from services.registry.domain.benchmarks import Benchmark
from services.registry.domain.containers import Container

AT = datetime(2026, 1, 1, tzinfo=UTC)
OWNER, COMMITTEE, ADMINISTRATOR = 20, 10, 1

# State and word -> the state that follows; what is not here is refused and changes nothing.
ASSOCIATION = {
    ("PENDING", "approve"): "APPROVED",
    ("PENDING", "reject"): "REJECTED",
    ("PENDING", "withdraw"): "WITHDRAWN",
    ("APPROVED", "withdraw"): "WITHDRAWN",
}
BENCHMARK = {
    ("DEVELOPMENT PENDING", "set operational"): "OPERATION PENDING",
    ("OPERATION PENDING", "approve"): "OPERATION APPROVED",
    ("OPERATION PENDING", "reject"): "OPERATION REJECTED",
    ("OPERATION REJECTED", "approve"): "OPERATION APPROVED",
}
EVENTS = {
    "approve": "approved",
    "reject": "rejected",
    "withdraw": "withdrawn",
    "set operational": "made_operational",
}


def container(number: int) -> Container:
    made = Container.register(
        NewContainer(name=f"c{number}", manifest=f"name: c{number}"), by=OWNER, owner_name="o", at=AT
    )
    made.id, made.version = number, 1
    return made


class Associations(RuleBasedStateMachine):
    """One association, of a dataset of one person with a benchmark of another's."""

    @initialize(same_owner=strategies.booleans())
    def request(self, same_owner: bool) -> None:
        self.benchmark = KnownBenchmark(
            id=1,
            name="b",
            owner_id=OWNER if same_owner else COMMITTEE,
            state=State.OPERATION,
            approval=Decision.APPROVED,
            is_valid=True,
            preparation_hash="a" * 64,
            reference_model_id=2,
        )
        self.part = self._part(is_valid=True)
        self.association = Association.request(self.benchmark, self.part, by=OWNER, at=AT, summary={})
        self.association.id, self.association.version = 7, 1
        self.is_valid = True
        # Whoever owns both sides need not ask themselves.
        self.state = "APPROVED" if same_owner else "PENDING"

    @rule(
        word=strategies.sampled_from(("approve", "reject", "withdraw")), by=strategies.sampled_from((10, 20, 99))
    )
    def say(self, word: str, by: int) -> None:
        follows = ASSOCIATION.get((self.state, word))
        if word == "approve" and not self.is_valid:
            follows = None
        before = dict(vars(self.association))
        try:
            event = self._said(word, by)
        except Conflict:
            assert follows is None
            assert vars(self.association) == before, "a refusal changes nothing"
            return
        assert follows is not None, f"{word} on {self.state} must be refused"
        assert f"association.{EVENTS[word]}.v1" == event.TOPIC
        assert (event.state, event.decided_by) == (follows, by)
        self.state = follows

    @rule()
    def turn_validity(self) -> None:
        self.is_valid = not self.is_valid
        self.part = self._part(is_valid=self.is_valid)

    @invariant()
    def is_in_its_state(self) -> None:
        assert self.association.state == AssociationState(self.state)
        assert (self.association.decided_by is None) == (self.state == "PENDING")

    def _said(self, word: str, by: int) -> Any:
        if word == "approve":
            return self.association.approve(self.benchmark, self.part, by=by, at=AT, reason="")
        return getattr(self.association, word)(by=by, at=AT, reason="")

    def _part(self, *, is_valid: bool) -> Part:
        return Part(
            kind=PartKind.DATASET,
            id=1,
            name="d",
            owner_id=OWNER,
            state=State.OPERATION,
            is_valid=is_valid,
            preparation_hash="a" * 64,
        )


class Benchmarks(RuleBasedStateMachine):
    """One benchmark and the containers that it is made of."""

    @initialize()
    def register(self) -> None:
        self.parts = [container(number) for number in (1, 2, 3)]
        self.ready = set[int]()
        preparation, reference, metrics = self.parts
        self.benchmark = Benchmark.register(
            NewBenchmark(name="b", preparation_id=1, reference_model_id=2, metrics_id=3),
            preparation=preparation,
            reference_model=reference,
            metrics=metrics,
            by=COMMITTEE,
            owner_name="c",
            at=AT,
        )
        self.benchmark.id, self.benchmark.version = 1, 1
        self.state = "DEVELOPMENT PENDING"
        self.hash = self.benchmark.hash

    @rule(word=strategies.sampled_from(("set operational", "approve", "reject")))
    def say(self, word: str) -> None:
        follows = BENCHMARK.get((self.state, word))
        if word == "set operational" and self.ready != {1, 2, 3}:
            follows = None
        before = dict(vars(self.benchmark))
        try:
            event = self._said(word)
        except Conflict:
            assert follows is None
            assert vars(self.benchmark) == before, "a refusal changes nothing"
            return
        assert follows is not None, f"{word} on {self.state} must be refused"
        assert f"benchmark.{EVENTS[word]}.v1" == event.TOPIC
        assert f"{event.state} {event.approval}" == follows
        self.state = follows

    @rule(number=strategies.sampled_from((0, 1, 2)))
    def make_operational(self, number: int) -> None:
        part = self.parts[number]
        if part.state is State.OPERATION:
            with pytest.raises(Conflict):
                part.set_operational()
            return
        part.set_operational()
        if part.is_valid:
            self.ready.add(part.id)

    @rule(number=strategies.sampled_from((0, 1, 2)), is_valid=strategies.booleans())
    def mark(self, number: int, is_valid: bool) -> None:
        part = self.parts[number]
        event = part.update(ContainerChanges(is_valid=is_valid))
        assert (event is None) or event.is_valid is is_valid
        self.ready -= {part.id}
        if part.is_valid and part.state is State.OPERATION:
            self.ready.add(part.id)

    @rule(description=strategies.sampled_from(("one", "two")), is_valid=strategies.booleans())
    def update(self, description: str, is_valid: bool) -> None:
        differs = (self.benchmark.description, self.benchmark.is_valid) != (description, is_valid)
        event = self.benchmark.update(BenchmarkChanges(description=description, is_valid=is_valid))
        assert (event is not None) == differs

    @invariant()
    def is_in_its_state(self) -> None:
        assert f"{self.benchmark.state} {self.benchmark.approval}" == self.state
        assert self.benchmark.hash == self.hash, "what it measures never changes"

    def _said(self, word: str) -> Any:
        if word == "set operational":
            return self.benchmark.set_operational(self.parts)
        return getattr(self.benchmark, word)(by=ADMINISTRATOR)


for _machine in (Associations, Benchmarks):
    _machine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAssociations = Associations.TestCase
TestBenchmarks = Benchmarks.TestCase
