"""A broker as a test has it: with the deployment's definitions, seen by its administrator and by each service."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aio_pika

from medperf_contracts.envelope import Envelope
from servers.rabbitmq import RabbitmqServer
from service import facts
from service.peer import envelope_of
from services.composition import DEFINITIONS
from services.kernel import topology
from services.kernel.amqp import AmqpBus
from services.kernel.bus import Queue

T = TypeVar("T")
PASSWORDS = {definition.name: f"{definition.name}-secret" for definition in DEFINITIONS}
SECONDS = 20.0
RECORD_ASSOCIATION = "results.record_association"


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


Run = Callable[[Callable[[Broker], Coroutine[Any, Any, Any]]], Any]


async def unheard(message: object) -> None:
    """What a consumer in name only does."""


async def published(bus: AmqpBus, event: Envelope) -> set[uuid.UUID]:
    """As the relay does: what raises is tried again."""
    try:
        return await bus.publish([event])
    except Exception:  # noqa: BLE001
        return set()
