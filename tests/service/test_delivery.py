"""Outbox, relay and inbox: at least once on the way, exactly once in effect, nothing stuck without a reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
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
from service.triggers import NO_ROOM, create_trigger, drop_trigger
from services.associations.app import DEFINITION
from services.embedded.disorder import UnreliableBus
from services.kernel import db, inbox, relay
from services.kernel.bus import EmbeddedBus
from services.kernel.clock import database_millis
from services.kernel.db import Database
from services.kernel.errors import ServerBusy
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
        self.refuses = ""
        """The event that its database refuses."""
        self.inbox = Inbox(peer.service.database, [Consumer("test.count", DATASET_EVENTS, self.effect)])
        self.queue = self.inbox.queues()[0]
        peer.run(self._make())

    async def _make(self) -> None:
        async with self.peer.service.database.write() as session:
            await session.execute(text("CREATE TABLE ledger (event_id TEXT)"))

    async def effect(self, session: AsyncSession, dataset: DatasetFacts, delivery: Delivery) -> None:
        await session.execute(text("INSERT INTO ledger VALUES (:id)"), {"id": delivery.event_id})
        if delivery.event_id == self.refuses:
            raise ServerBusy("busy with it", retry_after_seconds=1)
        if self.fails_with is not None:
            raise self.fails_with

    def effects(self) -> int:
        async def read() -> int:
            async with self.peer.service.database.read() as session:
                return int((await session.execute(text("SELECT count(*) FROM ledger"))).scalar_one())

        return self.peer.run(read())

    def parked(self) -> list[dict[str, Any]]:
        return self.peer.parked()

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


def test_what_its_database_alone_refuses_is_held_at_first_and_then_written_down(peer: Peer) -> None:
    ledger = Ledger(peer)
    ledger.fails_with = ServerBusy("its statement takes too long", retry_after_seconds=1)
    envelope = envelope_of(facts.dataset())
    for _ in range(inbox.HELD_MOST - 1):
        with pytest.raises(ServerBusy):
            peer.run(ledger.queue.receive(envelope))
    assert ledger.parked() == [], "as long as its database may be away, it is no attempt"
    peer.run(ledger.queue.receive(envelope))
    (message,) = ledger.parked()
    assert (message["state"], message["attempts"]) == ("failed", 1)
    assert message["cause"] == f"ServerBusy, {inbox.HELD_MOST} times: its statement takes too long"
    ledger.fails_with = None
    assert ledger.retry() == 1
    assert ledger.effects() == 1


def test_a_message_that_its_database_refuses_holds_up_no_other(peer: Peer) -> None:
    ledger = Ledger(peer)
    ledger.fails_with = ValueError("not now")
    refused, other = envelope_of(facts.dataset(id=1)), envelope_of(facts.dataset(id=2))
    for envelope in (refused, other):
        peer.run(ledger.queue.receive(envelope))
    ledger.fails_with, ledger.refuses = None, str(refused.id)
    assert ledger.retry() == 1
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


def test_an_effect_whose_claim_cannot_be_kept_is_not_there_either(peer: Peer) -> None:
    """Claim and effect are one transaction: an effect without its claim would come again."""
    ledger = Ledger(peer)
    envelope = envelope_of(facts.dataset())
    peer.run(create_trigger(peer.service.database, "no_room", "BEFORE INSERT ON inbox_claim", NO_ROOM))
    peer.run(ledger.queue.receive(envelope))
    assert ledger.effects() == 0
    assert "no room" in ledger.parked()[0]["cause"]
    peer.run(drop_trigger(peer.service.database, "no_room"))
    assert ledger.retry() == 1
    assert (ledger.effects(), ledger.parked()) == (1, [])


def test_a_failure_that_cannot_be_written_down_is_not_confirmed(peer: Peer) -> None:
    ledger = Ledger(peer)
    ledger.fails_with = ValueError("poison")
    bus = EmbeddedBus()
    bus.bind([ledger.queue])
    envelope = envelope_of(facts.dataset())
    peer.run(create_trigger(peer.service.database, "no_room", "BEFORE INSERT ON inbox_message", NO_ROOM))
    assert peer.run(bus.publish([envelope])) == set()
    peer.run(drop_trigger(peer.service.database, "no_room"))
    assert peer.run(bus.publish([envelope])) == {envelope.id}
    assert [message["attempts"] for message in ledger.parked()] == [1]


def test_each_consumer_of_an_event_has_a_claim_and_attempts_of_its_own(peer: Peer) -> None:
    ledger = Ledger(peer)
    fails = [True]

    async def fail_at_first(session: AsyncSession, dataset: DatasetFacts, delivery: Delivery) -> None:
        if fails:
            raise ValueError("not this time")
        await ledger.effect(session, dataset, delivery)

    names = ("test.fails", "test.works")
    both = Inbox(
        peer.service.database,
        [Consumer(names[0], DATASET_EVENTS, fail_at_first), Consumer(names[1], DATASET_EVENTS, ledger.effect)],
    )
    bus = EmbeddedBus()
    bus.bind(both.queues())
    peer.run(bus.publish([envelope_of(facts.dataset())]))
    assert ledger.effects() == 1
    assert [(message["consumer"], message["state"]) for message in ledger.parked()] == [(names[0], "failed")]
    fails.clear()
    peer.run(_execute(peer, "UPDATE inbox_message SET next_millis = 0"))
    assert peer.run(both.retry_due()) == 1
    assert (ledger.effects(), ledger.parked()) == (2, [])


def test_a_message_of_a_consumer_that_is_no_more_is_dead_and_says_so(peer: Peer) -> None:
    ledger = Ledger(peer)
    ledger.fails_with = ValueError("poison")
    peer.run(ledger.queue.receive(envelope_of(facts.dataset())))
    ledger.inbox = Inbox(peer.service.database, [])
    ledger.retry()
    (message,) = ledger.parked()
    assert (message["state"], message["attempts"]) == ("dead", 1)
    assert "no consumer of that name" in message["cause"]


def test_a_cause_of_any_length_is_kept_in_part(peer: Peer) -> None:
    ledger = Ledger(peer)
    ledger.fails_with = ValueError("x" * 100_000)
    peer.run(ledger.queue.receive(envelope_of(facts.dataset())))
    cause = ledger.parked()[0]["cause"]
    assert cause.startswith("ValueError: xxx")
    assert len(cause) < 10_000


def test_the_inbox_goes_on_after_its_database_was_away(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "POLL_SECONDS", 0.01)
    ledger = Ledger(peer)
    ledger.fails_with = ValueError("once")
    peer.run(ledger.queue.receive(envelope_of(facts.dataset())))
    ledger.fails_with = None
    peer.run(_execute(peer, "UPDATE inbox_message SET next_millis = 0"))

    async def be_away_and_come_back() -> None:
        await _rename(peer, "inbox_message", "away")
        async with running(ledger.inbox.run()):
            await asyncio.sleep(0.1)
            await _rename(peer, "away", "inbox_message")
            await until(_is_empty(peer, "inbox_message"))

    peer.run(be_away_and_come_back())
    assert ledger.effects() == 1


def test_a_claim_outlives_the_longest_retry_and_is_then_forgotten(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "TIDY_SECONDS", -1.0)
    ledger = Ledger(peer)
    old, young = envelope_of(facts.dataset()), envelope_of(facts.dataset(id=2))
    for envelope in (old, young):
        peer.run(ledger.queue.receive(envelope))
    minute = 60_000
    assert inbox.CLAIMS_KEPT_MILLIS > inbox.WAIT_MOST_MILLIS + inbox.ATTEMPTS_MOST * inbox.LONGEST_DELAY_MILLIS
    for envelope, age in (
        (old, inbox.CLAIMS_KEPT_MILLIS + minute),
        (young, inbox.CLAIMS_KEPT_MILLIS - minute),
    ):
        aged = f"UPDATE inbox_claim SET claimed_millis = claimed_millis - {age} WHERE event_id = '{envelope.id}'"
        peer.run(_execute(peer, aged))

    async def tidy() -> None:
        async with running(ledger.inbox.run()):
            await until(_is_empty(peer, f"inbox_claim WHERE event_id = '{old.id}'"))

    peer.run(tidy())
    peer.run(ledger.queue.receive(young))
    assert ledger.effects() == 2, "what was handled a month ago but for a minute is still known"


async def _execute(peer: Peer, statement: str) -> None:
    async with peer.service.database.write() as session:
        await session.execute(text(statement))


def _is_empty(peer: Peer, rows: str) -> Callable[[], Awaitable[bool]]:
    """Whether there is no row in `rows`: a table, perhaps with a condition."""

    async def ask() -> bool:
        async with peer.service.database.read() as session:
            return (await session.execute(text(f"SELECT 1 FROM {rows}"))).first() is None

    return ask


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for it, not for ever."""
    async with asyncio.timeout(10):
        while not await holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(loop: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """A service's loop, for as long as the block runs."""
    task = asyncio.create_task(loop)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _rename(peer: Peer, old: str, new: str) -> None:
    async with peer.service.database.write() as session:
        await session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


@pytest.mark.only_on("sqlite", because="changes take turns there")
def test_a_busy_database_is_no_attempt_and_the_event_stays_where_it_is(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BACKGROUND_WAIT_SECONDS", 0.05)
    ledger = Ledger(peer)
    bus = EmbeddedBus()
    bus.bind([ledger.queue])
    new, failed = envelope_of(facts.dataset()), envelope_of(facts.dataset(id=2))
    ledger.fails_with = ValueError("once")
    peer.run(bus.publish([failed]))
    ledger.fails_with = None
    peer.run(_execute(peer, "UPDATE inbox_message SET next_millis = 0"))

    async def deliver_while_another_writes() -> set[UUID]:
        async with peer.service.database.write():
            with pytest.raises(ServerBusy):
                await ledger.inbox.retry_due()
            return await bus.publish([new])

    assert peer.run(deliver_while_another_writes()) == set()
    assert [(message["event_id"], message["attempts"]) for message in ledger.parked()] == [(str(failed.id), 1)]
    assert peer.run(bus.publish([new])) == {new.id}
    assert ledger.retry(early=False) == 1
    assert (ledger.effects(), ledger.parked()) == (2, [])


@pytest.mark.only_on("sqlite", because="changes take turns there")
def test_a_delivery_waits_longer_for_its_turn_to_write_than_a_request(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert db.BACKGROUND_WAIT_SECONDS > db.WRITER_WAIT_SECONDS
    monkeypatch.setattr(db, "WRITER_WAIT_SECONDS", 0.05)
    ledger = Ledger(peer)
    bus = EmbeddedBus()
    bus.bind([ledger.queue])
    envelope = envelope_of(facts.dataset())

    async def deliver_while_another_writes() -> set[UUID]:
        async with peer.service.database.write():
            delivering = asyncio.create_task(bus.publish([envelope]))
            await asyncio.sleep(0.3)
        return await delivering

    assert peer.run(deliver_while_another_writes()) == {envelope.id}


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
    recorded.run(_execute(recorded, "UPDATE outbox SET not_before_millis = 0"))
    assert recorded.run(relay.publish_waiting()) is False, "also when its lease is over"


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


def test_a_service_that_starts_does_not_wait_for_the_leases_of_the_one_that_was_killed(recorded: Peer) -> None:
    """Longer than this test waits: the lease of a relay that took the event and was no more."""
    recorded.run(_execute(recorded, f"UPDATE outbox SET not_before_millis = {2**60}"))

    async def work_until_it_is_sent() -> None:
        async with recorded.service.working():
            await until(_is_empty(recorded, "outbox WHERE sent_millis IS NULL"))

    recorded.run(work_until_it_is_sent())


@pytest.mark.parametrize("is_busy", [False, True], ids=["database free", "database busy"])
def test_a_relay_that_is_stopped_ends_and_gives_back_what_it_had_leased_if_it_can(
    recorded: Peer, monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    class Slow(Recorder):
        async def publish(self, envelopes: Sequence[Envelope]) -> set[UUID]:
            await super().publish(envelopes)
            await asyncio.sleep(3600)
            return set()

    bus = Slow()

    async def stop_while_it_publishes() -> bool:
        relaying = asyncio.create_task(Relay(recorded.service.database, bus).run())
        await _published(bus, 1)
        monkeypatch.setattr(db, "BACKGROUND_WAIT_SECONDS", 0.05)
        async with AsyncExitStack() as stack:
            if is_busy:
                session = await stack.enter_async_context(recorded.service.database.write())
                await session.execute(select(outbox).with_for_update())
            relaying.cancel()
            await asyncio.wait([relaying], timeout=10)
        return relaying.cancelled()

    assert recorded.run(stop_while_it_publishes())
    assert recorded.run(Relay(recorded.service.database, Recorder()).publish_waiting()) is not is_busy


async def _published(bus: Recorder, count: int) -> None:
    async def enough() -> bool:
        return len(bus.published) >= count

    await until(enough)


def test_an_event_that_is_never_confirmed_is_tried_less_and_less_often(recorded: Peer) -> None:
    bus = Recorder()
    bus.confirms = False
    sender = Relay(recorded.service.database, bus)

    async def delay_after_a_try() -> int:
        await _execute(recorded, "UPDATE outbox SET not_before_millis = 0")
        await sender.publish_waiting()
        async with recorded.service.database.read() as session:
            delay = select(outbox.c.not_before_millis - database_millis())
            return int((await session.execute(delay)).scalar_one())

    delays = [recorded.run(delay_after_a_try()) for _ in range(len(relay.RETRY_MILLIS) + 2)]
    longest = [*relay.RETRY_MILLIS, relay.RETRY_MILLIS[-1], relay.RETRY_MILLIS[-1]]
    assert all(delay <= most for delay, most in zip(delays, longest, strict=True)), delays
    assert delays[2] > relay.RETRY_MILLIS[1], delays
    assert min(delays[3:]) > relay.RETRY_MILLIS[2], delays


def test_a_lease_is_longer_than_a_publish_may_take_and_ends_within_a_minute() -> None:
    """Another relay must not have an event that the first still publishes, and must have that of a dead one."""
    assert relay.PUBLISH_TIMEOUT_SECONDS * 1000 < relay.LEASE_MILLIS <= 60_000


def test_a_publish_that_hangs_is_given_up_and_its_event_published_again(
    recorded: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PUBLISH_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(relay, "LEASE_MILLIS", 100)

    class HangsOnce(Recorder):
        async def publish(self, envelopes: Sequence[Envelope]) -> set[UUID]:
            confirmed = await super().publish(envelopes)
            if len(self.published) == 1:
                await asyncio.sleep(3600)
            return confirmed

    bus = HangsOnce()

    async def publish_twice() -> None:
        sender = Relay(recorded.service.database, bus)
        async with running(sender.run()):
            await _published(bus, 2)
            await until(_is_empty(recorded, "outbox WHERE sent_millis IS NULL"))

    recorded.run(publish_twice())
    assert bus.published[0].id == bus.published[1].id


def test_the_relay_finds_what_another_process_committed(recorded: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.05)
    bus = Recorder()
    url = recorded.service.settings.database_url

    async def commit_elsewhere() -> None:
        other_process = Database(url, service="associations")
        again = "UPDATE outbox SET sent_millis = NULL, not_before_millis = 0"
        try:
            async with running(Relay(recorded.service.database, bus).run()):
                await until(_is_empty(recorded, "outbox WHERE sent_millis IS NULL"))
                async with other_process.write() as session:
                    await session.execute(text(again))
                await _published(bus, 2)
        finally:
            await other_process.close()

    recorded.run(commit_elsewhere())


def test_the_relay_comes_back_when_an_event_may_be_tried_again_and_not_only_at_its_poll(
    recorded: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", 3600.0)
    bus = Recorder()
    bus.confirms = False

    async def try_three_times() -> None:
        async with running(Relay(recorded.service.database, bus).run()):
            await _published(bus, 3)

    recorded.run(try_three_times())


def test_the_relay_goes_on_after_its_database_was_away(recorded: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.01)
    bus = Recorder()

    async def be_away_and_come_back() -> None:
        await _rename(recorded, "outbox", "away")
        async with running(Relay(recorded.service.database, bus).run()):
            await asyncio.sleep(0.1)
            await _rename(recorded, "away", "outbox")
            await _published(bus, 1)

    recorded.run(be_away_and_come_back())


def test_events_are_published_oldest_first_and_so_many_at_once(
    recorded: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "BATCH", 2)
    for number in (2, 3):
        recorded.tell(facts.dataset(id=number))
        recorded.call("POST", "/api/v1/associations", REQUEST | {"dataset_id": number}, by=SITE)
    bus = Recorder()
    sender = Relay(recorded.service.database, bus)
    recorded.run(sender.publish_waiting())
    assert [envelope.data["id"] for envelope in bus.published] == [1, 2]
    recorded.run(sender.publish_waiting())
    assert [envelope.data["id"] for envelope in bus.published] == [1, 2, 3]


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
        while not bus.published:
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
        received.append(envelope.data["id"])
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


def _disturbed(peer: Peer, **kinds: float) -> tuple[list[int], int, float]:
    """What of 40 events a bus with these disorders alone delivers at once: numbers, confirms, seconds."""
    received: list[int] = []

    async def receive(envelope: Envelope) -> None:
        received.append(envelope.data["id"])

    class Disturbed(UnreliableBus):
        LOST_CONFIRM = kinds.get("lost_confirm", 0.0)
        NOT_DELIVERED = kinds.get("not_delivered", 0.0)
        TWICE = kinds.get("twice", 0.0)
        LONGEST_DELAY_SECONDS = kinds.get("delay", 0.0)

    bus = Disturbed(seed=7)
    bus.bind([inbox.Queue("test.receive", frozenset({facts.dataset().TOPIC}), receive)])
    began = time.monotonic()
    confirmed = peer.run(bus.publish([envelope_of(facts.dataset(id=number)) for number in range(1, 41)]))
    return received, len(confirmed), time.monotonic() - began


def test_each_disorder_of_the_unreliable_bus_is_real_by_itself_and_on_by_default(peer: Peer) -> None:
    every = set(range(1, 41))
    received, confirmed, _ = _disturbed(peer)
    assert (set(received), len(received), confirmed) == (every, 40, 40)
    assert received != sorted(received), "reordered"
    received, confirmed, _ = _disturbed(peer, twice=0.3)
    assert (set(received), confirmed) == (every, 40)
    assert len(received) > 40, "delivered twice"
    received, confirmed, _ = _disturbed(peer, not_delivered=0.3)
    assert len(received) == confirmed < 40, "held back"
    received, confirmed, _ = _disturbed(peer, lost_confirm=0.3)
    assert (len(received), confirmed < 40) == (40, True), "delivered, and not confirmed"
    assert _disturbed(peer, delay=0.02)[2] > 0.2, "delayed"
    bus = UnreliableBus
    assert min(bus.LOST_CONFIRM, bus.NOT_DELIVERED, bus.TWICE, bus.LONGEST_DELAY_SECONDS) > 0


def test_every_migration_ends_at_the_tables_that_the_code_uses(
    start: Callable[[Definition], Peer], tmp_path: Path
) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from services.composition import DEFINITIONS
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
