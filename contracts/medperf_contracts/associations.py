"""Bodies and views of the associations service."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, JsonValue, model_validator

from .values import Body, Id, Instant, Prose, ThingView


class PartKind(StrEnum):
    """What asks to take part in a benchmark."""

    DATASET = "dataset"
    MODEL = "model"


class AssociationState(StrEnum):
    """Where a request to take part stands."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    WITHDRAWN = "WITHDRAWN"


# A pair has at most one association in one of these.
LIVE = (AssociationState.PENDING, AssociationState.APPROVED)
# Far more steps than a benchmark has models; small enough to be read in a table.
PRIORITY_MOST = 1000
Priority = Annotated[int, Field(ge=-PRIORITY_MOST, le=PRIORITY_MOST, strict=True)]


class NewAssociation(Body):
    """A request that a dataset or a model take part in a benchmark.

    `summary` is what the compatibility test gave (metrics, times); both sides see it.
    """

    benchmark_id: Id
    dataset_id: Id | None = None
    model_id: Id | None = None
    summary: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_part(self) -> Self:
        if (self.dataset_id is None) == (self.model_id is None):
            raise ValueError("exactly one of dataset_id and model_id must be given")
        return self


class AssociationDecision(Body):
    """An approval, rejection or withdrawal, with a reason that both sides see."""

    reason: Prose = ""


class AssociationPriority(Body):
    """How early a model is run among a benchmark's: higher ones first, those of the same by their IDs."""

    priority: Priority


class AssociationView(ThingView):
    """A request to take part and what became of it, as its two sides and administrators see it."""

    benchmark_id: Id
    benchmark_name: str
    benchmark_owner_id: Id
    part_kind: PartKind
    part_id: Id
    part_name: str
    part_owner_id: Id
    state: AssociationState
    requested_by: Id
    requested_at: Instant
    decided_by: Id | None
    decided_at: Instant | None
    priority: Priority = Field(0, description="Of a model: a higher one is run first; 0 until it is set")
    reason: str
    summary: dict[str, JsonValue] | None
    """What the compatibility test gave; null for administrators, since it holds scores."""
    same_data_as: list[Id] = Field(default_factory=list)
    """Other live datasets of this benchmark with the same data; only its owner and administrators see them."""
