"""Read your writes: a service whose copy is older than what the caller has seen waits for it, for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sqlalchemy import Table

from medperf_contracts.versions import SEEN_HEADER, ThingVersion, parse_seen

from . import copies, metrics
from .db import Database
from .errors import BadRequest, Unavailable

WAIT_SECONDS = 2.0
LOOK_EVERY_SECONDS = 0.02
# Waiters hold no connection, but each costs a look every 20 ms.
WAITERS_MOST = 200


class SeenMalformed(BadRequest):
    code = "seen_malformed"
    hint = f"Send {SEEN_HEADER}: association/7@3, dataset/1@2 (at most ten)."


class NotKnownYet(Unavailable):
    code = "not_known_yet"
    hint = "Send the same request again, with the same Idempotency-Key."


class SeenGate:
    """Holds a request back until this service's copies are as new as what the caller has seen."""

    def __init__(self, database: Database, kept: Mapping[str, Table]) -> None:
        self._database = database
        self._kept = kept
        self._waiting = 0

    async def wait(self, header: str | None) -> None:
        """Return at once without the header; else within 2 s, or refuse. Opens no transaction of the caller's."""
        if header is None:
            return
        try:
            seen = [thing for thing in parse_seen(header) if thing.kind in self._kept]
        except ValueError as error:
            raise SeenMalformed(str(error)) from None
        if not seen:
            return
        behind = await self._behind(seen)
        if not behind:
            return
        if self._waiting >= WAITERS_MOST:
            raise NotKnownYet("Too many requests wait for news already.", retry_after_seconds=1)
        self._waiting += 1
        began = asyncio.get_running_loop().time()
        try:
            while behind and asyncio.get_running_loop().time() < began + WAIT_SECONDS:
                await asyncio.sleep(LOOK_EVERY_SECONDS)
                behind = await self._behind(behind)
        finally:
            self._waiting -= 1
            waited = asyncio.get_running_loop().time() - began
            metrics.SEEN_WAIT_SECONDS.labels(self._database.service).observe(waited)
        if behind:
            raise NotKnownYet(
                f"The {self._database.service} service has not heard of {', '.join(map(str, behind))} yet.",
                retry_after_seconds=1,
            )

    async def _behind(self, seen: list[ThingVersion]) -> list[ThingVersion]:
        async with self._database.read() as session:
            return [
                thing
                for thing in seen
                if await copies.version_of(session, self._kept[thing.kind], thing.id) < thing.version
            ]
