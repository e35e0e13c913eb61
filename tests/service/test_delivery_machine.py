"""Outbox and inbox under any order of commits, deliveries, duplicates, delays and crashes that a machine tries.

The registry changes datasets; what its relay publishes lies on the way until some rule delivers it, delivers it
twice, or has the consumer crash over it. In the end everything is delivered, and the copies must be their owners'.
"""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select, update

from medperf_contracts.envelope import Envelope
from medperf_contracts.events import DATASET_EVENTS, DatasetFacts
from service.facts import SITE
from service.peer import Peer
from services.kernel.bus import EmbeddedBus
from services.kernel.inbox import Consumer, Delivery, Inbox, NotYet
from services.kernel.relay import Relay
from services.kernel.tables import inbox_claim, inbox_message
from services.registry import app as registry
from services.results import app as results
from services.results.consumers import record_dataset
from services.results.tables import dataset_copies

CONSUMER = "results.record_dataset"
_numbers = strategies.integers(min_value=0, max_value=10_000)


class Way(EmbeddedBus):
    """A bus on which events lie until they are delivered; it can die with the relay after it took them."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Envelope] = []
        self.is_dying = False

    async def publish(self, envelopes: Sequence[Envelope]) -> set[uuid.UUID]:
        self.messages += envelopes
        if self.is_dying:
            raise asyncio.CancelledError
        return {envelope.id for envelope in envelopes}


class Crash(BaseException):
    """The consumer's process ends: nothing is caught, nothing is written down."""


class Deliveries(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self.registry, self.results = (
            Peer(definition, folder, f"sqlite+aiosqlite:///{folder / definition.name}.db")
            for definition in (registry.DEFINITION, results.DEFINITION)
        )
        self.way = Way()
        self.relay = Relay(self.registry.service.database, self.way)
        self.fails_with: BaseException | None = None
        self.inbox = Inbox(self.results.service.database, [Consumer(CONSUMER, DATASET_EVENTS, self._effect)])
        self.queue = self.inbox.queues()[0]
        self.owned: dict[int, dict[str, Any]] = {}
        self.effects = Counter[str]()
        prepared = self._do("POST", "containers", {"name": "p", "manifest": "name: p"})
        self.preparation = self._do("POST", f"containers/{prepared['id']}/set-operational", {})["id"]
        self.registry.run(self._forget_events_of_containers())

    async def _forget_events_of_containers(self) -> None:
        await self.relay.publish_waiting()
        self.way.messages.clear()

    def teardown(self) -> None:
        if not hasattr(self, "way"):
            return
        try:
            self._deliver_all()
        finally:
            self.registry.close()
            self.results.close()
            self._folder.cleanup()

    @rule()
    def register(self) -> None:
        number = len(self.owned) + 1
        data_hash = f"{number:064x}"
        body = {"name": f"d{number}", "generated_uid": data_hash[:40], "data_hash": data_hash}
        made = self._do("POST", "datasets", {**body, "preparation_id": self.preparation, "statistics": {}})
        self.owned[made["id"]] = made

    @precondition(lambda self: self.owned)
    @rule(which=_numbers, times=strategies.integers(min_value=1, max_value=3))
    def change(self, which: int, times: int) -> None:
        number = sorted(self.owned)[which % len(self.owned)]
        for _ in range(times):
            thing = self.owned[number]
            changed = {"is_valid": not thing["is_valid"]}
            self.owned[number] = self._do("PATCH", f"datasets/{number}", changed, version=thing["version"])

    @rule()
    def relay_publishes(self) -> None:
        self.registry.run(self.relay.publish_waiting())

    @rule()
    def relay_dies_between_publish_and_mark(self) -> None:
        self.way.is_dying = True
        with suppress(asyncio.CancelledError):
            self.registry.run(self.relay.publish_waiting())
        self.way.is_dying = False

    @precondition(lambda self: self.way.messages)
    @rule(order=strategies.randoms(use_true_random=False), most=strategies.integers(min_value=1, max_value=8))
    def deliver(self, order: Random, most: int) -> None:
        order.shuffle(self.way.messages)
        for _ in range(min(most, len(self.way.messages))):
            envelope = self.way.messages.pop()
            for _ in range(order.choice((1, 1, 2))):
                self.results.run(self.queue.receive(envelope))

    @precondition(lambda self: self.way.messages)
    @rule(which=_numbers, failure=strategies.sampled_from((ValueError("broken"), NotYet("the other thing"))))
    def deliver_what_fails(self, which: int, failure: Exception) -> None:
        envelope = self.way.messages.pop(which % len(self.way.messages))
        self.fails_with = failure
        self.results.run(self.queue.receive(envelope))
        self.fails_with = None

    @precondition(lambda self: self.way.messages)
    @rule(which=_numbers)
    def consumer_dies(self, which: int) -> None:
        self.fails_with = Crash()
        with suppress(Crash):
            self.results.run(self.queue.receive(self.way.messages[which % len(self.way.messages)]))
        self.fails_with = None

    @rule()
    def retry(self) -> None:
        self.results.run(self._retry())

    @invariant()
    def copies_are_never_ahead_and_never_altered(self) -> None:
        if hasattr(self, "way"):
            for copy in self.results.run(self._copies()).values():
                owned = self.owned[copy["id"]]
                assert copy["version"] <= owned["version"]
                if copy["version"] == owned["version"]:
                    assert copy["is_valid"] == owned["is_valid"]

    async def _effect(self, session: Any, dataset: DatasetFacts, delivery: Delivery) -> None:
        await record_dataset(session, dataset, delivery)
        if self.fails_with is not None:
            raise self.fails_with
        self.effects[delivery.event_id] += 1

    def _do(self, method: str, path: str, body: dict[str, Any], *, version: int | None = None) -> dict[str, Any]:
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        answer = self.registry.call(method, f"/api/v1/{path}", body, by=SITE, headers=headers)
        assert answer.is_success, answer.text
        done: dict[str, Any] = answer.json()
        return done

    def _deliver_all(self) -> None:
        while self.registry.run(self.relay.waiting()):
            self.registry.run(self.relay.forget_leases())
            self.registry.run(self.relay.publish_waiting())
        for envelope in reversed(self.way.messages):  # the last come first
            self.results.run(self.queue.receive(envelope))
        self.results.run(self._retry())
        assert self.results.parked() == []
        copies = self.results.run(self._copies())
        shown = ("id", "version", "owner_id", "data_hash", "is_valid")
        assert copies == {key: {name: thing[name] for name in shown} for key, thing in self.owned.items()}
        events = {str(event.id) for event in self.registry.events() if event.type.startswith("dataset.")}
        assert self.effects == dict.fromkeys(events, 1), "each event had its effect exactly once"
        assert self.results.run(self._claims()) == events

    async def _retry(self) -> None:
        async with self.results.service.database.write() as session:
            await session.execute(update(inbox_message).values(next_millis=0))
        while await self.inbox.retry_due():
            pass

    async def _copies(self) -> dict[int, dict[str, Any]]:
        async with self.results.service.database.read() as session:
            return {row["id"]: dict(row) for row in (await session.execute(select(dataset_copies))).mappings()}

    async def _claims(self) -> set[str]:
        async with self.results.service.database.read() as session:
            return set((await session.execute(select(inbox_claim.c.event_id))).scalars())


Deliveries.TestCase.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestDeliveries = Deliveries.TestCase
