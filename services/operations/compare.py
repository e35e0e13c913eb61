"""What somebody keeps of things against what their owners' logs say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How what is kept of a thing differs from what its owner last said."""

    MISSING = "missing"
    BEHIND = "behind"
    AHEAD = "ahead"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    """Kept, and no event ever told of it."""


@dataclass(frozen=True)
class Held:
    """What is kept of a thing."""

    version: int
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """One thing of which not the same is kept as its owner's log says."""

    thing: str
    kind: Kind
    version: int | None
    """As it is kept."""
    owners_version: int | None
    fields: tuple[str, ...] = ()
    """Of the same version: what differs."""
    reason: str | None = None
    """Why it is so, where a message says so: `waiting`, `failed`, `dead`, `not sent`, `dropped`."""


def differences(kept: Mapping[int, Held], said: Mapping[int, Held], *, kind: str) -> list[Difference]:
    """All things of `kind` of which `kept` is not what was `said`, by ID."""
    found = []
    for id in sorted(kept.keys() | said.keys()):  # noqa: A001 (a thing's ID)
        difference = compared(f"{kind}/{id}", kept.get(id), said.get(id))
        if difference is not None:
            found.append(difference)
    return found


def compared(thing: str, kept: Held | None, said: Held | None) -> Difference | None:
    """How the two differ; None where they do not."""
    if kept is None:
        return None if said is None else Difference(thing, Kind.MISSING, None, said.version)
    if said is None:
        return Difference(thing, Kind.UNKNOWN, kept.version, None)
    if kept.version != said.version:
        kind = Kind.BEHIND if kept.version < said.version else Kind.AHEAD
        return Difference(thing, kind, kept.version, said.version)
    fields = tuple(name for name, value in kept.facts.items() if said.facts.get(name) != value)
    return Difference(thing, Kind.DIFFERENT, kept.version, said.version, fields) if fields else None
