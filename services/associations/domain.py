"""Who may take part in what: the rules of an association."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from medperf_contracts.access import Role
from medperf_contracts.associations import LIVE, AssociationState, PartKind
from medperf_contracts.events import (
    AssociationApproved,
    AssociationPrioritized,
    AssociationRejected,
    AssociationRequested,
    AssociationWithdrawn,
)
from medperf_contracts.values import Decision, State

from .errors import (
    AlreadyDecided,
    AssociationOver,
    BenchmarkNotOpen,
    HasNoPriority,
    NeedsNoAssociation,
    NoModelOfIt,
    NotApproved,
    PartNotReady,
    PreparedDifferently,
)


@dataclass(frozen=True)
class Benchmark:
    """What this service knows of a benchmark."""

    id: int
    name: str
    owner_id: int
    state: State
    approval: Decision
    is_valid: bool
    preparation_hash: str
    reference_model_id: int
    preparation_id: int | None = None
    metrics_id: int | None = None
    """Not known, as the one before, of a benchmark that has not changed since these are kept."""

    def roles_of_parts(self) -> dict[int | None, str]:
        """What its containers but the reference model are to it, by their IDs."""
        return {self.metrics_id: "metrics", self.preparation_id: "preparation"}

    def is_known_to(self, user_id: int) -> bool:
        """Whether a person may know of it, as the registry shows it."""
        is_open = self.state is State.OPERATION and self.approval is Decision.APPROVED
        return is_open or user_id == self.owner_id

    def check_open(self) -> None:
        """Refuse unless datasets and models may ask to take part."""
        if self.state is not State.OPERATION:
            raise BenchmarkNotOpen(f"Benchmark {self.id} is still in development.")
        if self.approval is not Decision.APPROVED:
            raise BenchmarkNotOpen(f"Benchmark {self.id} is not approved: its approval is {self.approval.value}.")
        if not self.is_valid:
            raise BenchmarkNotOpen(f"Benchmark {self.id} is marked invalid.")


@dataclass(frozen=True)
class Part:
    """What this service knows of a dataset or a model."""

    kind: PartKind
    id: int
    name: str
    owner_id: int
    state: State
    is_valid: bool
    preparation_hash: str | None
    """Of a dataset: the hash of the container that prepared it."""

    def is_known_to(self, user_id: int) -> bool:
        """Whether a person may know of it: a model in operation is everybody's to see, a dataset is not."""
        is_shown = self.kind is PartKind.MODEL and self.state is State.OPERATION
        return is_shown or user_id == self.owner_id

    def check_fits(self, benchmark: Benchmark) -> None:
        """Refuse unless this part can take part in the benchmark."""
        if self.state is not State.OPERATION or not self.is_valid:
            why = "marked invalid" if not self.is_valid else "still in development"
            raise PartNotReady(f"The {self.kind.value} {self.id} is {why}.")
        if self.kind is PartKind.MODEL and self.id == benchmark.reference_model_id:
            raise NeedsNoAssociation(f"Model {self.id} is the reference model of benchmark {benchmark.id}.")
        if self.kind is PartKind.MODEL and (role := benchmark.roles_of_parts().get(self.id)):
            raise NoModelOfIt(
                f"Container {self.id} is the {role} container of benchmark {benchmark.id}, no model."
            )
        if self.kind is PartKind.DATASET and self.preparation_hash != benchmark.preparation_hash:
            raise PreparedDifferently(
                f"Dataset {self.id} was not prepared with the preparation container of benchmark {benchmark.id}.",
                hint="Prepare the data with this benchmark's preparation container: medperf dataset create"
                f" --benchmark {benchmark.id}",
            )


@dataclass(kw_only=True)
class Association:
    """A request that a part take part in a benchmark, and what became of it."""

    id: int = field(init=False)
    version: int = field(init=False)
    benchmark_id: int
    benchmark_name: str
    benchmark_owner_id: int
    part_kind: PartKind
    part_id: int
    part_name: str
    part_owner_id: int
    state: AssociationState
    requested_by: int
    requested_at: datetime
    decided_by: int | None
    decided_at: datetime | None
    priority: int = 0
    reason: str
    summary: Mapping[str, Any]

    @classmethod
    def request(
        cls, benchmark: Benchmark, part: Part, *, by: int, at: datetime, summary: Mapping[str, Any]
    ) -> Association:
        """A new request by one side; approved at once where both sides have the same owner."""
        benchmark.check_open()
        part.check_fits(benchmark)
        decided = benchmark.owner_id == part.owner_id
        return cls(
            benchmark_id=benchmark.id,
            benchmark_name=benchmark.name,
            benchmark_owner_id=benchmark.owner_id,
            part_kind=part.kind,
            part_id=part.id,
            part_name=part.name,
            part_owner_id=part.owner_id,
            state=AssociationState.APPROVED if decided else AssociationState.PENDING,
            requested_by=by,
            requested_at=at,
            decided_by=by if decided else None,
            decided_at=at if decided else None,
            reason="",
            summary=summary,
        )

    def requested(self) -> AssociationRequested | AssociationApproved:
        """The event of a new association."""
        facts = self.facts()
        if self.state is AssociationState.APPROVED:
            return AssociationApproved(**facts)
        return AssociationRequested(**facts)

    def approve(
        self, benchmark: Benchmark, part: Part, *, by: int, at: datetime, reason: str
    ) -> AssociationApproved:
        """The side that did not ask says yes, to what both sides still are."""
        self._check_undecided(AssociationState.APPROVED)
        benchmark.check_open()
        part.check_fits(benchmark)
        self._decide(AssociationState.APPROVED, by=by, at=at, reason=reason)
        return AssociationApproved(**self.facts())

    def reject(self, *, by: int, at: datetime, reason: str) -> AssociationRejected:
        """The side that did not ask says no."""
        self._check_undecided(AssociationState.REJECTED)
        self._decide(AssociationState.REJECTED, by=by, at=at, reason=reason)
        return AssociationRejected(**self.facts())

    def withdraw(self, *, by: int, at: datetime, reason: str) -> AssociationWithdrawn:
        """Either side ends it: a pending request, or an association that was approved."""
        if self.state not in LIVE:
            raise NotApproved(f"Association {self.id} is {self.state.value} already.")
        self.state = AssociationState.WITHDRAWN
        self.decided_by, self.decided_at, self.reason = by, at, reason
        return AssociationWithdrawn(**self.facts())

    def set_priority(self, priority: int) -> AssociationPrioritized | None:
        """How early a model is run among the benchmark's; None where it was so already."""
        if self.part_kind is not PartKind.MODEL:
            raise HasNoPriority(
                f"Association {self.id} is a {self.part_kind.value}'s: only models have a priority."
            )
        if self.state not in LIVE:
            raise AssociationOver(f"Association {self.id} is {self.state.value}: the model is not run.")
        if self.priority == priority:
            return None
        self.priority = priority
        return AssociationPrioritized(**self.facts())

    def roles_of(self, user_id: int) -> set[Role]:
        """Owner is the side that asked; the other side decides."""
        roles = {Role.OWNER} if user_id == self.requested_by else set()
        sides = [self.benchmark_owner_id, self.part_owner_id]
        if self.requested_by in sides:
            sides.remove(self.requested_by)
        return roles | ({Role.OTHER_SIDE} if user_id in sides else set())

    def roles_in_order(self, user_id: int) -> set[Role]:
        """Of the order in which models run: its owner is the benchmark's, whoever asked."""
        roles = {Role.OWNER} if user_id == self.benchmark_owner_id else set()
        return roles | ({Role.OTHER_SIDE} if user_id == self.part_owner_id else set())

    def known_as(self) -> dict[Role, str]:
        """What its two sides are called, by their roles."""
        sides = (f"the {self.part_kind.value}'s owner", "the benchmark's owner")
        asking, other = sides if self.requested_by == self.part_owner_id else reversed(sides)
        return {Role.OWNER: asking, Role.OTHER_SIDE: other}

    def facts(self) -> dict[str, Any]:
        """What every event of this association carries."""
        return {
            "id": self.id,
            "benchmark_id": self.benchmark_id,
            "benchmark_name": self.benchmark_name,
            "benchmark_owner_id": self.benchmark_owner_id,
            "part_kind": self.part_kind,
            "part_id": self.part_id,
            "part_name": self.part_name,
            "part_owner_id": self.part_owner_id,
            "state": self.state,
            "requested_by": self.requested_by,
            "decided_by": self.decided_by,
            "priority": self.priority,
        }

    def _decide(self, state: AssociationState, *, by: int, at: datetime, reason: str) -> None:
        self.state = state
        self.decided_by, self.decided_at, self.reason = by, at, reason

    def _check_undecided(self, wanted: AssociationState) -> None:
        if self.state is not AssociationState.PENDING:
            raise AlreadyDecided(
                f"Association {self.id} is {self.state.value} already.", hint=self._what_is_left(wanted)
            )

    def _what_is_left(self, wanted: AssociationState) -> str:
        if self.state is wanted:
            return f"Nothing is left to do; see it with: medperf association view {self.id}"
        if self.state is AssociationState.APPROVED:
            return f"Either side ends it, whenever they like: medperf association withdraw {self.id}"
        noun = self.part_kind.value
        return (
            f"It is over. A new one can be asked for: medperf {noun} associate --benchmark_uid {self.benchmark_id}"
        )
