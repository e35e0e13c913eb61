"""A small federation for tests of faults: a real server seeded with containers that take moments to run."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from containers.small import write_tutorial
from medperf_contracts.events import Event
from services.composition import DEFINITIONS
from services.embedded import seed
from services.embedded.store import Store
from tutorials.path import EmbeddedServer

SERVICES = ("accounts", "registry", "associations", "results", "notifications")
_LAUNCHER = Path(__file__).with_name("launched_server.py")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def seed_small(server: EmbeddedServer, folder: Path) -> None:
    """Seed a running server as the tutorial does, with small containers instead of the tutorial's."""
    store = Store(server.home)
    running = store.running()
    assert running is not None
    tutorial = write_tutorial(folder)
    with patch.object(seed, "files", lambda _package: tutorial):
        seed.seed_data(store, running, {}, print)


@contextmanager
def small_server(home: Path) -> Iterator[EmbeddedServer]:
    """A running server of the small federation; it is stopped at the end."""
    server = EmbeddedServer(home / "server")
    server.start()
    try:
        seed_small(server, home / "tutorial")
        yield server
    finally:
        server.stop()


def raw_data(folder: Path, *texts: str) -> Path:
    """A site's raw data, `folder` with `images` and `labels`; other texts make another dataset."""
    for place in ("images", "labels"):
        (folder / place).mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / "images" / f"case{number}.txt").write_text(text)
    (folder / "labels" / "labels.csv").write_text("".join(f"case{number},1\n" for number in range(len(texts))))
    return folder


def rows(server: EmbeddedServer, service: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What a service's database holds, read beside the server."""
    with sqlite3.connect(f"file:{server.home / service}.db?mode=ro", uri=True) as connection:
        found = connection.execute(query, values).fetchall()
    connection.close()
    return found


def unfinished(server: EmbeddedServer) -> list[tuple[Any, ...]]:
    """Events that were not taken by the bus, and deliveries that wait, failed or died."""
    return [
        (service, *row)
        for service in SERVICES
        for row in (
            rows(server, service, "SELECT 'not sent', topic FROM outbox WHERE sent_millis IS NULL")
            + rows(server, service, "SELECT consumer, topic FROM inbox_message")
        )
    ]


def published(server: EmbeddedServer) -> list[tuple[str, str]]:
    """Every event that a service recorded: its ID and topic."""
    return [row for service in SERVICES for row in rows(server, service, "SELECT event_id, topic FROM outbox")]


def promised_effects(server: EmbeddedServer) -> set[tuple[str, str]]:
    """(consumer, event ID) for each event and each consumer that is to have it."""
    consumers = [consumer for definition in DEFINITIONS for consumer in definition.consumers]
    return {
        (consumer.name, event_id)
        for event_id, topic in published(server)
        for consumer in consumers
        if topic in {_topic(event) for event in consumer.events}
    }


def effects(server: EmbeddedServer) -> list[tuple[str, str]]:
    """(consumer, event ID) of each claim, which is committed with its effect."""
    return [
        row for service in SERVICES for row in rows(server, service, "SELECT consumer, event_id FROM inbox_claim")
    ]


def _topic(event: type[Event]) -> str:
    return event.TOPIC


@dataclass
class MortalServer(EmbeddedServer):
    """A server that is killed at the moments in the folder `moments`, and started again each time."""

    moments: Path = Path()
    _is_launched: bool = False

    def start(self) -> None:
        self.moments.mkdir(exist_ok=True)
        self.port = self.port or free_port()
        self._is_launched = True
        try:
            super().start()
        finally:
            self._is_launched = False

    def arm(self, kind: str, number: int) -> None:
        """Add a moment after those that wait."""
        place = len(list(self.moments.iterdir()))
        # Named last: the server must not read half of it.
        written = self.moments.with_name("next-moment")
        written.write_text(f"{kind} {number}")
        written.rename(self.moments / f"{place:03}")

    def waiting(self) -> list[str]:
        """The moments that have not come yet."""
        return [file.read_text() for file in self.moments.iterdir() if not file.name.startswith("fired-")]

    def fired(self) -> list[str]:
        """The moments at which the server was killed, in their order."""
        return [file.read_text() for file in sorted(self.moments.glob("fired-*"))]

    def _program(self) -> list[str]:
        if self._is_launched:
            return [sys.executable, str(_LAUNCHER), str(self.moments)]
        return super()._program()

    def _environment(self) -> dict[str, str]:
        root = str(Path(__file__).parents[2])
        return {**super()._environment(), "PYTHONPATH": os.pathsep.join(filter(None, [root]))}
