"""What a benchmark is, who lets it begin, and what of it may change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from medperf_contracts import hashing
from medperf_contracts.access import Role
from medperf_contracts.events import (
    BenchmarkApproved,
    BenchmarkMadeOperational,
    BenchmarkRegistered,
    BenchmarkRejected,
    BenchmarkUpdated,
)
from medperf_contracts.registry import BenchmarkChanges, NewBenchmark
from medperf_contracts.values import Decision, State

from ..errors import (
    AlreadyOperational,
    ApprovalDecided,
    NothingRegisteredBehindUrl,
    NotOperational,
    PartsNotOperational,
)
from .changes import apply
from .containers import Container


@dataclass(kw_only=True)
class Benchmark:
    """A benchmark as it was registered. What it measures never changes: its parts' hashes are fixed."""

    id: int = field(init=False)
    version: int = field(init=False)
    name: str
    description: str
    docs_url: str | None
    owner_id: int
    owner_name: str
    preparation_id: int
    preparation_hash: str
    reference_model_id: int
    metrics_id: int
    metrics_hash: str
    demo_data_url: str | None
    demo_data_hash: str | None
    public_scores: bool
    hash: str
    state: State
    approval: Decision
    decided_by: int | None
    is_valid: bool
    created_at: datetime

    @classmethod
    def register(
        cls,
        new: NewBenchmark,
        *,
        preparation: Container,
        reference_model: Container,
        metrics: Container,
        by: int,
        owner_name: str,
        at: datetime,
    ) -> Benchmark:
        """A new benchmark of three valid containers, in development; one container may have several roles."""
        for part in (preparation, reference_model, metrics):
            part.check_valid()
        return cls(
            name=new.name,
            description=new.description,
            docs_url=new.docs_url,
            owner_id=by,
            owner_name=owner_name,
            preparation_id=preparation.id,
            preparation_hash=preparation.hash,
            reference_model_id=reference_model.id,
            metrics_id=metrics.id,
            metrics_hash=metrics.hash,
            demo_data_url=new.demo_data_url,
            demo_data_hash=new.demo_data_hash,
            public_scores=new.public_scores,
            hash=hashing.benchmark_hash(
                preparation=preparation.hash,
                reference_model=reference_model.hash,
                metrics=metrics.hash,
                demo_data=new.demo_data_hash,
            ),
            state=State.DEVELOPMENT,
            approval=Decision.PENDING,
            decided_by=None,
            is_valid=True,
            created_at=at,
        )

    def registered(self) -> BenchmarkRegistered:
        """The event of a new benchmark."""
        return BenchmarkRegistered(**self.facts())

    def update(self, changes: BenchmarkChanges) -> BenchmarkUpdated | None:
        """Change what may change in any state; None where nothing differs."""
        if changes.demo_data_url is not None and self.demo_data_hash is None:
            raise NothingRegisteredBehindUrl(f"Benchmark {self.id} was registered without demo_data_hash.")
        if not apply(changes, self):
            return None
        return BenchmarkUpdated(**self.facts())

    def set_operational(self, parts: Iterable[Container]) -> BenchmarkMadeOperational:
        """Offer it to the administrators; what it is made of must be able to run."""
        if self.state is State.OPERATION:
            raise AlreadyOperational(f"Benchmark {self.id} is in operation already.")
        unready = [f"container {part.id} is {why}" for part in parts if (why := _why_not_ready(part))]
        if unready:
            raise PartsNotOperational(f"Benchmark {self.id} cannot go into operation: {', '.join(unready)}.")
        self.state = State.OPERATION
        return BenchmarkMadeOperational(**self.facts())

    def approve(self, *, by: int) -> BenchmarkApproved:
        """An administrator lets it begin."""
        self._decide(Decision.APPROVED, by=by)
        return BenchmarkApproved(**self.facts())

    def reject(self, *, by: int) -> BenchmarkRejected:
        """An administrator refuses it."""
        self._decide(Decision.REJECTED, by=by)
        return BenchmarkRejected(**self.facts())

    def roles_of(self, user_id: int) -> set[Role]:
        """What a person is to this benchmark."""
        return {Role.OWNER} if user_id == self.owner_id else set()

    def is_visible_to(self, user_id: int) -> bool:
        """Whether a person who is no administrator may know of it."""
        is_open = self.state is State.OPERATION and self.approval is Decision.APPROVED
        return user_id == self.owner_id or is_open

    def facts(self) -> dict[str, Any]:
        """What every event of this benchmark carries."""
        return {
            "id": self.id,
            "name": self.name,
            "owner_id": self.owner_id,
            "hash": self.hash,
            "state": self.state,
            "approval": self.approval,
            "is_valid": self.is_valid,
            "preparation_id": self.preparation_id,
            "preparation_hash": self.preparation_hash,
            "reference_model_id": self.reference_model_id,
            "metrics_id": self.metrics_id,
            "metrics_hash": self.metrics_hash,
            "public_scores": self.public_scores,
            "decided_by": self.decided_by,
        }

    def _decide(self, approval: Decision, *, by: int) -> None:
        if self.state is not State.OPERATION:
            raise NotOperational(
                f"Benchmark {self.id} is still in development.",
                hint=f"Its owner brings it into operation first: medperf benchmark set-operational {self.id}",
            )
        # A rejection can be taken back: its owner could not register the same parts again.
        if self.approval is approval or self.approval is Decision.APPROVED:
            raise ApprovalDecided(
                f"Benchmark {self.id} is {self.approval.value} already.", hint=self._what_is_left(approval)
            )
        self.approval = approval
        self.decided_by = by

    def _what_is_left(self, wanted: Decision) -> str:
        if self.approval is wanted:
            return f"Nothing is left to do; see it with: medperf benchmark view {self.id}"
        return (
            "An approval is not taken back, since datasets and models may have joined. To let nothing more be"
            " asked for or submitted, mark it invalid, as its owner or an administrator: medperf benchmark update"
            f" {self.id} --invalid"
        )


def _why_not_ready(part: Container) -> str:
    reasons = []
    if part.state is not State.OPERATION:
        reasons.append("still in development")
    if not part.is_valid:
        reasons.append("marked invalid")
    return " and ".join(reasons)
