"""The relay: takes what waits in the outbox to the bus.

It leases waiting rows in a short transaction, publishes with confirms, and marks in a second one. Killed between
the two, the lease runs out and the event is published again: at least once, and the inbox makes it once.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Row, func, select, update

from medperf_contracts.envelope import Envelope

from . import metrics, tracing
from .bus import Bus
from .clock import database_millis
from .db import Database
from .dead_letters import CAUSE_CHARACTERS_MOST, log_dead, subject_of, unreadable_because
from .log import logger
from .tables import outbox

BATCH = 100
LEASE_MILLIS = 30_000
PUBLISH_TIMEOUT_SECONDS = 20.0  # shorter than the lease: another relay must not have it while we still wait
POLL_SECONDS = 1.0
RETRY_MILLIS = (50, 200, 1_000, 5_000)

_WAITS = (outbox.c.sent_millis.is_(None), outbox.c.buried_millis.is_(None))


class Relay:
    """Publishes one service's outbox."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self._leased: list[int] = []
        self.last_pass = time.monotonic()
        # Known from the start: a counter that begins with its first failure never shows that one as a rise.
        self._batches = {
            outcome: metrics.RELAY_BATCHES.labels(database.service, outcome) for outcome in metrics.BATCH_OUTCOMES
        }
        self._events = {
            outcome: metrics.RELAY_EVENTS.labels(database.service, outcome) for outcome in metrics.EVENT_OUTCOMES
        }
        self._confirm_seconds = metrics.RELAY_CONFIRM_SECONDS.labels(database.service)

    async def run(self) -> None:
        """Publish until cancelled: at once after a commit, and by a slow poll for other processes' commits."""
        while True:
            self._database.outbox_filled.clear()
            self.last_pass = time.monotonic()
            try:
                busy = await self.publish_waiting()
            except Exception as error:  # noqa: BLE001 (the rows wait; the relay must outlive its database's absence)
                logger.error("relay_failed", service=self._database.service, cause=repr(error))
                busy = False
            if not busy:
                await self._wait()

    async def forget_leases(self) -> None:
        """Free what a relay that was killed had leased; only where no other process can have the database."""
        async with self._database.write() as session:
            await session.execute(update(outbox).where(outbox.c.sent_millis.is_(None)).values(not_before_millis=0))

    async def publish_waiting(self) -> bool:
        """Publish one batch; True if there was one. What was leased is free again where this is cancelled."""
        self._leased = []
        try:
            leased = await self._lease()
            if leased:
                confirmed, cause = await self._observed([envelope for _, envelope in leased])
                await self._mark(
                    sent=[position for position, envelope in leased if envelope.id in confirmed],
                    not_sent=[position for position, envelope in leased if envelope.id not in confirmed],
                    cause=cause,
                )
            return bool(leased)
        except asyncio.CancelledError:
            with suppress(Exception):  # the lease then runs out by itself
                await self._release()
            raise

    async def waiting(self) -> int:
        """How many events the bus has not taken yet, but for those that cannot be read."""
        async with self._database.read() as session:
            query = select(func.count()).select_from(outbox).where(*_WAITS)
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
                soonest = (await session.execute(query.where(*_WAITS))).scalar_one()
        except Exception:  # noqa: BLE001 (the database is away: logged by the pass that failed)
            return POLL_SECONDS
        return POLL_SECONDS if soonest is None else min(POLL_SECONDS, max(0.01, soonest / 1000))

    async def _observed(self, envelopes: list[Envelope]) -> tuple[set[UUID], str]:
        """Publish, and tell the metrics and the events' traces what the bus took."""
        spans = [(envelope.id, tracing.publishing(envelope)) for envelope in envelopes]
        began = time.monotonic()
        confirmed: set[UUID] = set()
        try:
            confirmed, cause = await self._publish(envelopes)
        finally:
            for event_id, span in spans:
                if event_id not in confirmed:
                    tracing.fail(span, "not_confirmed")
                span.end()
        self._confirm_seconds.observe(time.monotonic() - began)
        failed = len(envelopes) - len(confirmed)
        self._events["published"].inc(len(confirmed))
        self._events["failed"].inc(failed)
        self._batches["published" if not failed else "partly" if confirmed else "failed"].inc()
        return confirmed, cause

    async def _publish(self, envelopes: list[Envelope]) -> tuple[set[UUID], str]:
        """What the bus took, and why it did not take the rest."""
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
                return await self._bus.publish(envelopes), "not every queue that gets it has taken it"
        except TimeoutError:
            cause = f"the bus did not answer within {PUBLISH_TIMEOUT_SECONDS:g} seconds"
        except Exception as error:  # noqa: BLE001 (whatever it is, it is written down, and the rows are tried again)
            cause = f"{type(error).__name__}: {error}"[:CAUSE_CHARACTERS_MOST]
        logger.error("publish_failed", service=self._database.service, cause=cause)
        return set(), cause

    async def _lease(self) -> list[tuple[int, Envelope]]:
        readable: list[tuple[int, Envelope]] = []
        unreadable: list[tuple[Row[Any], str]] = []
        async with self._database.write(in_background=True) as session:
            rows = (
                await session.execute(
                    select(outbox)
                    .where(*_WAITS, outbox.c.not_before_millis <= database_millis())
                    .order_by(outbox.c.position)
                    .limit(BATCH)
                    .with_for_update(skip_locked=True)
                )
            ).all()
            for row in rows:
                try:
                    readable.append((row.position, Envelope.model_validate_json(row.envelope)))
                except ValidationError as error:
                    unreadable.append((row, unreadable_because(error)))
            self._leased = [position for position, _ in readable]
            if readable:
                await session.execute(
                    update(outbox)
                    .where(outbox.c.position.in_(self._leased))
                    .values(not_before_millis=database_millis() + LEASE_MILLIS, attempts=outbox.c.attempts + 1)
                )
            for row, cause in unreadable:
                await session.execute(
                    update(outbox)
                    .where(outbox.c.position == row.position)
                    .values(buried_millis=database_millis(), cause=cause)
                )
        for row, cause in unreadable:
            log_dead(
                self._database.service,
                consumer=None,
                topic=row.topic,
                subject=subject_of(row.envelope),
                event_id=row.event_id,
                cause=cause,
            )
        return readable

    async def _release(self) -> None:
        async with self._database.write(in_background=True) as session:
            await session.execute(
                update(outbox)
                .where(outbox.c.position.in_(self._leased), outbox.c.sent_millis.is_(None))
                .values(not_before_millis=0)
            )

    async def _mark(self, *, sent: list[int], not_sent: list[int], cause: str) -> None:
        async with self._database.write(in_background=True) as session:
            if sent:
                await session.execute(
                    update(outbox)
                    .where(outbox.c.position.in_(sent))
                    .values(sent_millis=database_millis(), cause=None)
                )
            for position in not_sent:
                attempts = (
                    await session.execute(select(outbox.c.attempts).where(outbox.c.position == position))
                ).scalar_one()
                delay = RETRY_MILLIS[min(attempts, len(RETRY_MILLIS)) - 1]
                await session.execute(
                    update(outbox)
                    .where(outbox.c.position == position)
                    .values(not_before_millis=database_millis() + delay, cause=cause)
                )
