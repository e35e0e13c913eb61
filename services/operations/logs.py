"""The publishers' logs: their outboxes, in which every event that was ever recorded stays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select

from medperf_contracts.envelope import Envelope
from services.kernel.db import Database
from services.kernel.dead_letter_actions import dropped_events
from services.kernel.inbox import Consumer
from services.kernel.tables import outbox

PAGE = 500
# What a database takes as one statement's parameters is bounded.
IDS_AT_ONCE = 500


@dataclass
class Log:
    """What the publishers recorded under some topics, but for events that were given up before they left."""

    newest: dict[str, Envelope] = field(default_factory=dict)
    """Of each thing, such as `benchmark/7`, the event of its highest version."""
    versions: dict[str, dict[int, str]] = field(default_factory=dict)
    """Of each thing, by version, the event's ID."""
    event_ids: set[str] = field(default_factory=set)
    not_left: set[str] = field(default_factory=set)
    """Events that the bus has not taken yet."""
    twice: list[str] = field(default_factory=list)
    """Events whose thing has another event of the same version."""
    given_up: int = 0
    """How many events were given up before they left."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Service and event ID of what cannot be read."""

    def add(self, row: Any, *, service: str, skip: Collection[str]) -> None:
        """Take one row in; a row that is in already changes nothing. What is to be skipped counts as read only."""
        if row.event_id in self.event_ids:
            return
        try:
            envelope = Envelope.model_validate_json(row.envelope)
        except ValidationError:
            self.unreadable.append((service, row.event_id))
            return
        self.event_ids.add(row.event_id)
        if row.sent_millis is None:
            self.not_left.add(row.event_id)
        versions = self.versions.setdefault(envelope.subject, {})
        if versions.setdefault(envelope.aggregateversion, row.event_id) != row.event_id:
            self.twice.append(row.event_id)
        newest = self.newest.get(envelope.subject)
        is_newer = newest is None or newest.aggregateversion < envelope.aggregateversion
        if is_newer and row.event_id not in skip:
            self.newest[envelope.subject] = envelope

    def of_kind(self, kind: str) -> Iterator[tuple[int, Envelope]]:
        """The ID and the newest event of each thing of a kind."""
        for subject, envelope in self.newest.items():
            if subject.startswith(f"{kind}/"):
                yield int(subject.rpartition("/")[2]), envelope


async def read_log(
    databases: Mapping[str, Database], topics: Sequence[str] | None, *, skip: Collection[str] = ()
) -> Log:
    """Read it all, in pages that hold up nobody; of topics None, every one."""
    log = Log()
    for database in databases.values():
        await _read(database, topics, log, skip)
    return log


async def read_events(
    databases: Mapping[str, Database], event_ids: Collection[str], log: Log, *, skip: Collection[str]
) -> None:
    """Take in these events, from whichever publisher has them."""
    wanted = sorted(event_ids)
    for database in databases.values():
        for first in range(0, len(wanted), IDS_AT_ONCE):
            query = select(outbox.c.event_id, outbox.c.envelope, outbox.c.sent_millis).where(
                outbox.c.event_id.in_(wanted[first : first + IDS_AT_ONCE])
            )
            async with database.read() as session:
                for row in await session.execute(query):
                    log.add(row, service=database.service, skip=skip)


def topics_of(consumer: Consumer) -> list[str]:
    """What the consumer is told."""
    return [event.TOPIC for event in consumer.events]


async def _read(database: Database, topics: Sequence[str] | None, log: Log, skip: Collection[str]) -> None:
    async with database.read() as session:
        given_up = await dropped_events(session, None)
    position = 0
    while True:
        query = select(outbox.c.event_id, outbox.c.envelope, outbox.c.sent_millis, outbox.c.position)
        query = query.where(outbox.c.position > position).order_by(outbox.c.position).limit(PAGE)
        if topics is not None:
            query = query.where(outbox.c.topic.in_(topics))
        async with database.read() as session:
            rows = (await session.execute(query)).all()
        for row in rows:
            if row.event_id in given_up:
                log.given_up += 1
            else:
                log.add(row, service=database.service, skip=skip)
        if len(rows) < PAGE:
            return
        position = rows[-1].position
