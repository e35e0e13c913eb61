"""The embedded server: every service in one process, on SQLite files, with durable delivery between them."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import uvicorn

from services.accounts import queries as accounts_queries
from services.accounts import signing_keys
from services.composition import DEFINITIONS, composed, prepare
from services.gateway.embedded import EmbeddedGateway
from services.kernel.bus import Bus, EmbeddedBus
from services.kernel.http import build_app
from services.kernel.service import Service
from services.kernel.settings import Settings

from .disorder import UnreliableBus
from .store import Store, StoreError
from .tls import Certificate

GRACE_SECONDS = 10


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; `StoreError` where the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        is_the_address = error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL) or isinstance(error, socket.gaierror)
        raise StoreError(
            f"Cannot listen on {host}:{port}: {error.strerror}.",
            hint="Give --host an address of this machine: 127.0.0.1 for itself alone, 0.0.0.0 for all it has."
            if is_the_address
            else "Choose another port: medperf-server up --port 8001",
        ) from None
    listener.listen(128)
    return listener


def serve(
    store: Store,
    *,
    host: str,
    port: int,
    disorder_seed: int | None,
    on_ready: Callable[[str], None],
    certificate: Certificate | None = None,
) -> None:
    """Run until told to stop. The store must be locked.

    With `disorder_seed`, deliveries are duplicated, delayed and reordered, for tests.
    """
    if not store.signing_key.exists():
        signing_keys.create_signing_key(store.signing_key)
    bus: Bus = EmbeddedBus() if disorder_seed is None else UnreliableBus(disorder_seed)
    services = compose(store, bus, host=host, operator_token_hash=store.write_operator_token())
    asyncio.run(prepare(services))
    asyncio.run(_keep_demo_on_loopback(services["accounts"], host))
    with listen(host, port) as listener:
        bound_host, bound_port = listener.getsockname()[:2]
        shown_host = f"[{bound_host}]" if ":" in bound_host else bound_host
        url = f"{'https' if certificate else 'http'}://{shown_host}:{bound_port}"
        store.announce(url, certificate=certificate.pem if certificate else None)

        gateway = gateway_of(store, services, working=_working(list(services.values()), lambda: on_ready(url)))
        config = uvicorn.Config(
            gateway,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ssl_context_factory=(lambda *_: certificate.context) if certificate else None,
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except SystemExit:  # a start that failed ends the process, and only the log says why
            raise StoreError(
                "The server did not start.", hint=f"Look at the end of its log: {store.log}"
            ) from None


def compose(store: Store, bus: Bus, *, host: str, operator_token_hash: str) -> dict[str, Service]:
    """Every service, on its database in the store."""
    return {
        definition.name: composed(
            definition,
            Settings(
                database_url=f"sqlite+aiosqlite:///{store.database(definition.name)}",
                signing_keys_file=store.signing_key,
                public_keys_file=store.signing_key,
                is_embedded=True,
                is_on_loopback=is_loopback(host),
                operator_token_hash=operator_token_hash,
            ),
            bus,
        )
        for definition in DEFINITIONS
    }


def gateway_of(
    store: Store, services: dict[str, Service], *, working: AbstractAsyncContextManager[None]
) -> EmbeddedGateway:
    """The one front door to all of them, and to the store's assets."""
    store.assets.mkdir(exist_ok=True)
    apps = {name: build_app(service) for name, service in services.items()}
    return EmbeddedGateway(apps, assets=store.assets, working=working)


async def _keep_demo_on_loopback(service: Service, host: str) -> None:
    """Refuse to show a demo's known passwords to a network."""
    async with service.database.read() as session:
        seeded_with = (await accounts_queries.server(session, is_embedded=True)).seeded_with
    await service.database.close()
    if seeded_with is not None and not is_loopback(host):
        raise StoreError(
            f"This store was seeded with the demo '{seeded_with}', whose people have a known password; "
            f"it is not shown on {host}.",
            hint="Serve it on 127.0.0.1, or empty it first: medperf-server reset",
        )


@asynccontextmanager
async def _working(services: list[Service], on_ready: Callable[[], None]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(service.working())
        on_ready()
        yield
