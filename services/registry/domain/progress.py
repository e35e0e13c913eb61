"""How far a site's preparation for a benchmark is, where the site wants the benchmark's owner to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from medperf_contracts.access import Role
from medperf_contracts.registry import NewProgress

from .benchmarks import Benchmark


@dataclass(kw_only=True)
class Progress:
    """The numbers that a site told last of one of its preparations; those before are not kept."""

    id: int = field(init=False)
    version: int = field(init=False)
    benchmark_id: int
    owner_id: int
    owner_name: str
    preparation: UUID
    stages: list[dict[str, Any]]
    began_at: datetime
    told_at: datetime

    @classmethod
    def begin(cls, new: NewProgress, *, benchmark: Benchmark, by: int, owner_name: str, at: datetime) -> Progress:
        """The first that is told of a preparation."""
        return cls(
            benchmark_id=benchmark.id,
            owner_id=by,
            owner_name=owner_name,
            preparation=new.preparation,
            stages=[one.as_sent() for one in new.stages],
            began_at=at,
            told_at=at,
        )

    def tell(self, new: NewProgress, *, at: datetime) -> None:
        """What is told later takes the place of what was told before, also where that was of another benchmark."""
        self.benchmark_id = new.benchmark_id
        self.stages = [one.as_sent() for one in new.stages]
        self.told_at = at

    def roles_of(self, user_id: int, *, benchmark_owner_id: int) -> set[Role]:
        """What a person is to this preparation."""
        if user_id == self.owner_id:
            return {Role.OWNER}
        return {Role.OTHER_SIDE} if user_id == benchmark_owner_id else set()
