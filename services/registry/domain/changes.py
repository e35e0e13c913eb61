"""How what may change in any state is changed, the same for every noun."""

from __future__ import annotations

from medperf_contracts.values import Changes


def apply(changes: Changes, thing: object) -> bool:
    """Set what `changes` gives on `thing`; False where nothing differs."""
    given = {name: getattr(changes, name) for name in changes.model_fields_set}
    differing = {name: value for name, value in given.items() if getattr(thing, name) != value}
    for name, value in differing.items():
        setattr(thing, name, value)
    return bool(differing)
