"""A real broker for the tests of the bus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from bus.broker import (
    PASSWORDS,
    Broker,
)
from servers.rabbitmq import RabbitmqServer, rabbitmq
from services.composition import DEFINITIONS
from services.kernel import amqp, topology

T = TypeVar("T")


@pytest.fixture(scope="session")
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
