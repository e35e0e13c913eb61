"""What waits in a service's database, told when it is asked for.

The web processes tell it too, so that it is seen while no worker is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, select

from . import metrics
from .clock import database_millis
from .db import Database
from .log import logger
from .tables import inbox_message, outbox

# Well within the 10 s that Prometheus gives a scrape.
ASK_SECONDS = 2.0
# An outbox that grew for days must not make each scrape read all of it.
COUNTED_MOST = 10_000


@dataclass(frozen=True)
class _Reading:
    """Rows of (state, number, age of the oldest in milliseconds), and of (consumer, state, number)."""

    outgoing: Sequence[Any]
    incoming: Sequence[Any]


class Backlog:
    """A service's gauges of what has not been published, or has not had its effect."""

    def __init__(self, database: Database, consumers: Sequence[str]) -> None:
        self._database = database
        self._consumers = consumers
        self._asking: asyncio.Task[_Reading] | None = None

    async def refresh(self) -> None:
        """Ask the database anew, for at most `ASK_SECONDS`. Where it does not answer, nothing old is shown."""
        # One question at a time: scrapes of a database that hangs do not pile up, nor take the pool's connections.
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name=f"{self._database.service}.backlog")
        asking = self._asking
        await asyncio.wait([asking], timeout=ASK_SECONDS)
        error = asking.exception() if asking.done() else TimeoutError(f"no answer within {ASK_SECONDS:g} s")
        if error is None:
            self._show(asking.result())
        else:
            logger.warning("backlog_unknown", service=self._database.service, cause=repr(error))
            self._show_nothing()

    async def _ask(self) -> _Reading:
        state = case(
            (outbox.c.buried_millis.is_not(None), "dead"), (outbox.c.cause.is_not(None), "failed"), else_="waiting"
        )
        unsent = (
            select(state.label("state"), outbox.c.recorded_millis)
            .where(outbox.c.sent_millis.is_(None))
            .order_by(outbox.c.position)
            .limit(COUNTED_MOST)
            .subquery()
        )
        unhandled = select(inbox_message.c.consumer, inbox_message.c.state).limit(COUNTED_MOST).subquery()
        oldest_age = database_millis() - func.min(unsent.c.recorded_millis)
        async with self._database.read() as session:
            outgoing = await session.execute(
                select(unsent.c.state, func.count(), oldest_age).group_by(unsent.c.state)
            )
            incoming = await session.execute(
                select(unhandled.c.consumer, unhandled.c.state, func.count()).group_by(
                    unhandled.c.consumer, unhandled.c.state
                )
            )
            return _Reading(outgoing.all(), incoming.all())

    def _show(self, reading: _Reading) -> None:
        service = self._database.service
        self._show_nothing()
        metrics.DATABASE_UP.labels(service).set(1)
        outgoing = {state: count for state, count, _ in reading.outgoing}
        ages = [age for state, _, age in reading.outgoing if state != "dead"]
        for state in metrics.WAITING_STATES:
            metrics.OUTBOX_EVENTS.labels(service, state).set(outgoing.get(state, 0))
        metrics.OUTBOX_OLDEST_SECONDS.labels(service).set(max(0, *ages) / 1000 if ages else 0)
        metrics.DEAD_LETTERS.labels(service, "out", "").set(outgoing.get("dead", 0))
        incoming = {(consumer, state): count for consumer, state, count in reading.incoming}
        # Also of a consumer that was renamed: its messages are still there.
        for consumer in {*self._consumers, *(consumer for consumer, _ in incoming)}:
            for state in metrics.WAITING_STATES:
                metrics.INBOX_MESSAGES.labels(consumer, state).set(incoming.get((consumer, state), 0))
            metrics.DEAD_LETTERS.labels(service, "in", consumer).set(incoming.get((consumer, "dead"), 0))

    def _show_nothing(self) -> None:
        metrics.DATABASE_UP.labels(self._database.service).set(0)
        for gauge in (
            metrics.OUTBOX_EVENTS,
            metrics.OUTBOX_OLDEST_SECONDS,
            metrics.INBOX_MESSAGES,
            metrics.DEAD_LETTERS,
        ):
            gauge.clear()
