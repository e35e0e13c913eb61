"""Messages that have not had their effect, as an operator sees them: what they are about, not what they hold."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from .values import Body, Instant, View

# What a person reads at once; the total says how many there are.
SHOWN_MOST = 200
REPLAYED_MOST = 1_000


class MessageState(StrEnum):
    """`waiting` for another thing to be known, `failed` and tried again by itself, or `dead`: left to a person."""

    WAITING = "waiting"
    FAILED = "failed"
    DEAD = "dead"


class DeadLetterView(View):
    """An event that has not had its effect somewhere, and why; only a dead one needs a person."""

    event_id: str
    consumer: str | None
    """Whose effect is missing; null where the event has not left the service that recorded it."""
    topic: str
    subject: str | None
    """The thing that it tells of, such as `association/7`; null where that cannot be read."""
    state: MessageState
    attempts: int
    cause: str
    since: Instant
    next_try: Instant | None
    """Null for a dead one."""


class DeadLetters(View):
    """The oldest of one service's, and how many there are."""

    items: list[DeadLetterView]
    total: int


class Replay(Body):
    """Which events are to be tried again; null for all."""

    event_ids: Annotated[list[UUID], Field(min_length=1, max_length=REPLAYED_MOST)] | None = None


class Replayed(View):
    """How many messages will be tried again at once."""

    count: int
