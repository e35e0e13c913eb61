"""A database of its own for each test, made quickly: a copy of one that was migrated once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from servers.postgresql import PostgresqlServer
from services.kernel import migrate
from services.kernel.db import Database


@dataclass
class Databases:
    """Databases on a server that others may use too: every name of them is this run's own."""

    server: PostgresqlServer
    prefix: str = field(default_factory=lambda: f"medperf_test_{secrets.token_hex(4)}")
    made: list[str] = field(default_factory=list)

    def empty(self) -> str:
        """The URL of a database with nothing in it, for its owner."""
        name = f"{self.prefix}_{len(self.made)}"
        self.made.append(name)
        return self.server.url_of(self.server.create_database(name))

    def migrated(self, service: str) -> str:
        """The URL of a service's database at the newest schema, for its owner."""
        template = f"{self.prefix}_{service}"
        if template not in self.made:
            self.made.append(self.server.create_database(template))
            asyncio.run(_migrate(self.server.url_of(template), service))
        name = f"{self.prefix}_{len(self.made)}"
        self.made.append(name)
        return self.server.url_of(self.server.create_database(name, template=template))


async def _migrate(url: str, service: str) -> None:
    database = Database(url, service=service)
    await migrate.upgrade(database)
    await database.close()


@contextmanager
def databases_on(server: PostgresqlServer) -> Iterator[Databases]:
    """Databases on the server, removed at the end."""
    databases = Databases(server)
    try:
        yield databases
    finally:
        # Each removal is a checkpoint: on a server of the tests' own they go with it.
        for name in databases.made if not server.is_own else ():
            server.drop_database(name)
