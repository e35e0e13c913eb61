"""Messages that have not had their effect, as an operator sees them: what they are about, not what they hold."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field, JsonValue, StringConstraints

from .values import Body, Instant, Line, View

# What a person reads at once; the total says how many there are.
SHOWN_MOST = 200
NAMED_MOST = 1_000

Reason = Annotated[Line, StringConstraints(min_length=1)]


class MessageState(StrEnum):
    """`waiting` for another thing to be known, `failed` and tried again by itself, or `dead`: left to a person."""

    WAITING = "waiting"
    FAILED = "failed"
    DEAD = "dead"


class Action(StrEnum):
    """What an operator did: had it tried again, or gave it up for good."""

    REPLAYED = "replayed"
    DROPPED = "dropped"


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
    """A page of one service's, oldest first, and how many there are."""

    items: list[DeadLetterView]
    total: int
    next_cursor: str | None = None


class ActionView(View):
    """What an operator did about a message, and why; the message as it was found."""

    event_id: str
    action: Action
    consumer: str | None
    topic: str
    subject: str | None
    state: MessageState
    attempts: int
    cause: str
    by: str
    reason: str
    at: Instant


class Actions(View):
    """A page of what operators did in one service, oldest first, and how much there is."""

    items: list[ActionView]
    total: int
    next_cursor: str | None = None


class RecordedView(View):
    """An event in the log of the service that recorded it."""

    at: Instant
    left_at: Instant | None
    """Null where the bus has not taken it."""


class HandledView(View):
    """A consumer that had the event's effect."""

    consumer: str
    at: Instant


class EnvelopeView(View):
    """What an event says of itself; what it holds only where that was asked for."""

    source: str
    topic: str
    subject: str
    time: Instant
    version: int
    traceparent: str | None
    data: dict[str, JsonValue] | None


class EventStory(View):
    """All that one service knows of an event."""

    envelope: EnvelopeView | None
    """Null where the service does not have it any more, or where it cannot be read."""
    recorded: RecordedView | None
    handled: list[HandledView]
    messages: list[DeadLetterView]
    actions: list[ActionView]


class Replay(Body):
    """Which events are to be tried again; null for all. What else is given narrows it."""

    event_ids: Annotated[list[UUID], Field(min_length=1, max_length=NAMED_MOST)] | None = None
    consumer: Line | None = None
    topic: Line | None = None
    state: MessageState | None = None
    by: Line = ""
    reason: Line = ""


class Drop(Body):
    """Which events are given up, by their IDs, and why. What else is given narrows it."""

    event_ids: Annotated[list[UUID], Field(min_length=1, max_length=NAMED_MOST)]
    consumer: Line | None = None
    topic: Line | None = None
    state: MessageState | None = None
    by: Line = ""
    reason: Reason


class Replayed(View):
    """How many messages will be tried again at once."""

    count: int


class Dropped(View):
    """How many messages were given up."""

    count: int
