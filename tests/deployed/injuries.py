"""What goes wrong in a deployment, on purpose: each injury does its harm, then mends it as an operator would."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import aio_pika
import asyncpg

from deployed import mortal
from deployed.checker import CONSUMED, SERVICES
from deployed.deployment import Deployment, Peer
from deployed.network import Cable

# What a moment that did not come is counted as.
NOT_DONE = "not done"
EXCHANGE, VHOST = "medperf.events", "medperf"
UP_AGAIN_SECONDS = (0.2, 1.5)
FROZEN_SECONDS = (2.0, 6.0)
MOMENT_SECONDS = 20.0
REPEATED_MOST = 200


class Injuries:
    """The injuries of one run, drawn from a seed, and how many of each there were."""

    def __init__(self, whole: Deployment, *, seed: int, cuts: Sequence[int]) -> None:
        self._whole = whole
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.poison: Counter[str] = Counter()
        """By queue: how many messages that nobody can read were put there."""
        self.kinds: dict[str, Callable[[], Awaitable[str | None]]] = {
            "web process killed": lambda: self._kill_peer(self._web()),
            "worker killed": lambda: self._kill_peer(self._worker()),
            "worker killed between publish and mark": lambda: self._at(mortal.BEFORE_MARK, self._worker()),
            "worker killed between effect and acknowledgement": lambda: self._at(
                mortal.BEFORE_ACK, self._worker()
            ),
            "web process killed between commit and answer": lambda: self._at(mortal.BEFORE_ANSWER, self._web()),
            "RabbitMQ killed": self._kill_the_broker,
            "PostgreSQL killed": lambda: self._kill_server(whole.postgresql),
            "nginx killed": lambda: self._kill_server(whole.nginx),
            "process frozen": lambda: self._freeze(self._random.choice(whole.peers).life),
            "RabbitMQ frozen": lambda: self._freeze(self._random.choice(whole.brokers)),
            "PostgreSQL frozen": lambda: self._freeze(whole.postgresql),
            "events delivered again, in another order": self._repeat,
            "messages that cannot be read": self._poison,
            "RabbitMQ out of disk": self._fill_the_brokers_disk,
        }
        if whole.cable is not None:
            self.kinds |= {
                f"workers' network cut for {seconds} s": partial(self._cut, whole.cable, seconds)
                for seconds in cuts
            }
        if len(whole.brokers) > 1:
            self.kinds["one node of three of RabbitMQ killed"] = lambda: self._kill_server(
                self._random.choice(whole.brokers)
            )

    async def run(self, *, every_seconds: float, until: Callable[[], bool]) -> None:
        """One injury after another, each kind as often as the others, until told that it is enough."""
        waiting: list[str] = []
        while not until():
            if not waiting:
                waiting = self._random.sample(list(self.kinds), len(self.kinds))
            kind = waiting.pop()
            if await self.kinds[kind]() is not NOT_DONE:
                self.done[kind] += 1
            await asyncio.sleep(every_seconds)

    def _web(self) -> Peer:
        return self._random.choice([peer for peers in self._whole.webs.values() for peer in peers])

    def _worker(self) -> Peer:
        return self._random.choice([peer for peers in self._whole.workers.values() for peer in peers])

    async def _kill_peer(self, peer: Peer) -> None:
        await asyncio.to_thread(peer.life.kill)
        await self._a_while(UP_AGAIN_SECONDS)
        await asyncio.to_thread(peer.life.start)

    async def _kill_server(self, server: Any) -> None:
        await asyncio.to_thread(server.kill)
        await self._a_while(UP_AGAIN_SECONDS)
        await asyncio.to_thread(server.start)

    async def _kill_the_broker(self) -> None:
        """All of its nodes; a cluster's come back together, or they wait for each other."""
        for node in self._whole.brokers:
            await asyncio.to_thread(node.kill)
        await self._a_while(UP_AGAIN_SECONDS)
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in self._whole.brokers))

    async def _cut(self, cable: Cable, seconds: int) -> None:
        await asyncio.to_thread(cable.cut)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(cable.mend)

    async def _freeze(self, life: Any) -> None:
        await asyncio.to_thread(life.freeze)
        await self._a_while(FROZEN_SECONDS)
        await asyncio.to_thread(life.thaw)

    async def _at(self, moment: str, peer: Peer) -> str | None:
        """Have the process kill itself when the moment comes, and start it again."""
        told = peer.moments / moment
        told.touch()
        for _ in range(int(MOMENT_SECONDS / 0.1)):
            if not peer.life.is_running():
                break
            await asyncio.sleep(0.1)
        told.unlink(missing_ok=True)
        if not peer.life.is_running():
            await self._a_while(UP_AGAIN_SECONDS)
            await asyncio.to_thread(peer.life.start)
            return None
        return NOT_DONE

    async def _repeat(self) -> None:
        """Publish once more, shuffled, what was published before: late copies, old versions after new ones."""
        old = []
        for service in SERVICES:
            connection = await asyncpg.connect(**self._whole.database_server, database=service, timeout=20)
            try:
                query = "SELECT topic, envelope FROM outbox ORDER BY random() LIMIT $1"
                old += await connection.fetch(query, REPEATED_MOST // len(SERVICES))
            finally:
                await connection.close()
        self._random.shuffle(old)
        await self._publish([(row["topic"], row["envelope"].encode()) for row in old])

    async def _poison(self) -> None:
        bodies = (b"", b"{", b"\xff\xfe", b'{"specversion": "1.0"}', b"[" * 10_000)
        topic = self._random.choice([topic for topics in CONSUMED.values() for topic in topics])
        await self._publish([(topic, body) for body in bodies])
        for queue, topics in CONSUMED.items():
            self.poison[queue] += len(bodies) if topic in topics else 0

    async def _publish(self, messages: list[tuple[str, bytes]]) -> None:
        broker = self._whole.rabbitmq
        connection = await aio_pika.connect(broker.url_of(broker.user, broker.password, VHOST))
        async with connection:
            channel = await connection.channel(on_return_raises=True)
            exchange = await channel.get_exchange(EXCHANGE, ensure=False)
            for topic, body in messages:
                await exchange.publish(aio_pika.Message(body, delivery_mode=2), topic)

    async def _fill_the_brokers_disk(self) -> None:
        """The alarm of a full disk: publishers are blocked, consumers go on."""
        await asyncio.to_thread(self._whole.rabbitmq.ctl, "set_disk_free_limit", "100000000000000")
        await self._a_while(FROZEN_SECONDS)
        await asyncio.to_thread(self._whole.rabbitmq.ctl, "set_disk_free_limit", "50000000")

    async def _a_while(self, bounds: tuple[float, float]) -> None:
        await asyncio.sleep(self._random.uniform(*bounds))
