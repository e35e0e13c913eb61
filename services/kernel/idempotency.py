"""Idempotency keys: the same key with the same body is answered as it was the first time, for 24 hours.

The key's row is committed with the change, so only successes are kept. A second request with the same key waits
for the first: on the row's unique index, or on SQLite, which has one writer at a time, for its turn to write.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi.responses import Response
from sqlalchemy import ColumnElement, Delete, delete, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.versions import IDEMPOTENCY_HEADER, VERSION_HEADER

from .clock import database_millis
from .errors import BadRequest, Conflict, ServerBusy
from .postgresql import LOCK_NOT_AVAILABLE
from .tables import idempotency_key as keys

KEPT_MILLIS = 24 * 3_600_000
# A slow hash takes memory and a core: more at once would starve the rest of the process.
_HASHING_AT_ONCE = 2
KEY_FORM = r"[\x21-\x7e]{8,128}"

_hashing = asyncio.Semaphore(_HASHING_AT_ONCE)


class IdempotencyKeyMissing(BadRequest):
    code = "idempotency_key_missing"
    hint = f"Send {IDEMPOTENCY_HEADER}: a new UUID for each action, the same one when trying again."


class IdempotencyKeyReused(Conflict):
    code = "idempotency_key_reused"
    hint = "Use a new key for a new action."


class InProgress(Conflict):
    code = "in_progress"
    hint = "Send the same request again in a moment."


@dataclass(frozen=True)
class Claim:
    """One request's right to its key."""

    user_id: int
    route: str
    key: str
    body_hash: str


def key_of(header: str | None) -> str:
    """The key in the header, or a refusal."""
    if header is None:
        raise IdempotencyKeyMissing(f"The header {IDEMPOTENCY_HEADER} is missing.")
    if not re.fullmatch(KEY_FORM, header):
        raise IdempotencyKeyMissing(f"{IDEMPOTENCY_HEADER} must be 8 to 128 visible ASCII characters.")
    return header


async def hash_body(document: Any, *, key: str, has_password: bool) -> str:
    """What is kept of a body to know it again; of one with a password, by a slow hash that the key salts."""
    content = json.dumps(document, sort_keys=True).encode()
    if not has_password:
        return hashlib.sha256(content).hexdigest()
    # 32 MiB and some 200 ms: one of OWASP's choices for scrypt.
    async with _hashing:
        slow = await asyncio.to_thread(
            hashlib.scrypt, content, salt=key.encode(), n=2**15, r=8, p=3, maxmem=64 * 2**20, dklen=32
        )
    return slow.hex()


class KeysAtWork:
    """The keys of the requests that this process is busy with: on SQLite no index shows them to who waits."""

    def __init__(self) -> None:
        self._held = Counter[tuple[int, str, str]]()

    @asynccontextmanager
    async def hold(self, claim: Claim) -> AsyncIterator[None]:
        """For as long as the block runs; whoever waited in vain for the first with the same key is told so."""
        key = (claim.user_id, claim.route, claim.key)
        is_second = self._held[key] > 0
        self._held[key] += 1
        try:
            yield
        except ServerBusy:
            if is_second:
                raise _in_progress() from None
            raise
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]


def _in_progress() -> InProgress:
    return InProgress("The first request with this key is still at work.", retry_after_seconds=1)


async def take(session: AsyncSession, claim: Claim) -> Response | None:
    """Take the key for this request (None), or the answer that it was given before."""
    insert = (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert(keys)
    await session.execute(_forget_expired())
    try:
        result = await session.execute(
            insert.values(
                user_id=claim.user_id,
                route=claim.route,
                key=claim.key,
                body_hash=claim.body_hash,
                created_millis=database_millis(),
            ).on_conflict_do_nothing()
        )
    except DBAPIError as error:
        # On PostgreSQL: the first with this key has not committed within `lock_timeout`.
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise _in_progress() from None
    if isinstance(result, CursorResult) and result.rowcount == 1:
        return None
    row = (await session.execute(select(keys).where(*_same(claim)))).one()
    if row.body_hash != claim.body_hash:
        raise IdempotencyKeyReused("This key was used for another request.")
    return Response(
        content=row.answer, status_code=row.status, headers=json.loads(row.headers), media_type="application/json"
    )


async def keep(session: AsyncSession, claim: Claim, response: Response) -> None:
    """Keep the answer beside the change that it tells of."""
    headers = {name: response.headers[name] for name in (VERSION_HEADER, "ETag") if name in response.headers}
    await session.execute(
        update(keys)
        .where(*_same(claim))
        .values(status=response.status_code, answer=bytes(response.body).decode(), headers=json.dumps(headers))
    )


def _forget_expired() -> Delete:
    """Of rows that another request is about to forget, none is waited for."""
    # As a subquery, the time is one value, and the index on it serves; the function itself is volatile.
    oldest_kept = select(database_millis() - KEPT_MILLIS).scalar_subquery()
    expired = (
        select(*keys.primary_key).where(keys.c.created_millis < oldest_kept).with_for_update(skip_locked=True)
    )
    return delete(keys).where(tuple_(*keys.primary_key).in_(expired))


def _same(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (keys.c.user_id == claim.user_id, keys.c.route == claim.route, keys.c.key == claim.key)
