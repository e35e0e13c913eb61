"""What a dataset is here: metadata of data that stays where it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from medperf_contracts.access import Role
from medperf_contracts.events import DatasetRegistered, DatasetUpdated
from medperf_contracts.registry import DatasetChanges, NewDataset
from medperf_contracts.values import State

from .changes import apply
from .containers import Container


@dataclass(kw_only=True)
class Dataset:
    """A prepared dataset's metadata."""

    id: int = field(init=False)
    version: int = field(init=False)
    name: str
    description: str
    location: str
    owner_id: int
    owner_name: str
    generated_uid: str
    data_hash: str
    preparation_id: int
    preparation_hash: str
    statistics: Mapping[str, Any]
    state: State
    is_valid: bool
    created_at: datetime

    @classmethod
    def register(
        cls, new: NewDataset, *, preparation: Container, by: int, owner_name: str, at: datetime
    ) -> Dataset:
        """A new dataset, in operation at once: its hash already says what it is."""
        preparation.check_valid()
        return cls(
            name=new.name,
            description=new.description,
            location=new.location,
            owner_id=by,
            owner_name=owner_name,
            generated_uid=new.generated_uid,
            data_hash=new.data_hash,
            preparation_id=preparation.id,
            preparation_hash=preparation.hash,
            statistics=new.statistics,
            state=State.OPERATION,
            is_valid=True,
            created_at=at,
        )

    def registered(self) -> DatasetRegistered:
        """The event of a new dataset."""
        return DatasetRegistered(**self.facts())

    def update(self, changes: DatasetChanges) -> DatasetUpdated | None:
        """Change what may change in any state; None where nothing differs."""
        if not apply(changes, self):
            return None
        return DatasetUpdated(**self.facts())

    def roles_of(self, user_id: int, *, benchmark_owner_ids: Collection[int]) -> set[Role]:
        """What a person is to this dataset, given who owns the benchmarks that it asked to join."""
        if user_id == self.owner_id:
            return {Role.OWNER}
        return {Role.OTHER_SIDE} if user_id in benchmark_owner_ids else set()

    def facts(self) -> dict[str, Any]:
        """What every event of this dataset carries."""
        return {
            "id": self.id,
            "name": self.name,
            "owner_id": self.owner_id,
            "data_hash": self.data_hash,
            "preparation_hash": self.preparation_hash,
            "state": self.state,
            "is_valid": self.is_valid,
        }
