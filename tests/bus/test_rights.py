"""What the broker holds, and who may do what in it: each service too little rather than too much."""

from __future__ import annotations

import json
from pathlib import Path

import aio_pika
import aiormq
import pytest

from bus.broker import (
    RECORD_ASSOCIATION,
    Broker,
    Run,
    approved,
)
from medperf_contracts.events import ResultSubmitted
from servers.rabbitmq import RabbitmqServer
from service import facts
from service.peer import envelope_of
from services.composition import DEFINITIONS
from services.kernel import topology
from services.kernel.amqp import NotTaken

# One broker for them all.
pytestmark = pytest.mark.xdist_group("broker")


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
