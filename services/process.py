"""A process of a deployment: the web side of one service, or its worker. Each ends in order on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from medperf_contracts import __version__
from services.accounts import signing_keys
from services.composition import definition_of, prepare
from services.deployment import Deployment
from services.kernel import metrics, migrate
from services.kernel.amqp import AmqpBus, Consumption
from services.kernel.backlog import Backlog
from services.kernel.bus import EmbeddedBus
from services.kernel.http import build_app
from services.kernel.log import logger
from services.kernel.monitor import Check, monitor_app
from services.kernel.service import Service
from services.operator_error import OperatorError
from services.trace_export import traces_exported

# Shorter than what an orchestrator waits before it kills.
GRACE_SECONDS = 10
# A loop that did not come round for so long hangs: its longest honest pass is a publish that is given up.
STALLED_SECONDS = 90.0


def run_web(deployment: Deployment, name: str, *, host: str, port: int, monitor_port: int) -> None:
    """Answer the service's API on `port`, until told to stop."""
    # Nothing is published or consumed here: a commit wakes the workers.
    service = deployment.service(name, EmbeddedBus())
    ready: dict[str, Check] = {"database": partial(_database, service), "keys": partial(_keys, service)}
    watched = monitor_app(live={}, ready=ready, refresh=_backlog(service).refresh)
    metrics.BUILD.labels(name, "run", __version__).set(1)
    with listening(host, port) as api, listening(host, monitor_port) as monitor, traces_exported(name):
        asyncio.run(_serve({monitor: watched, api: build_app(service)}, nullcontext()))


def run_worker(deployment: Deployment, name: str, *, host: str, monitor_port: int) -> None:
    """Publish the service's events, and give it those of others, until told to stop."""
    definition = definition_of(name)
    if not (definition.publishes or definition.consumers):
        raise OperatorError(
            f"The {name} service neither publishes nor consumes events.",
            hint=f"It needs no worker, only: medperf-server run {name}",
        )
    bus = AmqpBus(deployment.broker_url(name), name=name)
    service = deployment.service(name, bus)
    live: dict[str, Check] = {
        "relay": partial(_progress, lambda: service.relay.last_pass),
        "inbox": partial(_progress, lambda: service.inbox.last_pass),
    }
    ready: dict[str, Check] = {"database": partial(_database, service)}
    for consumption in bus.consumptions:
        live[consumption.queue.name] = partial(_progress, partial(getattr, consumption, "last_progress"))
        ready[consumption.queue.name] = partial(_consuming, consumption)
    watched = monitor_app(live=live, ready=ready, refresh=_backlog(service).refresh)
    metrics.BUILD.labels(name, "work", __version__).set(1)
    with listening(host, monitor_port) as monitor, traces_exported(name):
        asyncio.run(_serve({monitor: watched}, _working(service, bus)))


async def migrate_all(deployment: Deployment, names: Sequence[str]) -> None:
    """Bring these services' databases to the newest schema, as the roles that own them."""
    await prepare({name: deployment.service(name, EmbeddedBus(), as_owner=True) for name in names})


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket, for as long as the block runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OperatorError(
                f"Cannot listen on {host}:{port}: {error.strerror}.",
                hint="Choose another --port or --monitor-port.",
            ) from None
        listener.listen(1024)
        yield listener


class _Server(uvicorn.Server):
    """A web server that leaves the signals to the process, which may have two."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(apps: Mapping[socket.socket, ASGIApp], working: AbstractAsyncContextManager[None]) -> None:
    """Serve until SIGTERM or SIGINT: no new requests then, those at work are finished, then the work ends."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    servers = [_Server(_config(app)) for app in apps.values()]
    async with working, asyncio.TaskGroup() as group:
        for server, listener in zip(servers, apps, strict=True):
            group.create_task(server.serve(sockets=[listener]))
        for listener in apps:
            logger.info("listening", address="{}:{}".format(*listener.getsockname()[:2]))
        await stop.wait()
        logger.info("stopping")
        for server in servers:
            server.should_exit = True


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


@asynccontextmanager
async def _working(service: Service, bus: AmqpBus) -> AsyncIterator[None]:
    """Relay, retry and consume for as long as the block runs."""
    consuming = asyncio.create_task(bus.run(), name=f"{service.definition.name}.consumers")
    try:
        async with service.working():
            yield
    finally:
        consuming.cancel()
        await asyncio.wait([consuming])
        await bus.close()
        await service.database.close()


def _backlog(service: Service) -> Backlog:
    return Backlog(service.database, [consumer.name for consumer in service.definition.consumers])


async def _database(service: Service) -> str | None:
    try:
        return await migrate.what_is_missing(service.database)
    except Exception as error:  # noqa: BLE001 (whatever it is, requests would meet it too)
        return f"the database cannot be asked: {error.__cause__ or error!r}"


async def _keys(service: Service) -> str | None:
    try:
        signing_keys.public_keys(service.settings.public_keys_file)
    except (OSError, ValueError) as error:
        return f"the keys of the access tokens cannot be read: {error}"
    return None


async def _progress(last_pass: Callable[[], float]) -> str | None:
    seconds = time.monotonic() - last_pass()
    return None if seconds < STALLED_SECONDS else f"nothing was done for {seconds:.0f} seconds"


async def _consuming(consumption: Consumption) -> str | None:
    return None if consumption.is_consuming else "the broker does not give it its messages now"
