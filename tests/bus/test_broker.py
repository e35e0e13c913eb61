"""The bus on a real RabbitMQ: what is confirmed is there, and what is there is taken once."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import aio_pika
import pytest
from prometheus_client import REGISTRY

from bus.broker import (
    RECORD_ASSOCIATION,
    SECONDS,
    Broker,
    Run,
    Taken,
    approved,
    consuming,
    eventually,
    published,
    unheard,
)
from medperf_contracts.envelope import Envelope
from medperf_contracts.events import AssociationApproved
from services.composition import DEFINITIONS
from services.kernel import amqp, topology
from services.kernel.amqp import AmqpBus, NotTaken

# One broker for them all.
pytestmark = pytest.mark.xdist_group("broker")


def shown(name: str) -> float:
    """What the metric says of the consumer now."""
    return REGISTRY.get_sample_value(name, {"consumer": RECORD_ASSOCIATION}) or 0


def test_what_is_confirmed_is_in_every_queue_of_its_topic(run: Run) -> None:
    async def check(peer: Broker) -> None:
        events = [approved(number) for number in range(1, 101)]
        bus = peer.bus("associations")
        assert await bus.publish(events) == {event.id for event in events}
        await bus.close()
        for queue in (RECORD_ASSOCIATION, "registry.record_association", "notifications.tell_of_association"):
            assert await peer.count(queue) == 100, queue
        assert await peer.count("notifications.tell_of_result") == 0

    run(check)


def test_an_event_that_no_queue_takes_is_not_taken(run: Run) -> None:
    async def check(peer: Broker) -> None:
        known, unknown = approved(), approved().model_copy(update={"type": "association.approved.v9"})
        bus = AmqpBus(
            peer.server.url_of(peer.server.user, peer.server.password, topology.VHOST), name="administrator"
        )
        assert await bus.publish([known, unknown]) == {known.id}
        with pytest.raises(NotTaken, match=r"no queue .* load deploy/rabbitmq/definitions\.json"):
            await bus.publish([unknown])
        assert await bus.publish([known]) == {known.id}, "the bus goes on"
        await bus.close()

    run(check)


def test_a_message_leaves_its_queue_once_its_inbox_has_taken_it(run: Run) -> None:
    async def check(peer: Broker) -> None:
        events = [approved(number) for number in range(1, 21)]
        bus, taken = peer.bus("associations"), Taken()
        await bus.publish(events)
        async with consuming(peer, taken.receive):
            await taken.has(20)
            await peer.until(RECORD_ASSOCIATION, 0)
        assert taken == [event.id for event in events]
        await bus.close()

    run(check)


def test_while_its_database_is_away_a_consumer_holds_one_message_and_then_goes_on(run: Run) -> None:
    async def check(peer: Broker) -> None:
        bus, taken, tried = peer.bus("associations"), Taken(), Taken()
        is_away = True

        async def receive(envelope: Envelope) -> None:
            await tried.receive(envelope)
            if is_away:
                raise OSError("its database is away")
            await taken.receive(envelope)

        events = [approved(number) for number in range(1, 4)]
        await bus.publish(events)
        async with consuming(peer, receive) as worker:
            await tried.has(3)
            assert set(tried) == {events[0].id}, "no other message while the first could not be taken"
            assert await peer.count(RECORD_ASSOCIATION) == 2, "nor does it keep them from others"
            (consumption,) = worker.consumptions
            assert consumption.is_consuming
            is_away = False
            await taken.has(3)
            await peer.until(RECORD_ASSOCIATION, 0)
        assert taken == [event.id for event in events]
        await bus.close()

    run(check)


def test_a_worker_that_ends_gives_back_what_it_had_not_taken(run: Run) -> None:
    async def check(peer: Broker) -> None:
        bus, taken, began = peer.bus("associations"), Taken(), asyncio.Event()
        amqp_finish, amqp.FINISH_SECONDS = amqp.FINISH_SECONDS, 0.2

        async def never(envelope: Envelope) -> None:
            began.set()
            await asyncio.Event().wait()

        event = approved()
        await bus.publish([event])
        async with consuming(peer, never):
            await began.wait()
        amqp.FINISH_SECONDS = amqp_finish
        async with consuming(peer, taken.receive):
            await taken.has(1)
        assert taken == [event.id]
        await bus.close()

    run(check)


def test_a_worker_that_is_told_to_stop_finishes_the_message_that_it_has(run: Run) -> None:
    async def check(peer: Broker) -> None:
        bus, taken, began = peer.bus("associations"), Taken(), asyncio.Event()

        async def slowly(envelope: Envelope) -> None:
            began.set()
            await asyncio.sleep(0.3)
            await taken.receive(envelope)

        event = approved()
        await bus.publish([event])
        async with consuming(peer, slowly):
            await began.wait()
        assert taken == [event.id]
        assert await peer.count(RECORD_ASSOCIATION) == 0, "and acknowledged it"
        await bus.close()

    run(check)


@pytest.mark.parametrize(
    "body", [b"not JSON", b"{}", json.dumps({"specversion": "1.0"}).encode()], ids=["text", "empty", "no event"]
)
def test_what_cannot_be_read_goes_to_the_queue_of_the_unreadable_and_holds_up_nothing(
    run: Run, body: bytes
) -> None:
    async def check(peer: Broker) -> None:
        taken, event, before = Taken(), approved(), shown("medperf_messages_unreadable_total")
        async with peer.channel() as channel:
            exchange = await channel.get_exchange(topology.EXCHANGE, ensure=False)
            await exchange.publish(aio_pika.Message(body), AssociationApproved.TOPIC)
        bus = peer.bus("associations")
        await bus.publish([event])
        async with consuming(peer, taken.receive):
            await taken.has(1)
            assert shown("medperf_consumer_connected") == 1
        assert shown("medperf_consumer_connected") == 0
        assert shown("medperf_messages_unreadable_total") == before + 1
        assert taken == [event.id]
        unreadable = f"{RECORD_ASSOCIATION}{topology.UNREADABLE_SUFFIX}"
        await peer.until(unreadable, 1)
        async with peer.channel() as channel:
            message = await (await channel.get_queue(unreadable, ensure=False)).get()
        assert message is not None
        assert message.body == body
        assert message.headers["x-first-death-reason"] == "rejected", "at once, not after many tries"
        await bus.close()

    run(check)


def test_a_message_that_was_given_too_often_is_kept_with_the_unreadable_and_shown(run: Run) -> None:
    async def check(peer: Broker) -> None:
        bus, taken, event = peer.bus("associations"), Taken(), approved()
        await bus.publish([event])
        given = 0
        async with peer.channel() as channel:
            queue = await channel.get_queue(RECORD_ASSOCIATION, ensure=False)
            while given <= 2 * topology.DELIVERIES_MOST and (message := await queue.get(fail=False)) is not None:
                given += 1
                await message.reject(requeue=True)
        assert given == topology.DELIVERIES_MOST + 1
        await peer.until(f"{RECORD_ASSOCIATION}{topology.UNREADABLE_SUFFIX}", 1)
        async with consuming(peer, taken.receive):

            async def is_shown() -> bool:
                return shown("medperf_unreadable_queue_messages") == 1

            await eventually(is_shown)
        assert taken == []
        await bus.close()

    run(check)


def test_a_consumer_that_the_broker_ends_is_begun_again_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amqp, "LOOK_SECONDS", 600.0)  # it is told, and need not look

    async def check(peer: Broker) -> None:
        bus, taken = peer.bus("associations"), Taken()
        async with consuming(peer, taken.receive):
            await bus.publish([approved(1)])
            await taken.has(1)
            async with peer.channel() as channel:
                await channel.queue_delete(RECORD_ASSOCIATION)
            await asyncio.to_thread(peer.server.load, topology.definitions(DEFINITIONS))
            await bus.publish([approved(2)])
            await taken.has(2)
        await bus.close()

    run(check)


def test_a_consumer_in_name_only_is_found_out_and_begun_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(peer: Broker) -> None:
        bus, taken = peer.bus("associations"), Taken()
        consume = aio_pika.queue.Queue.consume
        silent = 1

        async def sometimes_deaf(queue: Any, callback: Any, **options: Any) -> Any:
            nonlocal silent
            if silent:  # what it is given, it never sees: as after a reconnect that lost the consumer
                silent -= 1
                return await consume(queue, unheard, **options)
            return await consume(queue, callback, **options)

        monkeypatch.setattr(aio_pika.queue.Queue, "consume", sometimes_deaf)
        events = [approved(1), approved(2)]
        await bus.publish(events)
        async with consuming(peer, taken.receive):
            await taken.has(2)
        assert set(taken) == {event.id for event in events}
        await bus.close()

    run(check)


def test_a_connection_that_is_cut_loses_nothing(run: Run) -> None:
    async def check(peer: Broker) -> None:
        bus, taken = peer.bus("associations"), Taken()
        events = [approved(number) for number in range(1, 61)]
        async with consuming(peer, taken.receive):
            for event in events:
                if event in (events[20], events[40]):
                    await asyncio.to_thread(peer.server.ctl, "close_all_connections", "--vhost", "medperf", "cut")
                while event.id not in await published(bus, event):
                    await asyncio.sleep(0.05)

            async def all_taken() -> bool:
                return {event.id for event in events} <= set(taken)

            await eventually(all_taken)
            await peer.until(RECORD_ASSOCIATION, 0)
        await bus.close()

    run(check)


def test_a_frozen_broker_confirms_nothing_and_what_is_published_again_arrives(run: Run) -> None:
    async def check(peer: Broker) -> None:
        bus, taken = peer.bus("associations"), Taken()
        await bus.publish([approved(1)])
        second, third = approved(2), approved(3)
        peer.server.freeze()
        try:
            with pytest.raises((NotTaken, TimeoutError)):
                await bus.publish([second])
        finally:
            peer.server.thaw()
        async with asyncio.timeout(SECONDS):
            for event in (second, third):  # as the relay does: what was not confirmed is published again
                while event.id not in await published(bus, event):
                    await asyncio.sleep(0.1)
        async with consuming(peer, taken.receive):
            await taken.has(3)
        assert {second.id, third.id} <= set(taken)
        await bus.close()

    run(check)


def test_after_a_kill_of_the_broker_every_confirmed_event_is_there(run: Run) -> None:
    async def check(peer: Broker) -> None:
        bus, taken = peer.bus("associations"), Taken()
        confirmed: set[uuid.UUID] = set()
        for number in range(1, 51):
            confirmed |= await bus.publish([approved(number)])
        async with consuming(peer, taken.receive):
            await asyncio.to_thread(peer.server.kill)
            await asyncio.to_thread(peer.server.start)

            async def all_taken() -> bool:
                return confirmed <= set(taken)

            await eventually(all_taken)
        await bus.close()

    run(check)
