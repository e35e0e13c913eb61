"""The relay: takes what waits in the outbox to the bus.

It leases waiting rows in a short transaction, publishes with confirms, and marks in a second one. Killed between
the two, the lease runs out and the event is published again: at least once, and the inbox makes it once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sqlalchemy import func, select, update

from medperf_contracts.envelope import Envelope

from .bus import Bus
from .clock import database_millis
from .db import Database
from .log import logger
from .tables import outbox

BATCH = 100
LEASE_MILLIS = 30_000
PUBLISH_TIMEOUT_SECONDS = 20.0  # shorter than the lease: another relay must not have it while we still wait
POLL_SECONDS = 1.0
RETRY_MILLIS = (50, 200, 1_000, 5_000)


class Relay:
    """Publishes one service's outbox."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus

    async def run(self) -> None:
        """Publish until cancelled: at once after a commit, and by a slow poll for other processes' commits."""
        while True:
            self._database.outbox_filled.clear()
            try:
                busy = await self.publish_waiting()
            except Exception as error:  # noqa: BLE001 (the rows wait; the relay must outlive its database's absence)
                logger.error("relay_failed", service=self._database.service, cause=repr(error))
                busy = False
            if not busy:
                await self._wait()

    async def publish_waiting(self) -> bool:
        """Publish one batch; True if there was one."""
        leased = await self._lease()
        if not leased:
            return False
        async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
            confirmed = await self._bus.publish([envelope for _, envelope in leased])
        await self._mark(
            sent=[position for position, envelope in leased if envelope.id in confirmed],
            not_sent=[position for position, envelope in leased if envelope.id not in confirmed],
        )
        return True

    async def waiting(self) -> int:
        """How many events have not been taken by the bus yet."""
        async with self._database.read() as session:
            query = select(func.count()).select_from(outbox).where(outbox.c.sent_millis.is_(None))
            return (await session.execute(query)).scalar_one()

    async def _wait(self) -> None:
        seconds = await self._poll_seconds()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._database.outbox_filled.wait()

    async def _poll_seconds(self) -> float:
        """Until the next row may be tried, at most `POLL_SECONDS`."""
        try:
            async with self._database.read() as session:
                query = select(func.min(outbox.c.not_before_millis) - database_millis())
                soonest = (await session.execute(query.where(outbox.c.sent_millis.is_(None)))).scalar_one()
        except Exception:  # noqa: BLE001 (the database is away: logged by the pass that failed)
            return POLL_SECONDS
        return POLL_SECONDS if soonest is None else min(POLL_SECONDS, max(0.01, soonest / 1000))

    async def _lease(self) -> list[tuple[int, Envelope]]:
        async with self._database.write() as session:
            rows = (
                await session.execute(
                    select(outbox.c.position, outbox.c.envelope)
                    .where(outbox.c.sent_millis.is_(None), outbox.c.not_before_millis <= database_millis())
                    .order_by(outbox.c.position)
                    .limit(BATCH)
                    .with_for_update(skip_locked=True)
                )
            ).all()
            if rows:
                await session.execute(
                    update(outbox)
                    .where(outbox.c.position.in_([row.position for row in rows]))
                    .values(not_before_millis=database_millis() + LEASE_MILLIS, attempts=outbox.c.attempts + 1)
                )
        return [(row.position, Envelope.model_validate_json(row.envelope)) for row in rows]

    async def _mark(self, *, sent: list[int], not_sent: list[int]) -> None:
        async with self._database.write() as session:
            if sent:
                await session.execute(
                    update(outbox).where(outbox.c.position.in_(sent)).values(sent_millis=database_millis())
                )
            for position in not_sent:
                attempts = (
                    await session.execute(select(outbox.c.attempts).where(outbox.c.position == position))
                ).scalar_one()
                delay = RETRY_MILLIS[min(attempts, len(RETRY_MILLIS)) - 1]
                await session.execute(
                    update(outbox)
                    .where(outbox.c.position == position)
                    .values(not_before_millis=database_millis() + delay)
                )
