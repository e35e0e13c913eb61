"""How what may change in any state is changed, the same for every noun."""

from __future__ import annotations

from medperf_contracts.registry import BenchmarkChanges, ContainerChanges, DatasetChanges

Changes = ContainerChanges | BenchmarkChanges | DatasetChanges


def apply(changes: Changes, thing: object) -> bool:
    """Set what `changes` gives on `thing`; False where nothing differs."""
    differing = {
        name: value
        for name, value in changes.model_dump(exclude_none=True).items()
        if getattr(thing, name) != value
    }
    for name, value in differing.items():
        setattr(thing, name, value)
    return bool(differing)
