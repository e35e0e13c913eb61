"""Bodies and views of the results service."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, JsonValue, model_validator

from .associations import Priority
from .values import Blake3, Body, Id, Instant, Line, Sha256, ThingView, View


class NewResult(Body):
    """The scores of one model on one dataset, and the hashes of what ran."""

    benchmark_id: Id
    model_id: Id
    dataset_id: Id
    is_partial: bool = False
    metrics: dict[str, JsonValue] = Field(min_length=1)
    engine: Line = Field(min_length=1)
    engine_reason: Line = Field("", description="Why this engine ran it: `--platform sandbox`, what `auto` found")
    dataset_hash: Blake3
    model_hash: Sha256
    metrics_hash: Sha256
    started_at: Instant
    finished_at: Instant

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Self:
        if self.finished_at < self.started_at:
            raise ValueError("finished_at must not be before started_at")
        return self


class ResultView(ThingView):
    """An accepted result. It never changes.

    `metrics` is null for whoever may know that the result is there but not its scores; `dataset_id` is null for
    everybody but the dataset's owner and the benchmark's owner.
    """

    benchmark_id: Id
    model_id: Id
    dataset_id: Id | None
    is_partial: bool
    metrics: dict[str, JsonValue] | None
    engine: str | None
    engine_reason: str | None = None
    dataset_hash: Blake3 | None
    model_hash: Sha256
    metrics_hash: Sha256
    started_at: Instant | None
    finished_at: Instant | None
    submitted_at: Instant
    is_current: bool = Field(description="Whether its association, benchmark, model and dataset still stand")
    not_current_because: list[str]


class DueState(StrEnum):
    """Whether a result is still wanted."""

    DUE = "due"
    PARTIAL = "partial"
    ACCEPTED = "accepted"


class DueView(View):
    """What is due of one model on one dataset: derived at the moment of asking, never stored."""

    benchmark_id: Id
    dataset_id: Id
    model_id: Id
    is_reference_model: bool
    priority: Priority = Field(0, description="The benchmark owner's: of what is due, a higher one is run first")
    state: DueState
    result_id: Id | None
