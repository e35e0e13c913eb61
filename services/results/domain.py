"""What is due, what was submitted, and who may see of it what: the rules of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any

from medperf_contracts.events import ResultSubmitted
from medperf_contracts.results import DueState, NewResult
from medperf_contracts.values import Decision, State
from services.kernel.errors import Conflict

from .errors import (
    AlreadySubmitted,
    AssociationNotApproved,
    BenchmarkNotOpen,
    HashDiffers,
    ModelNotInBenchmark,
    NotValid,
)


class Sight(IntEnum):
    """How much of a result a person may see; each includes the one before."""

    NOTHING = 0
    EXISTENCE = 1
    SCORES = 2
    WHOLE = 3


@dataclass(frozen=True)
class Benchmark:
    """What this service knows of a benchmark."""

    id: int
    name: str
    owner_id: int
    state: State
    approval: Decision
    is_valid: bool
    reference_model_id: int
    metrics_hash: str
    public_scores: bool

    @property
    def is_published(self) -> bool:
        """Whether everybody may know of it."""
        return self.state is State.OPERATION and self.approval is Decision.APPROVED


@dataclass(frozen=True)
class Model:
    """What this service knows of a container that may be a model."""

    id: int
    name: str
    owner_id: int
    hash: str
    state: State
    is_valid: bool


@dataclass(frozen=True)
class Dataset:
    """What this service knows of a dataset."""

    id: int
    owner_id: int
    data_hash: str
    is_valid: bool


@dataclass(frozen=True)
class Obstacle:
    """A reason why a result is not due, or why one that was accepted no longer counts.

    `why` names no dataset: it is also read by those who may not know which one it is.
    """

    refusal: type[Conflict]
    why: str


@dataclass(frozen=True)
class Standing:
    """One model on one dataset in one benchmark, as far as this service knows at this moment."""

    benchmark: Benchmark
    model: Model
    dataset: Dataset
    dataset_is_approved: bool
    model_is_approved: bool
    metrics_are_valid: bool

    @property
    def is_reference_model(self) -> bool:
        """Whether the model is the benchmark's own, which needs no association."""
        return self.model.id == self.benchmark.reference_model_id

    def obstacles(self) -> list[Obstacle]:
        """Why nothing is due here; empty where a result is wanted, or where an accepted one still counts."""
        found = []
        if not self.dataset_is_approved:
            why = "the dataset has no approved association with the benchmark"
            found.append(Obstacle(AssociationNotApproved, why))
        if not self.benchmark.is_published:
            found.append(Obstacle(BenchmarkNotOpen, "the benchmark is not approved and in operation"))
        if not self.benchmark.is_valid:
            found.append(Obstacle(BenchmarkNotOpen, "the benchmark is marked invalid"))
        if not self.is_reference_model:
            if not self.model_is_approved:
                why = "the model has no approved association with the benchmark"
                found.append(Obstacle(ModelNotInBenchmark, why))
            if self.model.state is not State.OPERATION:
                found.append(Obstacle(NotValid, "the model is still in development"))
        if not self.model.is_valid:
            found.append(Obstacle(NotValid, "the model is marked invalid"))
        if not self.metrics_are_valid:
            found.append(Obstacle(NotValid, "the benchmark's metrics container is marked invalid"))
        if not self.dataset.is_valid:
            found.append(Obstacle(NotValid, "the dataset is marked invalid"))
        return found

    def is_known_to(self, user_id: int) -> bool:
        """Whether a person may know that the benchmark and the model exist."""
        knows_benchmark = self.benchmark.is_published or self.benchmark.owner_id == user_id
        is_model_of_it = self.is_reference_model or self.model_is_approved
        knows_model = is_model_of_it or self.model.state is State.OPERATION or self.model.owner_id == user_id
        return knows_benchmark and knows_model

    def sight_of(self, user_id: int, *, is_admin: bool) -> Sight:
        """How much of its results a person may see."""
        if user_id in (self.dataset.owner_id, self.benchmark.owner_id):
            return Sight.WHOLE
        if self.benchmark.public_scores:
            return Sight.SCORES
        return Sight.EXISTENCE if is_admin or user_id == self.model.owner_id else Sight.NOTHING

    def check_hashes(self, offered: NewResult) -> None:
        """Refuse unless what ran is what is registered."""
        pairs = (
            (f"dataset {self.dataset.id}", offered.dataset_hash, self.dataset.data_hash),
            (f"model {self.model.id}", offered.model_hash, self.model.hash),
            (
                f"the metrics container of benchmark {self.benchmark.id}",
                offered.metrics_hash,
                self.benchmark.metrics_hash,
            ),
        )
        differing = [
            f"{what} has the hash {registered}, what ran had {ran}"
            for what, ran, registered in pairs
            if ran != registered
        ]
        if differing:
            raise HashDiffers(f"What ran is not what is registered: {'; '.join(differing)}.")


@dataclass(kw_only=True)
class Result:
    """An accepted result: the scores of one model on one dataset, and what ran. It never changes."""

    id: int = field(init=False)
    version: int = field(init=False)
    benchmark_id: int
    model_id: int
    dataset_id: int
    is_partial: bool
    metrics: Mapping[str, Any]
    engine: str
    engine_reason: str
    dataset_hash: str
    model_hash: str
    metrics_hash: str
    started_at: datetime
    finished_at: datetime
    submitted_at: datetime

    @classmethod
    def submit(cls, offered: NewResult, standing: Standing, earlier: Sequence[Result], *, at: datetime) -> Result:
        """Accept a result where one is due; `earlier` are those accepted for the same model and dataset."""
        subject = f"model {offered.model_id} on dataset {offered.dataset_id} in benchmark {offered.benchmark_id}"
        for result in earlier:
            # A whole result ends it; a partial one may be followed by a whole one.
            if offered.is_partial or not result.is_partial:
                kind = "partial" if result.is_partial else "whole"
                raise AlreadySubmitted(
                    f"There is a {kind} result of {subject} already: {result.id}.", existing=f"result/{result.id}"
                )
        obstacles = standing.obstacles()
        if obstacles:
            reasons = "; ".join(obstacle.why for obstacle in obstacles)
            raise obstacles[0].refusal(f"No result of {subject} is due: {reasons}.")
        standing.check_hashes(offered)
        return cls(submitted_at=at, **offered.model_dump())

    def submitted(self, standing: Standing) -> ResultSubmitted:
        """The event of an accepted result."""
        return ResultSubmitted(
            id=self.id,
            benchmark_id=standing.benchmark.id,
            benchmark_name=standing.benchmark.name,
            benchmark_owner_id=standing.benchmark.owner_id,
            model_id=standing.model.id,
            model_name=standing.model.name,
            model_owner_id=standing.model.owner_id,
            dataset_id=standing.dataset.id,
            dataset_owner_id=standing.dataset.owner_id,
            is_partial=self.is_partial,
        )

    def facts(self) -> dict[str, Any]:
        """What its event carries of the result itself."""
        return {
            "id": self.id,
            "benchmark_id": self.benchmark_id,
            "model_id": self.model_id,
            "dataset_id": self.dataset_id,
            "is_partial": self.is_partial,
        }


def due_state(*, whole_id: int | None, partial_id: int | None) -> DueState:
    """What is still wanted, given the results that were accepted."""
    if whole_id is not None:
        return DueState.ACCEPTED
    return DueState.DUE if partial_id is None else DueState.PARTIAL
