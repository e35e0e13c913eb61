"""A consumer's copy made anew from the publishers' logs, while all services work.

The logs are read first, so that no transaction waits for another service's database. Then one transaction, with no
delivery at the same time, replaces the copy and the claims: readers see the old copy or the new one. A delivery is
before it or after it. One that came before it, of an event that was recorded after the logs were read, is known by
its claim: that event is fetched, and the replacement is tried again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import Table, delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.kernel.clock import database_millis
from services.kernel.db import Database
from services.kernel.dead_letter_actions import dropped_events
from services.kernel.inbox import Consumer, handle_once
from services.kernel.service import Definition
from services.kernel.tables import inbox_claim, inbox_message
from services.operator_error import OperatorError

from .logs import IDS_AT_ONCE, Log, read_events, read_log, topics_of

# Each try needs the events of some milliseconds only; a consumer that is never caught up with is another fault.
TRIES_MOST = 50


@dataclass(frozen=True)
class Rebuilt:
    """How many things the copy held, and holds now; of how many events; how many stay given up."""

    before: int
    after: int
    events: int
    dropped: int


@dataclass(frozen=True)
class Reading:
    """The logs as they were at a moment of the consumer's own database."""

    log: Log
    since_millis: int
    """A delivery from then on may be of an event that is not in it."""
    dropped: frozenset[str]


class LogWentOn(Exception):
    """Deliveries came since the logs were read; nothing was changed."""

    def __init__(self, event_ids: Sequence[str]) -> None:
        super().__init__(f"{len(event_ids)} events")
        self.event_ids = event_ids


def rebuildable(definitions: Sequence[Definition], name: str) -> tuple[str, Consumer]:
    """The service and the consumer of that name; `OperatorError` where there is none that logs can give back."""
    consumers = {
        consumer.name: (definition.name, consumer)
        for definition in definitions
        for consumer in definition.consumers
    }
    can = ", ".join(sorted(each for each, (_, consumer) in consumers.items() if consumer.rebuilds is not None))
    if name not in consumers:
        raise OperatorError(f"There is no consumer {name}.", hint=f"These can be rebuilt: {can}.")
    service, consumer = consumers[name]
    if consumer.rebuilds is None:
        raise OperatorError(
            f"{name} cannot be rebuilt: what it did, it did outside of a copy, and would do again.",
            hint=f"These can be rebuilt: {can}.",
        )
    return service, consumer


async def count_copies(database: Database, consumer: Consumer) -> int:
    """How many things the copy holds."""
    async with database.read() as session:
        return await _count(session, _copy_of(consumer))


async def rebuild(databases: Mapping[str, Database], service: str, consumer: Consumer) -> Rebuilt:
    """Replace the copy by what the logs say. All or nothing; what was given up stays so."""
    reading = await read(databases, service, consumer)
    for _ in range(TRIES_MOST):
        try:
            return await replace(databases[service], consumer, reading)
        except LogWentOn as gone_on:
            known = len(reading.log.event_ids)
            await read_events(databases, gone_on.event_ids, reading.log, skip=reading.dropped)
            if len(reading.log.event_ids) == known:
                raise OperatorError(
                    f"{consumer.name} just handled events that are in no service's log, such as "
                    f"{gone_on.event_ids[0]}; nothing was changed.",
                    hint="Look where it came from: medperf-server dead-letters show EVENT",
                ) from None
    raise OperatorError(
        f"{consumer.name} is told of changes faster than it can be rebuilt; nothing was changed.",
        hint="Try again when less is going on, or stop the worker of that service for the time.",
    )


async def read(databases: Mapping[str, Database], service: str, consumer: Consumer) -> Reading:
    """Read what the consumer would have to know; `OperatorError` where a part of the logs cannot be read."""
    async with databases[service].read() as session:
        since = (await session.execute(select(database_millis()))).scalar_one()
        dropped = frozenset(await dropped_events(session, consumer.name))
    log = await read_log(databases, topics_of(consumer), skip=dropped)
    if log.unreadable:
        where, event_id = log.unreadable[0]
        raise OperatorError(
            f"{len(log.unreadable)} events in the logs cannot be read, such as {event_id} of {where}; "
            "nothing was changed.",
            hint=f"Look at it: medperf-server dead-letters show {event_id}. Once dropped, it is left out.",
        )
    return Reading(log, since, dropped)


async def replace(database: Database, consumer: Consumer, reading: Reading) -> Rebuilt:
    """Replace copy and claims in one transaction; `LogWentOn` where the reading is too old for that."""
    table = _copy_of(consumer)
    async with database.write(in_background=True) as session:
        await _keep_deliveries_out(session, table)
        await _check_current(session, consumer, reading)
        before = await _count(session, table)
        await session.execute(delete(table))
        await session.execute(delete(inbox_claim).where(inbox_claim.c.consumer == consumer.name))
        await _apply(session, consumer, reading)
        await _forget_messages(session, consumer, reading)
        after = await _count(session, table)
    handled = reading.log.event_ids - reading.dropped
    return Rebuilt(before, after, len(handled), len(reading.dropped))


def _copy_of(consumer: Consumer) -> Table:
    if consumer.rebuilds is None:
        raise ValueError(f"{consumer.name} keeps no copy")
    return consumer.rebuilds


async def _count(session: AsyncSession, table: Table) -> int:
    return (await session.execute(select(func.count()).select_from(table))).scalar_one()


async def _keep_deliveries_out(session: AsyncSession, table: Table) -> None:
    """Every delivery claims first: those under way end before, others wait. SQLite has one writer."""
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text(f"LOCK TABLE {inbox_claim.name}, {table.name} IN SHARE ROW EXCLUSIVE MODE"))


async def _check_current(session: AsyncSession, consumer: Consumer, reading: Reading) -> None:
    if await dropped_events(session, consumer.name) != reading.dropped:
        raise OperatorError(
            f"A message of {consumer.name} was just given up; nothing was changed.", hint="Run it again."
        )
    claims = await session.execute(
        select(inbox_claim.c.event_id).where(
            inbox_claim.c.consumer == consumer.name, inbox_claim.c.claimed_millis >= reading.since_millis
        )
    )
    unknown = [event_id for event_id in claims.scalars() if event_id not in reading.log.event_ids]
    if unknown:
        raise LogWentOn(unknown)


async def _apply(session: AsyncSession, consumer: Consumer, reading: Reading) -> None:
    """Each thing's last event has its effect; the earlier ones, which could change nothing, are claimed only."""
    newest = sorted(
        reading.log.newest.values(), key=lambda envelope: (envelope.subject, envelope.aggregateversion)
    )
    for envelope in newest:
        try:
            await handle_once(session, consumer, envelope)
        except ValidationError:
            raise OperatorError(
                f"What event {envelope.id} tells of {envelope.subject} cannot be read; nothing was changed.",
                hint=f"Look at it: medperf-server dead-letters show {envelope.id}",
            ) from None
    others = sorted(reading.log.event_ids - {str(envelope.id) for envelope in newest})
    for first in range(0, len(others), IDS_AT_ONCE):
        await session.execute(
            insert(inbox_claim).values(claimed_millis=database_millis()),
            [
                {"consumer": consumer.name, "event_id": event_id}
                for event_id in others[first : first + IDS_AT_ONCE]
            ],
        )


async def _forget_messages(session: AsyncSession, consumer: Consumer, reading: Reading) -> None:
    """What was stuck has had its effect now; what no log has stays as it is."""
    is_its = inbox_message.c.consumer == consumer.name
    stuck = (await session.execute(select(inbox_message.c.event_id).where(is_its))).scalars().all()
    for event_id in reading.log.event_ids.intersection(stuck):
        await session.execute(delete(inbox_message).where(is_its, inbox_message.c.event_id == event_id))
