"""Whether all services agree: every copy with its owner's log, every owner with its own log, no message forgotten.

What a copy should hold is what its consumer makes of the log: the same consumer, on a database of the moment. What
is kept is read before the log, so that it can only be behind; what is behind for no known reason is looked at
again for some seconds, since it may be on its way. So it works while all services do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.envelope import Envelope
from medperf_contracts.events import EVERY_EVENT, Event
from services.kernel.db import Database
from services.kernel.dead_letter_actions import dropped_events
from services.kernel.inbox import Consumer, Delivery
from services.kernel.service import Definition, Thing
from services.kernel.tables import inbox_message

from .compare import Difference, Held, Kind, compared, differences
from .logs import Log, read_log, topics_of
from .messages import Messages, look_at_messages

PAGE = 500
SETTLE_SECONDS = 10.0
_LOOK_EVERY_SECONDS = 0.2
# A message that is tried again, or that a person decided about, accounts for what is missing.
ACCOUNTED_FOR = frozenset({"waiting", "failed", "not sent", "dropped"})


@dataclass(frozen=True)
class Compared:
    """What was compared with the owners' logs: a consumer's copy, or an owner's own things."""

    what: str
    service: str
    things: int
    differences: list[Difference]

    @property
    def unaccounted(self) -> list[Difference]:
        """Those that nothing mends by itself."""
        is_late = (Kind.MISSING, Kind.BEHIND)
        return [each for each in self.differences if each.kind not in is_late or each.reason not in ACCOUNTED_FOR]


@dataclass(frozen=True)
class Report:
    """All that was found."""

    copies: list[Compared] = field(default_factory=list)
    owners: list[Compared] = field(default_factory=list)
    messages: list[Messages] = field(default_factory=list)
    log_faults: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether there is nothing that a person must look at."""
        unaccounted = any(each.unaccounted for each in (*self.copies, *self.owners))
        return not unaccounted and not self.log_faults and not any(each.faults for each in self.messages)


async def verify(
    databases: Mapping[str, Database], definitions: Sequence[Definition], *, settle_seconds: float = SETTLE_SECONDS
) -> Report:
    """Compare everything. Changes nothing."""
    report = Report()
    deadline = time.monotonic() + settle_seconds
    for definition in definitions:
        database = databases[definition.name]
        for kind, thing in definition.things.items():
            report.owners.append(await _compare_owner(database, kind, thing, deadline))
        for consumer in definition.consumers:
            if consumer.rebuilds is not None:
                compared_copy = await _compare_copy(
                    databases, definition.name, consumer, consumer.rebuilds, deadline
                )
                report.copies.append(compared_copy)
    log = await read_log(databases, None)
    report.log_faults.extend(_faults_of(log))
    for database in databases.values():
        report.messages.append(await look_at_messages(database))
    return report


async def _compare_copy(
    databases: Mapping[str, Database], service: str, consumer: Consumer, table: Table, deadline: float
) -> Compared:
    database = databases[service]
    kept = await _copy(database, table)
    log = await read_log(databases, topics_of(consumer))
    said = await _as_kept(consumer, table, log)
    kind = consumer.events[0].KIND

    async def look_again(id: int) -> Held | None:  # noqa: A002
        async with database.read() as session:
            row = (await session.execute(select(table).where(table.c.id == id))).first()
        return None if row is None else _held(dict(row._mapping))

    found = differences(kept, said, kind=kind)
    reasons = await _reasons(database, consumer, log)
    found = [replace(each, reason=reasons(each)) for each in found]
    return Compared(consumer.name, service, len(said), await _settled(found, said, look_again, deadline))


async def _compare_owner(database: Database, kind: str, thing: type[Thing], deadline: float) -> Compared:
    kept: dict[int, Held] = {}
    last = 0
    identity: Any = thing.id
    while True:
        async with database.read() as session:
            rows = (
                await session.scalars(select(thing).where(identity > last).order_by(identity).limit(PAGE))
            ).all()
        kept |= {row.id: Held(row.version, row.facts()) for row in rows}
        if len(rows) < PAGE:
            break
        last = rows[-1].id
    log = await read_log({database.service: database}, [each.TOPIC for each in EVERY_EVENT if kind == each.KIND])
    said = {id: Held(envelope.aggregateversion, _facts(envelope)) for id, envelope in log.of_kind(kind)}  # noqa: A001

    async def look_again(id: int) -> Held | None:  # noqa: A002
        async with database.read() as session:
            row = await session.get(thing, id)
            return None if row is None else Held(row.version, row.facts())

    async with database.read() as session:
        given_up = await dropped_events(session, None)
    found = differences(kept, said, kind=kind)
    if given_up:  # the log lacks what could not be read and was given up: whose it was cannot be told
        found = [replace(each, reason="dropped") if each.kind is Kind.AHEAD else each for each in found]
    return Compared(kind, database.service, len(kept), await _settled(found, said, look_again, deadline))


async def _settled(
    found: list[Difference],
    said: Mapping[int, Held],
    look_again: Callable[[int], Awaitable[Held | None]],
    deadline: float,
) -> list[Difference]:
    """Give what is late for no known reason until the deadline to come; returns what then still differs."""
    settled = []
    for each in found:
        id = int(each.thing.rpartition("/")[2])  # noqa: A001
        difference: Difference | None = each
        while (
            difference is not None
            and difference.kind in (Kind.MISSING, Kind.BEHIND)
            and difference.reason not in ACCOUNTED_FOR
        ):
            now = await look_again(id)
            if now is not None and now.version > said[id].version:
                difference = None  # it went on: what the log says by now was not read
            else:
                latest = compared(each.thing, now, said[id])
                difference = None if latest is None else replace(latest, reason=each.reason)
            if difference is not None and time.monotonic() > deadline:
                break
            await asyncio.sleep(_LOOK_EVERY_SECONDS if difference is not None else 0)
        if difference is not None:
            settled.append(difference)
    return settled


async def _copy(database: Database, table: Table) -> dict[int, Held]:
    kept: dict[int, Held] = {}
    last = 0
    while True:
        async with database.read() as session:
            query = select(table).where(table.c.id > last).order_by(table.c.id).limit(PAGE)
            rows = (await session.execute(query)).mappings().all()
        kept |= {row["id"]: _held(dict(row)) for row in rows}
        if len(rows) < PAGE:
            return kept
        last = rows[-1]["id"]


def _held(row: dict[str, Any]) -> Held:
    return Held(row["version"], {name: value for name, value in row.items() if name != "version"})


async def _as_kept(consumer: Consumer, table: Table, log: Log) -> dict[int, Held]:
    """What the consumer makes of the log, on a database of its own."""
    async with _scratch(consumer, table) as scratch:
        async with scratch.write() as session:
            for envelope in log.newest.values():
                await _apply(session, consumer, envelope)
        return await _copy(scratch, table)


async def _apply(session: AsyncSession, consumer: Consumer, envelope: Envelope) -> None:
    try:
        event = consumer.event_class(envelope.type).model_validate(envelope.data)
    except ValidationError:
        return  # a fault of the log
    delivery = Delivery(str(envelope.id), envelope.type, envelope.aggregateversion, envelope.time)
    await consumer.effect(session, event, delivery)


@asynccontextmanager
async def _scratch(consumer: Consumer, table: Table) -> AsyncIterator[Database]:
    with TemporaryDirectory(prefix="medperf-verify-") as folder:
        scratch = Database(f"sqlite+aiosqlite:///{Path(folder) / 'copy.db'}", service=consumer.name)
        try:
            async with scratch.engine.begin() as connection:
                await connection.run_sync(table.create)
            yield scratch
        finally:
            await scratch.close()


async def _reasons(database: Database, consumer: Consumer, log: Log) -> Callable[[Difference], str | None]:
    """Why the consumer does not have an event, as far as a message or an operator's action says so."""
    async with database.read() as session:
        rows = await session.execute(
            select(inbox_message.c.event_id, inbox_message.c.state).where(
                inbox_message.c.consumer == consumer.name
            )
        )
        states = {row.event_id: str(row.state) for row in rows}
        dropped = await dropped_events(session, consumer.name)

    def reason(difference: Difference) -> str | None:
        newest = log.versions.get(difference.thing, {}).get(difference.owners_version or 0, "")
        if newest in states:
            return states[newest]
        if newest in dropped:
            return "dropped"
        return "not sent" if newest in log.not_left else None

    return reason


_CLASSES: Mapping[str, type[Event]] = {event.TOPIC: event for event in EVERY_EVENT}


def _facts(envelope: Envelope) -> dict[str, Any]:
    try:
        return dict(_CLASSES[envelope.type].model_validate(envelope.data))
    except ValidationError:
        return {}


def _faults_of(log: Log) -> list[str]:
    """What is wrong with the logs themselves."""
    faults = [f"event {event_id} of {service} cannot be read" for service, event_id in log.unreadable]
    faults += [f"event {event_id} tells of a version that another event has too" for event_id in log.twice]
    faults += [
        f"what event {envelope.id} tells of {thing} cannot be read"
        for thing, envelope in log.newest.items()
        if not _facts(envelope)
    ]
    lacking = [
        f"no event tells of version {version} of {thing}"
        for thing, versions in log.versions.items()
        for version in range(1, max(versions))
        if version not in versions
    ]
    # What was given up since it could not be read does not say of what it told.
    return faults + (lacking if len(lacking) > log.given_up else [])
