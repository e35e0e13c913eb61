"""The bus on a real RabbitMQ: what is confirmed is there, and taken once, and nobody has too many rights."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aio_pika
import aiormq
import pytest
from prometheus_client import REGISTRY

from medperf_contracts.envelope import Envelope
from medperf_contracts.events import AssociationApproved, ResultSubmitted
from servers.rabbitmq import RabbitmqServer, rabbitmq
from service import facts
from service.peer import envelope_of
from services.composition import DEFINITIONS
from services.kernel import amqp, topology
from services.kernel.amqp import AmqpBus, NotTaken
from services.kernel.bus import Queue

T = TypeVar("T")
PASSWORDS = {definition.name: f"{definition.name}-secret" for definition in DEFINITIONS}
SECONDS = 20.0
RECORD_ASSOCIATION = "results.record_association"


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitmqServer]:
    """A node with the deployment's definitions."""
    passwords = {**PASSWORDS, topology.ADMINISTRATOR: "unused"}
    with rabbitmq(topology.definitions(DEFINITIONS) | topology.users(DEFINITIONS, passwords)) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a minute on a quiet broker takes a second."""
    monkeypatch.setattr(amqp, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(amqp, "CONFIRM_SECONDS", 2.0)


class Broker:
    """What a test does with the broker, in one event loop."""

    def __init__(self, server: RabbitmqServer) -> None:
        self.server = server

    def url(self, service: str) -> str:
        return self.server.url_of(service, PASSWORDS[service], topology.VHOST)

    def bus(self, service: str) -> AmqpBus:
        return AmqpBus(self.url(service), name=service)

    @asynccontextmanager
    async def channel(self, *, user: str | None = None) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
        """Of the administrator, or as a service."""
        url = (
            self.url(user) if user else self.server.url_of(self.server.user, self.server.password, topology.VHOST)
        )
        connection = await aio_pika.connect(url)
        async with connection:
            yield await connection.channel(on_return_raises=True)

    async def empty(self) -> None:
        async with self.channel() as channel:
            for each in topology.definitions(DEFINITIONS)["queues"]:
                await (await channel.get_queue(each["name"], ensure=False)).purge()

    async def count(self, queue: str) -> int:
        async with self.channel() as channel:
            declared = await channel.declare_queue(queue, passive=True)
            return declared.declaration_result.message_count or 0

    async def until(self, queue: str, count: int) -> None:
        """Until the queue holds so many messages that nobody has."""
        await eventually(lambda: self._has(queue, count))

    async def _has(self, queue: str, count: int) -> bool:
        return await self.count(queue) == count


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await holds():
            await asyncio.sleep(0.05)


@pytest.fixture
def run(broker: RabbitmqServer) -> Callable[[Callable[[Broker], Coroutine[Any, Any, T]]], T]:
    """Run a test's own coroutine on a broker whose queues are empty."""

    def within(work: Callable[[Broker], Coroutine[Any, Any, T]]) -> T:
        async def all_of_it() -> T:
            peer = Broker(broker)
            await peer.empty()
            try:
                return await work(peer)
            finally:
                await asyncio.sleep(0.1)  # the library still tells its own callbacks of connections that closed

        return asyncio.run(all_of_it())

    return within


Run = Callable[[Callable[[Broker], Coroutine[Any, Any, Any]]], Any]


def shown(name: str) -> float:
    """What the metric says of the consumer now."""
    return REGISTRY.get_sample_value(name, {"consumer": RECORD_ASSOCIATION}) or 0


def approved(number: int = 1) -> Envelope:
    return envelope_of(facts.association(id=number))


@asynccontextmanager
async def consuming(
    peer: Broker, receive: Callable[[Envelope], Awaitable[None]], *, queue: str = RECORD_ASSOCIATION
) -> AsyncIterator[AmqpBus]:
    """A worker of one queue at work."""
    bus = peer.bus(queue.partition(".")[0])
    bus.bind([Queue(queue, frozenset(), receive)])
    task = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        task.cancel()
        await asyncio.wait([task])


class Taken(list[uuid.UUID]):
    """A consumer that keeps what it got."""

    async def receive(self, envelope: Envelope) -> None:
        self.append(envelope.id)

    async def has(self, count: int) -> None:
        async def holds() -> bool:
            return len(self) >= count

        await eventually(holds)


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


async def unheard(message: object) -> None:
    """What a consumer in name only does."""


async def published(bus: AmqpBus, event: Envelope) -> set[uuid.UUID]:
    """As the relay does: what raises is tried again."""
    try:
        return await bus.publish([event])
    except Exception:  # noqa: BLE001
        return set()


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


def test_a_service_publishes_its_own_topics_only(run: Run) -> None:
    async def check(peer: Broker) -> None:
        result = envelope_of(ResultSubmitted.model_validate(_RESULT))
        for service, event in (("results", approved()), ("associations", result), ("notifications", result)):
            bus = peer.bus(service)
            with pytest.raises(NotTaken, match="access to"):
                await bus.publish([event])
            await bus.close()
        bus = peer.bus("results")
        assert await bus.publish([result]) == {result.id}
        await bus.close()

    run(check)


@pytest.mark.parametrize("service", [definition.name for definition in DEFINITIONS if definition.consumers])
def test_a_service_reads_its_own_queues_only_and_makes_nothing(run: Run, service: str) -> None:
    async def check(peer: Broker) -> None:
        for definition in DEFINITIONS:
            for consumer in definition.consumers:
                for queue in (consumer.name, f"{consumer.name}{topology.UNREADABLE_SUFFIX}"):
                    async with peer.channel(user=service) as channel:
                        theirs = await channel.get_queue(queue, ensure=False)
                        if definition.name == service:
                            await theirs.get(fail=False)
                        else:
                            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                                await theirs.get(fail=False)
        for attempt in (_declare_queue, _declare_exchange, _bind, _delete, _publish_past_the_exchange):
            async with peer.channel(user=service) as channel:
                with pytest.raises(aio_pika.exceptions.AMQPError):
                    await attempt(channel)

    run(check)


async def _declare_queue(channel: aio_pika.abc.AbstractChannel) -> None:
    await channel.declare_queue("results.another", durable=True)


async def _declare_exchange(channel: aio_pika.abc.AbstractChannel) -> None:
    await channel.declare_exchange("another")


async def _bind(channel: aio_pika.abc.AbstractChannel) -> None:
    await (await channel.get_queue(RECORD_ASSOCIATION, ensure=False)).bind(topology.EXCHANGE, "result.#")


async def _delete(channel: aio_pika.abc.AbstractChannel) -> None:
    await channel.queue_delete(RECORD_ASSOCIATION)


async def _publish_past_the_exchange(channel: aio_pika.abc.AbstractChannel) -> None:
    await channel.default_exchange.publish(aio_pika.Message(b"{}"), RECORD_ASSOCIATION)


def test_the_broker_holds_what_the_definitions_say(broker: RabbitmqServer) -> None:
    shown = json.loads(
        broker.ctl(
            "list_queues", "--vhost", "medperf", "--formatter", "json", "name", "type", "durable", "arguments"
        )
    )
    wanted = json.loads((Path(__file__).parents[2] / "deploy" / "rabbitmq" / "definitions.json").read_text())
    arguments = {each["name"]: {name: value for name, _, value in each["arguments"]} for each in shown}
    assert arguments == {each["name"]: each["arguments"] for each in wanted["queues"]}
    assert all(
        each["durable"] and each["type"].endswith("quorum_queue") | (each["type"] == "quorum") for each in shown
    )


def test_an_event_that_nobody_consumes_cannot_be_defined() -> None:
    without = [definition for definition in DEFINITIONS if definition.name != "notifications"]
    with pytest.raises(ValueError, match=ResultSubmitted.TOPIC):
        topology.definitions(without)


_RESULT = {
    "id": 1,
    "benchmark_id": 1,
    "benchmark_name": "chest",
    "benchmark_owner_id": facts.COMMITTEE,
    "model_id": 4,
    "model_name": "second",
    "model_owner_id": facts.MODEL_OWNER,
    "dataset_id": 1,
    "dataset_owner_id": facts.SITE,
    "is_partial": False,
}
