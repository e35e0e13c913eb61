"""The bus on RabbitMQ.

Publishing waits for the broker's confirms, and what no queue takes counts as not taken. A queue's messages are
given to its inbox one at a time and acknowledged when the inbox has committed: a crash gives back one message,
never a batch in which one poisons the rest. The library's own reconnecting is not used: it can lose consumers and
hang.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aiormq import spec
from pydantic import ValidationError

from medperf_contracts.envelope import Envelope

from . import metrics
from .bus import Queue
from .dead_letters import unreadable_because
from .log import logger
from .topology import EXCHANGE, UNREADABLE_SUFFIX

CONNECT_SECONDS = 10.0
# Of a broker that is frozen or cut off nothing is heard for three of these.
HEARTBEAT_SECONDS = 10
# Shorter than the relay's own patience, so that the cause is told by who knows it.
CONFIRM_SECONDS = 10.0
CLOSE_SECONDS = 2.0
LOOK_SECONDS = 10.0
RECONNECT_SECONDS = (0.2, 1.0, 5.0)
# What keeps an inbox from writing anything down lasts: its database is away, full or busy.
TRY_AGAIN_SECONDS = (0.2, 1.0, 5.0)
FINISH_SECONDS = 10.0


class ConsumerLost(Exception):
    """The broker does not give this consumer its messages any more."""


class NotTaken(Exception):
    """The broker did not confirm."""


class AmqpBus:
    """RabbitMQ, as one service sees it. `url` has the service's own user and password."""

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self.consumptions: list[Consumption] = []
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def bind(self, queues: Iterable[Queue]) -> None:
        """Consume these once `run` runs. The broker's definitions made them, before any publisher started."""
        self.consumptions.extend(Consumption(self._url, self._name, queue) for queue in queues)

    async def publish(self, envelopes: Sequence[Envelope]) -> set[UUID]:
        """Publish all at once and wait for every confirm; returns the IDs that every bound queue has durably.

        Raises `NotTaken` with the cause where there is none.
        """
        exchange = await self._ready_exchange()
        try:
            outcomes = await asyncio.gather(
                *(self._publish(exchange, envelope) for envelope in envelopes), return_exceptions=True
            )
        except asyncio.CancelledError:
            self._drop()
            raise
        taken = {
            envelope.id
            for envelope, outcome in zip(envelopes, outcomes, strict=True)
            if isinstance(outcome, spec.Basic.Ack)
        }
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if any(not isinstance(failure, aio_pika.exceptions.DeliveryError) for failure in failures):
            self._drop()  # a confirm that is late belongs to nobody: begin anew
        if failures and not taken:
            raise NotTaken(_cause(failures[0])) from failures[0]
        return taken

    async def run(self) -> None:
        """Give every bound queue's messages to its inbox, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for consumption in self.consumptions:
                group.create_task(consumption.run(), name=consumption.queue.name)

    async def close(self) -> None:
        """End the publisher's connection."""
        self._drop()
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_SECONDS)

    async def _publish(self, exchange: AbstractExchange, envelope: Envelope) -> object:
        message = aio_pika.Message(
            envelope.model_dump_json(exclude_none=True).encode(),
            content_type="application/cloudevents+json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=str(envelope.id),
            type=envelope.type,
            app_id=self._name,
        )
        return await exchange.publish(message, envelope.type, mandatory=True, timeout=CONFIRM_SECONDS)

    async def _ready_exchange(self) -> AbstractExchange:
        if self._channel is None or self._channel.is_closed:
            self._drop()
            self._connection = await connect(self._url, f"{self._name} publisher")
            # An unroutable message counts as confirmed, unless it raises.
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        return await self._channel.get_exchange(EXCHANGE, ensure=False)

    def _drop(self) -> None:
        if self._connection is not None:
            task = asyncio.create_task(close(self._connection))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._connection = self._channel = None


class Consumption:
    """One queue's consumer: begun again after every break, and found out when it is one in name only."""

    def __init__(self, url: str, name: str, queue: Queue) -> None:
        self._url = url
        self._name = name
        self.queue = queue
        self.is_consuming = False
        self._connected = metrics.CONSUMER_CONNECTED.labels(queue.name)
        self._kept_unreadable = metrics.UNREADABLE_QUEUE_MESSAGES.labels(queue.name)
        self._unreadable = metrics.MESSAGES_UNREADABLE.labels(queue.name)
        self.last_progress = time.monotonic()
        """When it last did what there was to do, or had a reason outside itself not to."""
        self._breaks = 0

    async def run(self) -> None:
        """Consume until cancelled."""
        while True:
            try:
                async with self._messages() as (channel, deliveries):
                    await self._consume(channel, deliveries)
            except ConsumerLost as error:
                logger.error("consumer_lost", queue=self.queue.name, cause=str(error))
            except Exception as error:  # noqa: BLE001 (the broker is away: it is looked for until it is back)
                logger.error("consumer_lost", queue=self.queue.name, cause=_cause(error))
                self.last_progress = time.monotonic()
            await asyncio.sleep(RECONNECT_SECONDS[min(self._breaks, len(RECONNECT_SECONDS) - 1)])
            self._breaks += 1

    @asynccontextmanager
    async def _messages(
        self,
    ) -> AsyncIterator[tuple[AbstractChannel, asyncio.Queue[AbstractIncomingMessage | None]]]:
        """The queue's messages as they come, at most one of them not acknowledged; None once no more will come."""
        connection = await connect(self._url, f"{self._name} {self.queue.name}")
        try:
            channel = await connection.channel(publisher_confirms=False)
            await channel.set_qos(prefetch_count=1)
            deliveries: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
            asyncio.ensure_future(channel.closed()).add_done_callback(lambda _: deliveries.put_nowait(None))
            underlay = await channel.get_underlay_channel()
            underlay.on_consumer_cancel_callbacks.add(lambda _: deliveries.put_nowait(None))
            queue = await channel.get_queue(self.queue.name, ensure=False)
            await queue.consume(deliveries.put, timeout=CONNECT_SECONDS)
            self.is_consuming = True
            self._connected.set(1)
            self._breaks = 0
            yield channel, deliveries
        finally:
            self.is_consuming = False
            self._connected.set(0)
            await close(connection)

    async def _consume(
        self, channel: AbstractChannel, deliveries: asyncio.Queue[AbstractIncomingMessage | None]
    ) -> None:
        idle_looks, count_at = 0, 0.0
        while True:
            if time.monotonic() >= count_at:
                await self._count_unreadable(channel)
                count_at = time.monotonic() + LOOK_SECONDS
            message = None
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    message = await deliveries.get()
            except TimeoutError:
                idle_looks = idle_looks + 1 if await self._waiting_unseen(channel) else 0
                if idle_looks > 1:
                    raise ConsumerLost("messages wait in the queue, and none comes") from None
                continue
            if message is None:
                raise ConsumerLost("the broker ended the consumer or its connection")
            idle_looks = 0
            handling = asyncio.create_task(self._handle(channel, message))
            try:
                await asyncio.shield(handling)
            except asyncio.CancelledError:
                await asyncio.wait([handling], timeout=FINISH_SECONDS)
                handling.cancel()
                raise

    async def _waiting_unseen(self, channel: AbstractChannel) -> bool:
        """Whether messages wait though this consumer is idle."""
        declared = await channel.declare_queue(self.queue.name, passive=True, timeout=CONNECT_SECONDS)
        result = declared.declaration_result
        if result.consumer_count == 0:
            raise ConsumerLost("the broker knows no consumer of the queue")
        if result.message_count:
            return True
        self.last_progress = time.monotonic()
        return False

    async def _count_unreadable(self, channel: AbstractChannel) -> None:
        """Also what the broker itself put there, at the limit of its deliveries: nobody else would see it."""
        kept = await channel.declare_queue(
            f"{self.queue.name}{UNREADABLE_SUFFIX}", passive=True, timeout=CONNECT_SECONDS
        )
        self._kept_unreadable.set(kept.declaration_result.message_count or 0)

    async def _handle(self, channel: AbstractChannel, message: AbstractIncomingMessage) -> None:
        try:
            envelope = Envelope.model_validate_json(message.body)
        except ValidationError as error:
            logger.warning("message_unreadable", queue=self.queue.name, cause=unreadable_because(error))
            self._unreadable.inc()
            await message.reject(requeue=False)  # to the queue's own dead-letter queue
            return
        tries = 0
        while True:
            try:
                await self.queue.receive(envelope)
                break
            except Exception as error:  # noqa: BLE001 (its own database is away: no attempt, and no more messages)
                logger.error("consumer_waits", queue=self.queue.name, cause=_cause(error))
                self.last_progress = time.monotonic()
            await asyncio.sleep(TRY_AGAIN_SECONDS[min(tries, len(TRY_AGAIN_SECONDS) - 1)])
            tries += 1
            if channel.is_closed:
                raise ConsumerLost("the broker took the message back")
        await message.ack()
        self.last_progress = time.monotonic()


async def connect(url: str, name: str) -> AbstractConnection:
    """A connection that the broker's own tools show under `name`."""
    separator = "&" if "?" in url else "?"
    return await aio_pika.connect(
        f"{url}{separator}heartbeat={HEARTBEAT_SECONDS}",
        timeout=CONNECT_SECONDS,
        client_properties={"connection_name": name},
    )


async def close(connection: AbstractConnection) -> None:
    """End a connection, also one on which nobody answers."""
    with suppress(Exception):
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close()


def _cause(error: BaseException) -> str:
    if isinstance(error, aio_pika.exceptions.PublishError):
        return "no queue of the broker takes events of this topic: load deploy/rabbitmq/definitions.json"
    return f"{type(error).__name__}: {error}".removesuffix(": ")
