"""Who is told what: pure functions from the facts of an event to sentences for people.

Nobody is told of what they did themselves. A dataset is named to its owner and to the benchmark's owner only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from medperf_contracts.access import Role
from medperf_contracts.associations import PartKind
from medperf_contracts.events import (
    AssociationApproved,
    AssociationFacts,
    AssociationRejected,
    AssociationRequested,
    AssociationWithdrawn,
    BenchmarkApproved,
    BenchmarkFacts,
    BenchmarkRejected,
    ResultSubmitted,
)


class Told(NamedTuple):
    """A sentence for one person, with what to do next."""

    user_id: int
    text: str


@dataclass(kw_only=True)
class Notification:
    """One thing that happened, told to one person."""

    id: int = field(init=False)
    version: int = field(init=False)
    user_id: int
    event_id: str
    topic: str
    about: str
    text: str
    created_at: datetime
    read_at: datetime | None

    def mark_read(self, *, at: datetime) -> None:
        """Read once is read: a later call keeps the first time."""
        if self.read_at is None:
            self.read_at = at

    def roles_of(self, user_id: int) -> set[Role]:
        """A notification is its reader's own."""
        return {Role.OWNER} if user_id == self.user_id else set()


def of_association(event: AssociationFacts) -> list[Told]:
    """A request tells the side that did not ask; a decision, the side that asked; a withdrawal, the other side."""
    match event:
        case AssociationRequested():
            return _of_request(event)
        case AssociationApproved() | AssociationRejected():
            return _of_decision(event)
        case AssociationWithdrawn():
            return _of_withdrawal(event)
        case _:
            raise TypeError(f"{event.TOPIC} tells nobody anything")


def of_benchmark(event: BenchmarkFacts) -> list[Told]:
    """An administrator's decision tells the benchmark's owner."""
    if event.decided_by == event.owner_id:
        return []
    benchmark = f"Your benchmark '{event.name}' ({event.id})"
    match event:
        case BenchmarkApproved():
            text = f"{benchmark} was approved: datasets and models can now ask to join it. "
            text += f"See them with: medperf association ls --benchmark {event.id}"
        case BenchmarkRejected():
            text = f"{benchmark} was rejected by an administrator. "
            text += f"Ask them why; see it with: medperf benchmark view {event.id}"
        case _:
            raise TypeError(f"{event.TOPIC} tells nobody anything")
    return [Told(event.owner_id, text)]


def of_result(event: ResultSubmitted) -> list[Told]:
    """The benchmark's owner, and the model's without dataset or site; one who is both is told once."""
    kind = "partial result" if event.is_partial else "result"
    see = f"See it with: medperf result view {event.id}"
    benchmark = f"benchmark '{event.benchmark_name}' ({event.benchmark_id})"
    model = f"model '{event.model_name}' ({event.model_id})"
    told = {
        event.model_owner_id: f"There is a new {kind} of your {model} on {benchmark}. {see}",
        event.benchmark_owner_id: (
            f"There is a new {kind} of {model} on dataset {event.dataset_id} in your {benchmark}. {see}"
        ),
    }
    told.pop(event.dataset_owner_id, None)
    return [Told(user_id, text) for user_id, text in told.items()]


def _of_request(event: AssociationFacts) -> list[Told]:
    reader = _other_side(event, event.requested_by)
    if reader == event.requested_by:
        return []
    asks = "asks to join" if event.requested_by == event.part_owner_id else "is invited to join"
    option = "--data_uid" if event.part_kind is PartKind.DATASET else "--model_uid"
    decide = f"medperf association approve --benchmark_uid {event.benchmark_id} {option} {event.part_id}"
    sentence = f"{_part(event, reader)} {asks} {_benchmark(event, reader)}."
    return [Told(reader, f"{_capital(sentence)} Decide with: {decide}")]


def _of_decision(event: AssociationFacts) -> list[Told]:
    reader = event.requested_by
    if reader == event.decided_by:
        return []
    part, benchmark = _part(event, reader), _benchmark(event, reader)
    if isinstance(event, AssociationRejected):
        sentence = f"{part} was not accepted into {benchmark}."
        after = f"See why with: medperf association view {event.id}"
    else:
        sentence = f"{part} was accepted into {benchmark}."
        after = f"See it with: medperf association view {event.id}"
        if event.part_kind is PartKind.DATASET:
            run = f"medperf benchmark run --benchmark {event.benchmark_id} --data_uid {event.part_id}"
            after = f"Run its models with: {run}"
    return [Told(reader, f"{_capital(sentence)} {after}")]


def _of_withdrawal(event: AssociationFacts) -> list[Told]:
    reader = _other_side(event, event.decided_by)
    if reader == event.decided_by:
        return []
    sentence = f"The association of {_part(event, reader)} with {_benchmark(event, reader)} was withdrawn."
    return [Told(reader, f"{sentence} See why with: medperf association view {event.id}")]


def _other_side(event: AssociationFacts, user_id: int | None) -> int:
    return event.part_owner_id if user_id == event.benchmark_owner_id else event.benchmark_owner_id


def _part(event: AssociationFacts, reader: int) -> str:
    whose = "your " if reader == event.part_owner_id else ""
    return f"{whose}{event.part_kind.value} '{event.part_name}' ({event.part_id})"


def _benchmark(event: AssociationFacts, reader: int) -> str:
    whose = "your " if reader == event.benchmark_owner_id else ""
    return f"{whose}benchmark '{event.benchmark_name}' ({event.benchmark_id})"


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
