"""What must hold of a deployment's databases when all is quiet again. Reads them by itself, with SQL of its own.

It imports nothing of the services: names of tables, topics and queues are written here once more, so that a
mistake there is not repeated here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from deployed.workload import Acknowledged

SERVICES = ("accounts", "registry", "associations", "results", "notifications")
CONTAINER = ("container.registered.v1", "container.made_operational.v1", "container.updated.v1")
BENCHMARK = (
    "benchmark.registered.v1",
    "benchmark.made_operational.v1",
    "benchmark.approved.v1",
    "benchmark.rejected.v1",
    "benchmark.updated.v1",
)
DATASET = ("dataset.registered.v1", "dataset.updated.v1")
ASSOCIATION = (
    "association.requested.v1",
    "association.approved.v1",
    "association.rejected.v1",
    "association.withdrawn.v1",
    "association.prioritized.v1",
)
CONSUMED: Mapping[str, tuple[str, ...]] = {
    "registry.record_association": ASSOCIATION,
    "associations.record_benchmark": BENCHMARK,
    "associations.record_model": CONTAINER,
    "associations.record_dataset": DATASET,
    "results.record_benchmark": BENCHMARK,
    "results.record_container": CONTAINER,
    "results.record_dataset": DATASET,
    "results.record_association": ASSOCIATION,
    "notifications.tell_of_association": ASSOCIATION[:-1],  # nobody is told of a priority
    "notifications.tell_of_benchmark": ("benchmark.approved.v1", "benchmark.rejected.v1"),
    "notifications.tell_of_result": ("result.submitted.v1",),
}
# A kind's owner and its table there; every acknowledged thing must be in it.
OWNERS = {
    "container": ("registry", "containers"),
    "benchmark": ("registry", "benchmarks"),
    "dataset": ("registry", "datasets"),
    "association": ("associations", "associations"),
    "result": ("results", "results"),
}
# A copy, its owner's table, and the columns that both have.
COPIES = (
    (
        "registry.association_copies",
        "associations.associations",
        "benchmark_id benchmark_owner_id part_kind part_id state",
    ),
    (
        "associations.benchmark_copies",
        "registry.benchmarks",
        "name owner_id state approval is_valid preparation_hash reference_model_id",
    ),
    ("associations.model_copies", "registry.containers", "name owner_id state is_valid"),
    (
        "associations.dataset_copies",
        "registry.datasets",
        "name owner_id state is_valid data_hash preparation_hash",
    ),
    (
        "results.benchmark_copies",
        "registry.benchmarks",
        "name owner_id state approval is_valid reference_model_id metrics_id metrics_hash public_scores",
    ),
    ("results.container_copies", "registry.containers", "name owner_id hash state is_valid"),
    ("results.dataset_copies", "registry.datasets", "owner_id data_hash is_valid"),
    ("results.association_copies", "associations.associations", "benchmark_id part_kind part_id state priority"),
)


@dataclass
class Findings:
    """What was counted, and what is not as it must be."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def all(self) -> list[str]:
        return [*self.lost, *self.doubled, *self.differing, *self.unaccounted]


class Checker:
    """Reads a deployment's databases as the administrator; `server` has host, port, user and password."""

    def __init__(self, server: Mapping[str, Any]) -> None:
        self._server = server

    async def until_quiet(self, *, seconds: float) -> None:
        """Wait until every event has left and had its effects, or the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not await self._at_work():
                return
            await asyncio.sleep(0.5)

    async def check(self, acknowledged: Sequence[Acknowledged]) -> Findings:
        """Everything that must hold."""
        found = Findings(counts={"acknowledged commands": len(acknowledged)})
        await self._things(found, acknowledged)
        await self._events(found)
        await self._effects(found)
        await self._copies(found)
        await self._notifications(found)
        found.unaccounted += await self._at_work()
        return found

    async def _things(self, found: Findings, acknowledged: Sequence[Acknowledged]) -> None:
        """What was answered with success is there, at that version or a later one, once."""
        for kind, (service, table) in OWNERS.items():
            rows = {row["id"]: row for row in await self._rows(service, f"SELECT * FROM {table}")}
            found.counts[f"{kind}s"] = len(rows)
            shown = [each for each in acknowledged if each.kind == kind]
            for each in shown:
                row = rows.get(each.thing["id"])
                if row is None or row["version"] < each.thing["version"]:
                    found.lost.append(f"{each.command}: {kind} {each.thing['id']} is {row}")
                elif (
                    row["version"] == each.thing["version"]
                    and "state" in row
                    and row["state"] != each.thing["state"]
                ):
                    found.lost.append(f"{each.command}: {kind} {each.thing['id']} is {row['state']}")
            made = {each.thing["id"] for each in shown}
            found.doubled += [f"{kind} {number} was made and nobody was told" for number in rows.keys() - made]
            if kind in ("container", "benchmark", "dataset"):
                names = Counter(row["name"] for row in rows.values())
                found.doubled += [
                    f"{kind} '{name}' is there {count} times" for name, count in names.items() if count > 1
                ]

    async def _events(self, found: Findings) -> None:
        """Each version of each thing was told of exactly once, and each event has left."""
        self.events: dict[str, str] = {}
        for service in SERVICES:
            told: Counter[tuple[str, int]] = Counter()
            query = "SELECT event_id, topic, envelope::json AS e, sent_millis FROM outbox"
            for row in await self._rows(service, query):
                told[row["e"]["subject"], row["e"]["aggregateversion"]] += 1
                self.events[row["event_id"]] = row["topic"]
            found.doubled += [
                f"{service} told {count} times of {each}" for each, count in told.items() if count > 1
            ]
            for kind, (owner, table) in OWNERS.items():
                if owner == service:
                    for row in await self._rows(service, f"SELECT id, version FROM {table}"):
                        missing = [v for v in range(1, row["version"] + 1) if not told[f"{kind}/{row['id']}", v]]
                        found.lost += [f"no event of {kind}/{row['id']}@{version}" for version in missing]
        found.counts["events"] = len(self.events)

    async def _effects(self, found: Findings) -> None:
        """Each consumer claimed each event of its topics, which is committed with the effect; no other."""
        claims = 0
        for consumer, topics in CONSUMED.items():
            query = f"SELECT event_id FROM inbox_claim WHERE consumer = '{consumer}'"
            claimed = Counter(row["event_id"] for row in await self._rows(consumer.partition(".")[0], query))
            claims += claimed.total()
            promised = {event_id for event_id, topic in self.events.items() if topic in topics}
            found.lost += [f"{consumer} never had {event_id}" for event_id in promised - claimed.keys()]
            found.doubled += [f"{consumer} had {event_id}" for event_id in claimed.keys() - promised]
        found.counts["effects"] = claims

    async def _copies(self, found: Findings) -> None:
        """Each copy is its owner's row, and each row is copied."""
        compared = 0
        for copy, original, columns in COPIES:
            copies, owned = await self._by_id(copy, columns), await self._by_id(original, columns)
            compared += len(owned)
            found.differing += [
                f"{copy} {number}: {copies.get(number)} != {owned.get(number)}"
                for number in copies.keys() | owned.keys()
                if copies.get(number) != owned.get(number)
            ]
        found.counts["copies compared"] = compared

    async def _notifications(self, found: Findings) -> None:
        """Nobody was told twice of one event, and of each event that is told of somebody was."""
        rows = await self._rows("notifications", "SELECT event_id, user_id FROM notifications")
        told = Counter((row["event_id"], row["user_id"]) for row in rows)
        found.doubled += [
            f"user {user} was told {count} times of {event}" for (event, user), count in told.items() if count > 1
        ]
        results = {event for event, topic in self.events.items() if topic == "result.submitted.v1"}
        found.lost += [f"nobody was told of {event}" for event in results - {event for event, _ in told}]
        found.counts["notifications"] = len(rows)

    async def _at_work(self) -> list[str]:
        """Events that have not left, and deliveries that wait, failed or died, or were not made yet."""
        waiting: list[str] = []
        for service in SERVICES:
            for row in await self._rows(service, "SELECT topic, cause FROM outbox WHERE sent_millis IS NULL"):
                waiting.append(f"{service}: {row['topic']} has not left: {row['cause']}")
            for row in await self._rows(service, "SELECT consumer, topic, state, cause FROM inbox_message"):
                waiting.append(f"{row['consumer']}: {row['topic']} {row['state']}: {row['cause']}")
        events: Counter[str] = Counter()
        for service in SERVICES:
            for row in await self._rows(service, "SELECT topic, count(*) AS n FROM outbox GROUP BY topic"):
                events[row["topic"]] += row["n"]
        for consumer, topics in CONSUMED.items():
            query = f"SELECT count(*) AS n FROM inbox_claim WHERE consumer = '{consumer}'"
            (row,) = await self._rows(consumer.partition(".")[0], query)
            if row["n"] < (promised := sum(events[topic] for topic in topics)):
                waiting.append(f"{consumer}: {promised - row['n']} events are still on their way")
        return waiting

    async def _by_id(self, place: str, columns: str) -> dict[int, dict[str, Any]]:
        service, _, table = place.partition(".")
        wanted = ", ".join(("id", "version", *columns.split()))
        return {row["id"]: dict(row) for row in await self._rows(service, f"SELECT {wanted} FROM {table}")}

    async def _rows(self, service: str, query: str) -> list[Any]:
        connection = await asyncpg.connect(**self._server, database=service, timeout=20)
        try:
            await connection.set_type_codec("json", encoder=str, decoder=json.loads, schema="pg_catalog")
            return list(await connection.fetch(query))
        finally:
            await connection.close()
