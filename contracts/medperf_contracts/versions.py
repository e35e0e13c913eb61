"""The versions that answers carry and requests send back, so that a person reads what they wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass

VERSION_HEADER = "Medperf-Version"
SEEN_HEADER = "Medperf-Seen"
IDEMPOTENCY_HEADER = "Idempotency-Key"
SEEN_MOST = 10

_FORM = re.compile(r"([a-z]{1,32})/([1-9][0-9]{0,17})@([1-9][0-9]{0,17})")


@dataclass(frozen=True)
class ThingVersion:
    """A thing and its version, written `association/7@3`."""

    kind: str
    id: int
    version: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> ThingVersion:
        """Read `association/7@3`; ValueError for anything else."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not of the form kind/ID@version")
        return cls(match[1], int(match[2]), int(match[3]))


def parse_seen(header: str) -> list[ThingVersion]:
    """The things named in a `Medperf-Seen` header; ValueError if malformed or more than `SEEN_MOST`."""
    parts = [part for part in header.split(",") if part.strip()]
    if len(parts) > SEEN_MOST:
        raise ValueError(f"at most {SEEN_MOST} versions can be named")
    return [ThingVersion.parse(part) for part in parts]
