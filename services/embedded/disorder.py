"""What a broker may do to deliveries, done on purpose: `medperf-server up --disorder SEED`, for tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from uuid import UUID

from medperf_contracts.envelope import Envelope
from services.kernel.bus import EmbeddedBus


class UnreliableBus(EmbeddedBus):
    """A test's bus: it duplicates, delays and reorders deliveries, as a broker may, from a seed."""

    # With 0.5, an event is confirmed at the second try on average, so flows still end.
    LOST_CONFIRM, NOT_DELIVERED, TWICE = 0.2, 0.3, 0.3
    LONGEST_DELAY_SECONDS = 0.1

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)  # noqa: S311 (a test's disorder, not a secret)

    async def publish(self, envelopes: Sequence[Envelope]) -> set[UUID]:
        shuffled = list(envelopes)
        self._random.shuffle(shuffled)
        confirmed = set()
        for envelope in shuffled:
            if self._random.random() < self.NOT_DELIVERED:
                continue  # comes later, behind events that were recorded after it
            await asyncio.sleep(self._random.random() * self.LONGEST_DELAY_SECONDS)
            taken = await self.deliver(envelope)
            if self._random.random() < self.TWICE:
                taken = await self.deliver(envelope) and taken
            if taken and self._random.random() >= self.LOST_CONFIRM:
                confirmed.add(envelope.id)
        return confirmed
