"""The operator's way to a store: the API of the server that runs on it, or else of its services in this process.

Both are the same requests to the same endpoints with an operator's token: over a socket to the running server, or,
while this process has the store, to the services in it without one. Those relay and retry nothing meanwhile.
"""

from __future__ import annotations

import asyncio
import ssl
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import httpx

from medperf_contracts.problems import Problem
from medperf_contracts.versions import IDEMPOTENCY_HEADER, SEEN_HEADER, VERSION_HEADER
from services.kernel import log
from services.kernel.bus import EmbeddedBus
from services.kernel.errors import StorageFailed, StorageFull

from .server import compose, gateway_of, prepare
from .store import LOGS_KEPT, Running, Store, StoreError, StoreInUse, new_operator_token
from .tls import trust_only

RETRY_FOR_SECONDS = 60.0
REQUEST_SECONDS = 30.0
# A server that starts has the store before it listens; another command has it for a second or two.
STORE_WAIT_SECONDS = 30.0
_LOOK_EVERY_SECONDS = 0.1


class Refused(StoreError):
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


def _unreachable(url: httpx.URL, error: httpx.TransportError) -> StoreError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return StoreError(
            f"The server at {url} does not answer: {error}.", hint="Look at its log, then run this command again."
        )
    return StoreError(
        f"What answers at {url} does not prove itself by the certificate of the store's server "
        f"({cause.verify_message}).",
        hint="Nothing was sent. Look what listens there; an expired certificate is replaced by starting "
        "the server with a new one.",
    )


def reach(running: Running) -> httpx.Client:
    """The running server, on this machine: no proxy, and no certificate but its own."""
    return httpx.Client(
        base_url=running.url,
        timeout=REQUEST_SECONDS,
        trust_env=False,
        verify=trust_only(running.certificate),
    )


@contextmanager
def operator(store: Store) -> Iterator[Person]:
    """The operator, towards the running server, or towards the services of a stopped one."""
    with ExitStack() as stack:
        yield _enter(store, stack)


def _enter(store: Store, stack: ExitStack) -> Person:
    deadline = time.monotonic() + STORE_WAIT_SECONDS
    while (running := store.running()) is None:
        try:
            stack.enter_context(store.locked())
        except StoreInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_EVERY_SECONDS)
        else:
            return stack.enter_context(_in_process(store))
    return Person(stack.enter_context(reach(running)), store.operator_token.read_text())


@contextmanager
def _in_process(store: Store) -> Iterator[Person]:
    """The operator, towards the services of a store that this process has locked. Nothing listens."""
    log.configure(log.LogFile(store.log, files_kept=LOGS_KEPT))
    token, token_hash = new_operator_token()
    services = compose(store, EmbeddedBus(), host="127.0.0.1", operator_token_hash=token_hash)
    with asyncio.Runner() as runner:
        runner.run(prepare(services))
        try:
            gateway = gateway_of(store, services, working=nullcontext())
            transport = _InProcess(runner, httpx.ASGITransport(gateway))
            with httpx.Client(transport=transport, base_url="http://store") as http:
                yield Person(http, token)
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
