"""How far a site's preparation for a benchmark is, where the site wants the benchmark's owner to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from medperf_contracts.registry import NewProgress

from ..errors import ProgressWithdrawn
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
    is_withdrawn: bool
    began_at: datetime
    told_at: datetime

    @classmethod
    def begin(cls, preparation: UUID, *, benchmark: Benchmark, by: int, owner_name: str, at: datetime) -> Progress:
        """A preparation of which nothing was told yet."""
        return cls(
            benchmark_id=benchmark.id,
            owner_id=by,
            owner_name=owner_name,
            preparation=preparation,
            stages=[],
            is_withdrawn=False,
            began_at=at,
            told_at=at,
        )

    def tell(self, new: NewProgress, *, at: datetime) -> None:
        """What is told later takes the place of what was told before; what was taken back is never told again."""
        if self.is_withdrawn:
            raise ProgressWithdrawn("What was told of this preparation was taken back.")
        self.stages = [one.as_sent() for one in new.stages]
        self.told_at = at

    def withdraw(self) -> None:
        """Forget the numbers, for good."""
        self.stages = []
        self.is_withdrawn = True
