"""A service's loops end when they are told to, at whatever point of their work that reaches them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import text

from service.peer import Peer
from services.associations.app import DEFINITION
from services.kernel.service import Definition

STOP_SECONDS = 10


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    return start(DEFINITION)


@pytest.mark.parametrize("steps", range(8))
def test_whoever_is_stopped_while_taking_its_turn_to_write_does_not_go_on(peer: Peer, steps: int) -> None:
    """Of `steps` of the event loop, one is that at which the turn is given and not yet taken."""

    async def stop_after_steps() -> bool:
        went_on = asyncio.Event()

        async def write_then_wait() -> None:
            async with peer.service.database.write() as session:
                await session.execute(text("SELECT 1"))
            went_on.set()
            await asyncio.sleep(3600)

        writing = asyncio.create_task(write_then_wait())
        for _ in range(steps):
            await asyncio.sleep(0)
        writing.cancel()
        done, _ = await asyncio.wait([writing], timeout=STOP_SECONDS)
        writing.cancel()
        return bool(done) and writing.cancelled() and not went_on.is_set()

    assert peer.run(stop_after_steps())


@pytest.mark.parametrize("steps", range(0, 40, 4))
def test_a_service_stops_right_after_its_start(peer: Peer, steps: int) -> None:
    async def begin_and_stop() -> None:
        async with asyncio.timeout(STOP_SECONDS), peer.service.working():
            for _ in range(steps):
                await asyncio.sleep(0)

    peer.run(begin_and_stop())
    assert peer.call("GET", "/api/v1/associations", by=1).status_code == 200
