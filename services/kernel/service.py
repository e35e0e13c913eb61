"""One service in one process: its database, its gate, its relay and its inbox, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import APIRouter
from joserfc.jwk import KeySet
from sqlalchemy import MetaData, Table

from medperf_contracts.events import Event

from .auth import Gate
from .bus import Bus
from .db import Database
from .idempotency import KeysAtWork
from .inbox import Consumer, Inbox
from .relay import Relay
from .seen import SeenGate
from .settings import Settings


class Thing(Protocol):
    """What others keep copies of: `facts` is what its events carry of it."""

    id: int
    version: int

    def facts(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Definition:
    """What makes a service this one and not another."""

    name: str
    title: str
    metadata: MetaData
    routers: Sequence[APIRouter]
    publishes: Sequence[type[Event]] = ()
    consumers: Sequence[Consumer] = ()
    things: Mapping[str, type[Thing]] = field(default_factory=dict)
    """What it owns and tells of in events, by kind: each, as mapped to its table."""
    first_rows: Sequence[Table] = ()
    """The tables in which a new, empty database has rows already."""
    copies: Mapping[str, Table] = field(default_factory=dict)
    """The tables in which it keeps other services' things, by kind."""
    preparations: Mapping[str, Callable[[Any], Awaitable[Any]]] = field(default_factory=dict)
    """By endpoint: slow work on its document, done before its transaction is opened, for `PreparedParam`."""


class Service:
    """A service at work."""

    def __init__(
        self, definition: Definition, settings: Settings, bus: Bus, public_keys: Callable[[], KeySet]
    ) -> None:
        self.definition = definition
        self.settings = settings
        self.database = Database(settings.database_url, service=definition.name)
        self.gate = Gate(public_keys, operator_token_hash=settings.operator_token_hash)
        self.keys_at_work = KeysAtWork()
        self.seen = SeenGate(self.database, definition.copies)
        self.inbox = Inbox(self.database, definition.consumers)
        self.relay = Relay(self.database, bus)
        bus.bind(self.inbox.queues())

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Relay and retry for as long as the block runs."""
        if self.settings.is_embedded:
            # The store is locked: whoever held a lease is dead, and a person waits for what it had.
            await self.relay.forget_leases()
        async with AsyncExitStack() as stack:
            loops = {"relay": self.relay.run(), "inbox": self.inbox.run(), "outbox": self.database.listen()}
            for name, loop in loops.items():
                task = asyncio.create_task(loop, name=f"{self.definition.name}.{name}")
                stack.push_async_callback(_end, task)
            yield


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
