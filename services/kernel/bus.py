"""The bus, a seam with two ends: the relay publishes into it, an inbox receives from it.

`EmbeddedBus` calls the inboxes of the same process. It stores nothing itself: what it says was taken is in an
inbox's database, and what it does not say was taken stays in the publisher's outbox.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from medperf_contracts.envelope import Envelope

from .log import logger

Receive = Callable[[Envelope], Awaitable[None]]


@dataclass(frozen=True)
class Queue:
    """What one consumer receives: every event of its topics."""

    name: str
    topics: frozenset[str]
    receive: Receive


class Bus(Protocol):
    """Carries events from outboxes to inboxes, at least once, in any order."""

    def bind(self, queues: Iterable[Queue]) -> None:
        """Make the queues exist; done for every service before any relay starts."""

    async def publish(self, envelopes: Sequence[Envelope]) -> set[UUID]:
        """Give the events to every queue bound to their topic; returns the IDs that all of them took durably."""


class EmbeddedBus:
    """Delivers by calling the inboxes of the same process."""

    def __init__(self) -> None:
        self._queues: list[Queue] = []

    def bind(self, queues: Iterable[Queue]) -> None:
        self._queues.extend(queues)

    async def publish(self, envelopes: Sequence[Envelope]) -> set[UUID]:
        return {envelope.id for envelope in envelopes if await self.deliver(envelope)}

    async def deliver(self, envelope: Envelope) -> bool:
        """True if every queue's inbox handled the event or wrote down why it could not."""
        taken = True
        for queue in self._queues:
            if envelope.type not in queue.topics:
                continue
            try:
                await queue.receive(envelope)
            except Exception as error:  # noqa: BLE001 (not written down: the outbox keeps it, and it is tried again)
                logger.error("delivery_not_taken", queue=queue.name, event_id=str(envelope.id), cause=repr(error))
                taken = False
        return taken
