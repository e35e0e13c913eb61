"""Whoever calls the API for an operator's command: over a socket, or the services put together in this process."""

from __future__ import annotations

import asyncio
import ssl
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from medperf_contracts.problems import Problem
from medperf_contracts.versions import IDEMPOTENCY_HEADER, SEEN_HEADER, VERSION_HEADER
from services.gateway.embedded import EmbeddedGateway
from services.kernel.errors import StorageFailed, StorageFull
from services.kernel.http import build_app
from services.kernel.service import Service
from services.operator_error import OperatorError

RETRY_FOR_SECONDS = 60.0


class Refused(OperatorError):
    """The server refused a request of the operator's command."""


@dataclass
class Answer:
    """What the server answered, and which version of the thing it showed."""

    body: Any
    version: str


@dataclass
class Person:
    """One caller of the API."""

    http: httpx.Client
    token: str = ""
    keys: Iterator[str] | None = None
    """The idempotency keys of their commands, one after another, where these must be the same another time."""

    def get(self, path: str, **filters: str) -> Answer:
        """Ask for something."""
        return self._ask("GET", path, {"params": filters}, {})

    def post(self, path: str, body: dict[str, Any], *, seen: tuple[str, ...] = ()) -> Answer:
        """Send a command; every try of it carries the same key."""
        headers = {IDEMPOTENCY_HEADER: next(self.keys) if self.keys else str(uuid.uuid4())}
        if seen:
            headers[SEEN_HEADER] = ", ".join(seen)
        return self._ask("POST", path, {"json": body}, headers)

    def _ask(self, method: str, path: str, content: dict[str, Any], headers: dict[str, str]) -> Answer:
        """Try again while the server says that it does not know everything yet."""
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        deadline = time.monotonic() + RETRY_FOR_SECONDS
        while True:
            try:
                response = self.http.request(method, f"/api/v1/{path}", headers=headers, **content)
            except httpx.TransportError as error:
                raise _unreachable(self.http.base_url, error) from error
            if not response.is_error:
                body = response.json() if response.content else None
                return Answer(body, response.headers.get(VERSION_HEADER, ""))
            problem = Problem.model_validate_json(response.content)
            if problem.code in (StorageFull.code, StorageFailed.code):  # whoever can mend it is here
                raise Refused(problem.detail, hint="Make space or mend the disk, then run the same command again.")
            if response.status_code != 503 or time.monotonic() > deadline:
                raise Refused(problem.detail, hint=problem.hint)
            time.sleep(float(response.headers.get("Retry-After", "1")))


def _unreachable(url: httpx.URL, error: httpx.TransportError) -> OperatorError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return OperatorError(
            f"The server at {url} does not answer: {error}.", hint="Look at its log, then run this command again."
        )
    return OperatorError(
        f"What answers at {url} does not prove itself by the certificate of the store's server "
        f"({cause.verify_message}).",
        hint="Nothing was sent. Look what listens there; an expired certificate is replaced by starting "
        "the server with a new one.",
    )


@contextmanager
def in_process(
    services: Mapping[str, Service], runner: asyncio.Runner, *, assets: Path | None = None
) -> Iterator[httpx.Client]:
    """The services as one server in this process; nothing listens, and nothing is relayed or tried again."""
    try:
        apps = {name: build_app(service) for name, service in services.items()}
        gateway = EmbeddedGateway(apps, assets=assets, working=nullcontext())
        transport = _InProcess(runner, httpx.ASGITransport(gateway))
        with httpx.Client(transport=transport, base_url="http://operator") as http:
            yield http
    finally:
        for service in services.values():
            runner.run(service.database.close())


class _InProcess(httpx.BaseTransport):
    """An ASGI application of this process, as a client that waits for each answer sees it."""

    def __init__(self, runner: asyncio.Runner, inner: httpx.ASGITransport) -> None:
        self._runner = runner
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._runner.run(self._whole(request))

    async def _whole(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        content = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=content)
