"""One service run for real, on a database of its own: HTTP in, rows and events out."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey
from sqlalchemy import select

from medperf_contracts.envelope import Envelope
from medperf_contracts.events import Event
from medperf_contracts.versions import IDEMPOTENCY_HEADER
from services.accounts import signing_keys, tokens
from services.kernel import migrate
from services.kernel.auth import ALGORITHM, AUDIENCE, ISSUER
from services.kernel.bus import EmbeddedBus
from services.kernel.db import Database
from services.kernel.http import build_app
from services.kernel.service import Definition, Service
from services.kernel.settings import Settings
from services.kernel.tables import inbox_message, outbox

T = TypeVar("T")
OPERATOR_TOKEN = "operator.for-tests"


class Peer:
    """A service at work, and everything around it that a test needs: callers, events in, events out."""

    def __init__(self, definition: Definition, folder: Path, database_url: str) -> None:
        self._runner = asyncio.Runner()
        key_file = folder / "signing_key.json"
        if not key_file.exists():
            signing_keys.create_signing_key(key_file)
        self.key: OKPKey = signing_keys.signing_key(key_file)
        self.bus = EmbeddedBus()
        self.service = Service(
            definition,
            Settings(
                database_url=database_url,
                signing_keys_file=key_file,
                public_keys_file=key_file,
                is_embedded=True,
                is_on_loopback=True,
                operator_token_hash=tokens.hash_token(OPERATOR_TOKEN),
            ),
            self.bus,
            public_keys=lambda: KeySet([self.key]),
        )
        self.app = build_app(self.service)
        if self.service.database.is_sqlite:  # on PostgreSQL it is a copy of one that was migrated
            self.run(migrate.upgrade(self.service.database))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        self.run(self.service.database.close())
        self._runner.close()

    def token(self, user_id: int, *, is_admin: bool = False, seconds: int = 600, **claims: Any) -> str:
        issued = int(time.time())
        says = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "name": f"user{user_id}",
            "admin": is_admin,
            "iat": issued,
            "exp": issued + seconds,
        }
        return jwt.encode({"alg": ALGORITHM, "kid": self.key.kid}, says | claims, self.key, algorithms=[ALGORITHM])

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        by: int | None = None,
        admin: bool = False,
        token: str | None = None,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        peer: str = "127.0.0.1",
    ) -> httpx.Response:
        """One request, by a user's ID, an administrator, or nobody; a POST gets a new key by default."""
        sent = dict(headers or {})
        if by is not None:
            token = self.token(by, is_admin=admin)
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if method == "POST" and key != "":
            sent[IDEMPOTENCY_HEADER] = key or str(uuid.uuid4())
        if content is None and body is not None:
            content = json.dumps(body).encode()
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        transport = httpx.ASGITransport(app=self.app, client=(peer, 1), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.request(method, path, content=content, headers=sent)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """`send`, waited for."""
        return self.run(self.send(method, path, body, **options))

    def tell(self, event: Event, *, version: int = 1, event_id: uuid.UUID | None = None) -> Envelope:
        """Deliver another service's event, as the bus would."""
        envelope = envelope_of(event, version=version, event_id=event_id)
        assert self.run(self.bus.publish([envelope])) == {envelope.id}
        return envelope

    def events(self) -> list[Envelope]:
        """What the service recorded in its outbox, oldest first."""

        async def read() -> list[Envelope]:
            async with self.service.database.read() as session:
                rows = (await session.execute(select(outbox.c.envelope).order_by(outbox.c.position))).scalars()
                return [Envelope.model_validate_json(row) for row in rows]

        return self.run(read())

    def parked(self) -> list[dict[str, Any]]:
        """The inbox's messages that wait, failed or are dead, oldest first."""
        return self.run(parked(self.service.database))


async def parked(database: Database) -> list[dict[str, Any]]:
    """The rows of an inbox's messages that have not had their effect, oldest first."""
    async with database.read() as session:
        rows = await session.execute(select(inbox_message).order_by(inbox_message.c.first_millis))
        return [dict(row) for row in rows.mappings()]


def envelope_of(event: Event, *, version: int = 1, event_id: uuid.UUID | None = None) -> Envelope:
    """An event of another service as it travels."""
    return Envelope(
        id=event_id or uuid.uuid4(),
        source="/medperf/test",
        type=event.TOPIC,
        subject=f"{event.KIND}/{event.id}",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        aggregateversion=version,
        data=event.model_dump(mode="json"),
    )


def made(response: httpx.Response) -> int:
    """The ID of what was made."""
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


def done(response: httpx.Response) -> dict[str, Any]:
    """What is answered to what was done."""
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """How it was refused: as this, with what to do next."""
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.json()["hint"]
    body: dict[str, Any] = response.json()
    return body
