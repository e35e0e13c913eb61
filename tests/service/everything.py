"""All services' databases with content, of either kind, as an operator's command finds them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Table, select, text

from contract.whole import Whole
from medperf_contracts.envelope import Envelope
from services.composition import DEFINITIONS
from services.kernel import migrate
from services.kernel.db import Database
from services.kernel.inbox import Consumer, Inbox
from services.kernel.tables import inbox_claim, outbox
from services.operations import archive, transfer

T = TypeVar("T")
CONSUMERS: Mapping[str, tuple[str, Consumer]] = {
    consumer.name: (definition.name, consumer) for definition in DEFINITIONS for consumer in definition.consumers
}
REBUILT = {name: consumer.rebuilds for name, (_, consumer) in CONSUMERS.items() if consumer.rebuilds is not None}


class Everything:
    """Every service's database."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._runner = asyncio.Runner()
        self.databases = {name: Database(url, service=name) for name, url in urls.items()}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        for database in self.databases.values():
            self.run(database.close())
        self._runner.close()

    def migrate(self) -> None:
        from services.accounts import commands

        async def go() -> None:
            for database in self.databases.values():
                await migrate.upgrade(database)
            async with self.databases["accounts"].write() as session:
                await commands.create_store(session)
            for database in self.databases.values():
                await database.close()

        self.run(go())

    def fill(self, file: Path) -> list[str]:
        """Import an archive."""
        with archive.opened(file) as brought:
            return self.run(transfer.import_databases(self.databases, DEFINITIONS, brought))

    def execute(self, service: str, statement: str, **values: Any) -> None:
        async def go() -> None:
            async with self.databases[service].write() as session:
                await session.execute(text(statement), values)

        self.run(go())

    def rows(self, service: str, table: Table) -> list[tuple[Any, ...]]:
        async def go() -> list[tuple[Any, ...]]:
            async with self.databases[service].read() as session:
                query = select(table).order_by(*table.primary_key.columns)
                return [tuple(row) for row in await session.execute(query)]

        return self.run(go())

    def copy_of(self, consumer: str) -> list[tuple[Any, ...]]:
        return self.rows(CONSUMERS[consumer][0], REBUILT[consumer])

    def claims_of(self, consumer: str) -> set[str]:
        rows = self.rows(CONSUMERS[consumer][0], inbox_claim)
        return {event_id for name, event_id, _ in rows if name == consumer}

    def newest(self, publisher: str, subject: str) -> Envelope:
        """The last event that a service recorded of a thing."""

        async def go() -> list[str]:
            async with self.databases[publisher].read() as session:
                return list(
                    (await session.execute(select(outbox.c.envelope).order_by(outbox.c.position))).scalars()
                )

        envelopes = [Envelope.model_validate_json(each) for each in self.run(go())]
        return [each for each in envelopes if each.subject == subject][-1]

    def record(self, publisher: str, envelope: Envelope, *, is_sent: bool = True) -> None:
        """Put an event in a service's log."""
        columns = "event_id, topic, envelope, recorded_millis, attempts, not_before_millis, sent_millis"
        self.execute(
            publisher,
            f"INSERT INTO outbox ({columns}) VALUES (:id, :topic, :envelope, 1, 1, 0, {1 if is_sent else 'NULL'})",
            id=str(envelope.id),
            topic=envelope.type,
            envelope=envelope.model_dump_json(exclude_none=True),
        )

    async def deliver(self, consumer: str, envelope: Envelope) -> None:
        service, receiving = CONSUMERS[consumer]
        await Inbox(self.databases[service], [receiving]).receive(receiving, envelope)


@contextmanager
def store_with_content(folder: Path) -> Iterator[Whole]:
    """An embedded store in which people did what people do."""
    whole = Whole(folder)
    try:
        (folder / "assets" / "demo.tar.gz").write_bytes(b"demo data")
        whole.result(whole.closed_scores, whole.model)
        yield whole
    finally:
        whole.close()


def urls_in(folder: Path) -> dict[str, str]:
    """SQLite files."""
    return {definition.name: f"sqlite+aiosqlite:///{folder / definition.name}.db" for definition in DEFINITIONS}
