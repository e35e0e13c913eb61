"""Outbox, relay and inbox: at least once on the way, exactly once in effect, nothing stuck without a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.envelope import Envelope
from medperf_contracts.events import DATASET_EVENTS, DatasetFacts
from service import facts
from service.facts import SITE
from service.peer import Peer, envelope_of
from services.associations.app import DEFINITION
from services.kernel import inbox
from services.kernel.bus import EmbeddedBus, UnreliableBus
from services.kernel.inbox import Consumer, Delivery, Inbox, NotYet
from services.kernel.relay import Relay
from services.kernel.service import Definition
from services.kernel.tables import inbox_message, outbox

REQUEST = {"benchmark_id": 1, "dataset_id": 1}


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    return start(DEFINITION)


class Ledger:
    """A consumer's effect that can be counted: a row per handled event."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.fails_with: Exception | None = None
        self.inbox = Inbox(peer.service.database, [Consumer("test.count", DATASET_EVENTS, self.effect)])
        self.queue = self.inbox.queues()[0]
        peer.run(self._make())

    async def _make(self) -> None:
        async with self.peer.service.database.write() as session:
            await session.execute(text("CREATE TABLE ledger (event_id TEXT)"))

    async def effect(self, session: AsyncSession, dataset: DatasetFacts, delivery: Delivery) -> None:
        await session.execute(text("INSERT INTO ledger VALUES (:id)"), {"id": delivery.event_id})
        if self.fails_with is not None:
            raise self.fails_with

    def effects(self) -> int:
        async def read() -> int:
            async with self.peer.service.database.read() as session:
                return int((await session.execute(text("SELECT count(*) FROM ledger"))).scalar_one())

        return self.peer.run(read())

    def parked(self) -> list[dict[str, Any]]:
        return self.peer.run(self.inbox.parked())

    def retry(self, *, early: bool = True) -> int:
        """Try what is due; `early` pretends that every message's time has come."""

        async def go() -> int:
            if early:
                async with self.peer.service.database.write() as session:
                    await session.execute(update(inbox_message).values(next_millis=0))
            return await self.inbox.retry_due()

        return self.peer.run(go())


# --- the inbox ---


def test_a_delivery_that_comes_twice_has_its_effect_once(peer: Peer) -> None:
    ledger = Ledger(peer)
    envelope = envelope_of(facts.dataset())
    for _ in range(3):
        peer.run(ledger.queue.receive(envelope))
    assert ledger.effects() == 1


def test_a_failed_effect_is_rolled_back_written_down_and_tried_again(peer: Peer) -> None:
    ledger = Ledger(peer)
    ledger.fails_with = ValueError("the table is upside down")
    envelope = envelope_of(facts.dataset())
    peer.run(ledger.queue.receive(envelope))
    assert ledger.effects() == 0
    (message,) = ledger.parked()
    assert (message["state"], message["attempts"]) == ("failed", 1)
    assert message["cause"] == "ValueError: the table is upside down"
    assert message["next_millis"] > message["last_millis"]
    assert ledger.retry(early=False) == 0, "a message is not tried before its time"
    ledger.fails_with = None
    assert ledger.retry() == 1
    assert (ledger.effects(), ledger.parked()) == (1, [])
    peer.run(ledger.queue.receive(envelope))
    assert ledger.effects() == 1


def test_a_message_that_always_fails_ends_dead_with_its_cause_and_delays_grow(peer: Peer) -> None:
    ledger = Ledger(peer)
    ledger.fails_with = ValueError("never")
    envelope = envelope_of(facts.dataset())
    peer.run(ledger.queue.receive(envelope))
    delays = []
    for _ in range(inbox.ATTEMPTS_MOST - 1):
        (message,) = ledger.parked()
        delays.append(message["next_millis"] - message["last_millis"])
        ledger.retry()
    (message,) = ledger.parked()
    assert (message["state"], message["attempts"]) == ("dead", inbox.ATTEMPTS_MOST)
    assert delays == sorted(delays)
    assert delays[0] < delays[-1] <= inbox.LONGEST_DELAY_MILLIS
    ledger.fails_with = None
    assert ledger.retry() == 0, "a dead message waits for a person"
    peer.run(ledger.queue.receive(envelope))
    assert ledger.effects() == 0, "a redelivery does not raise the dead"


def test_what_cannot_go_yet_waits_without_counting_as_an_attempt_and_not_for_ever(peer: Peer) -> None:
    ledger = Ledger(peer)
    ledger.fails_with = NotYet("benchmark 7 is not known")
    peer.run(ledger.queue.receive(envelope_of(facts.dataset())))
    for _ in range(inbox.ATTEMPTS_MOST + 1):
        ledger.retry()
    (message,) = ledger.parked()
    assert (message["state"], message["attempts"], message["cause"]) == ("waiting", 0, "benchmark 7 is not known")

    async def age() -> None:
        async with peer.service.database.write() as session:
            await session.execute(
                update(inbox_message).values(first_millis=inbox_message.c.first_millis - inbox.WAIT_MOST_MILLIS)
            )

    peer.run(age())
    ledger.retry()
    assert ledger.parked()[0]["state"] == "dead"


def test_a_poisoned_message_does_not_hold_up_the_next(peer: Peer) -> None:
    ledger = Ledger(peer)
    ledger.fails_with = ValueError("poison")
    peer.run(ledger.queue.receive(envelope_of(facts.dataset())))
    ledger.fails_with = None
    peer.run(ledger.queue.receive(envelope_of(facts.dataset(id=2))))
    assert ledger.effects() == 1


def test_an_event_that_does_not_say_what_it_must_is_parked_not_lost(peer: Peer) -> None:
    ledger = Ledger(peer)
    envelope = envelope_of(facts.dataset())
    broken = envelope.model_copy(update={"data": {"id": 1}})
    peer.run(ledger.queue.receive(broken))
    (message,) = ledger.parked()
    assert message["cause"].startswith("ValidationError")


def test_a_delivery_that_cannot_be_written_down_is_not_confirmed(peer: Peer) -> None:
    """Its database is away: that is not an attempt, and the publisher keeps the event."""
    ledger = Ledger(peer)
    peer.run(_rename(peer, "inbox_claim", "away"))
    peer.run(_rename(peer, "inbox_message", "away_too"))
    bus = EmbeddedBus()
    bus.bind([ledger.queue])
    envelope = envelope_of(facts.dataset())
    assert peer.run(bus.publish([envelope])) == set()
    peer.run(_rename(peer, "away", "inbox_claim"))
    peer.run(_rename(peer, "away_too", "inbox_message"))
    assert peer.run(bus.publish([envelope])) == {envelope.id}
    assert (ledger.effects(), ledger.parked()) == (1, [])


async def _rename(peer: Peer, old: str, new: str) -> None:
    async with peer.service.database.write() as session:
        await session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


# --- the relay ---


class Recorder(EmbeddedBus):
    """A bus that notes what it was given, and confirms what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[Envelope] = []
        self.confirms = True

    async def publish(self, envelopes: Sequence[Envelope]) -> set[UUID]:
        self.published.extend(envelopes)
        return {envelope.id for envelope in envelopes} if self.confirms else set()


def waiting_rows(peer: Peer) -> list[Any]:
    async def read() -> list[Any]:
        async with peer.service.database.read() as session:
            return list((await session.execute(select(outbox).where(outbox.c.sent_millis.is_(None)))).all())

    return peer.run(read())


@pytest.fixture
def recorded(peer: Peer) -> Peer:
    """A service with one event waiting in its outbox."""
    peer.tell(facts.benchmark())
    peer.tell(facts.dataset())
    assert peer.call("POST", "/api/v1/associations", REQUEST, by=SITE).status_code == 201
    return peer


def test_a_confirmed_event_is_marked_and_stays_as_the_log(recorded: Peer) -> None:
    bus = Recorder()
    relay = Relay(recorded.service.database, bus)
    assert recorded.run(relay.publish_waiting()) is True
    assert [envelope.type for envelope in bus.published] == ["association.requested.v1"]
    assert waiting_rows(recorded) == []
    assert len(recorded.events()) == 1
    assert recorded.run(relay.publish_waiting()) is False


def test_an_event_that_is_not_confirmed_is_published_again(recorded: Peer) -> None:
    bus = Recorder()
    bus.confirms = False
    relay = Relay(recorded.service.database, bus)
    recorded.run(relay.publish_waiting())
    assert len(waiting_rows(recorded)) == 1
    bus.confirms = True

    async def soon() -> None:
        while len(bus.published) < 2:
            await relay.publish_waiting()
            await asyncio.sleep(0.02)

    recorded.run(asyncio.wait_for(soon(), 5))
    assert bus.published[0].id == bus.published[1].id
    assert waiting_rows(recorded) == []


def test_a_relay_killed_between_publish_and_mark_leaves_the_event_for_the_next_one(recorded: Peer) -> None:
    class Killed(EmbeddedBus):
        async def publish(self, envelopes: Sequence[Envelope]) -> set[UUID]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorded.run(Relay(recorded.service.database, Killed()).publish_waiting())
    (row,) = waiting_rows(recorded)
    assert row.not_before_millis > row.recorded_millis, (
        "leased: another relay leaves it alone until the lease ends"
    )
    bus = Recorder()
    assert recorded.run(Relay(recorded.service.database, bus).publish_waiting()) is False

    async def lease_ends() -> None:
        async with recorded.service.database.write() as session:
            await session.execute(update(outbox).values(not_before_millis=0))

    recorded.run(lease_ends())
    recorded.run(Relay(recorded.service.database, bus).publish_waiting())
    assert len(bus.published) == 1
    assert waiting_rows(recorded) == []


def test_the_relay_wakes_at_the_commit(peer: Peer) -> None:
    peer.tell(facts.benchmark())
    peer.tell(facts.dataset())
    bus = Recorder()
    relay = Relay(peer.service.database, bus)

    async def command_while_relay_sleeps() -> float:
        running = asyncio.create_task(relay.run())
        await asyncio.sleep(0.2)
        loop = asyncio.get_running_loop()
        await peer.send("POST", "/api/v1/associations", REQUEST, by=SITE)
        answered = loop.time()
        while not bus.published:  # noqa: ASYNC110 (the bus under test has no event to wait for)
            await asyncio.sleep(0.005)
        seconds = loop.time() - answered
        running.cancel()
        await asyncio.wait([running])
        return seconds

    # The slow poll alone would take up to a second.
    assert peer.run(asyncio.wait_for(command_while_relay_sleeps(), 5)) < 0.5


def test_an_unreliable_bus_disturbs_and_still_everything_has_its_effect_once(peer: Peer) -> None:
    """The disorder is real: some deliveries come twice, some out of order; the effects do not show it."""
    ledger = Ledger(peer)
    received: list[int] = []

    async def receive(envelope: Envelope) -> None:
        received.append(envelope.thing_id)
        await ledger.queue.receive(envelope)

    bus = UnreliableBus(seed=7)
    bus.LONGEST_DELAY_SECONDS = 0.001
    bus.bind([inbox.Queue("test.count", ledger.queue.topics, receive)])
    envelopes = {envelope.id: envelope for envelope in (envelope_of(facts.dataset(id=n)) for n in range(1, 31))}

    async def publish_until_confirmed() -> None:
        while envelopes:
            for done in await bus.publish(list(envelopes.values())):
                del envelopes[done]

    peer.run(publish_until_confirmed())
    assert len(received) > 30, "some came twice"
    assert received != sorted(received), "some came out of order"
    assert ledger.effects() == 30


def test_every_migration_ends_at_the_tables_that_the_code_uses(
    start: Callable[[Definition], Peer], tmp_path: Path
) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from services.embedded.server import DEFINITIONS
    from services.kernel.tables import KERNEL

    for definition in DEFINITIONS:
        peer = start(definition)

        async def differences(peer: Peer = peer, definition: Definition = definition) -> list[Any]:
            async with peer.service.database.engine.connect() as connection:

                def compare(sync: Any) -> list[Any]:
                    context = MigrationContext.configure(
                        sync, opts={"target_metadata": [KERNEL, definition.metadata], "compare_type": True}
                    )
                    return list(compare_metadata(context, [KERNEL, definition.metadata]))

                return await connection.run_sync(compare)

        assert peer.run(differences()) == [], definition.name
