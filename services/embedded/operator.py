"""The operator's way to an embedded store: the server that runs on it, or else its services in this process.

While this process has the store, its services relay and retry nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx

from services.caller import Person, in_process
from services.composition import prepare
from services.kernel import log
from services.kernel.auth import new_operator_token
from services.kernel.bus import EmbeddedBus

from .server import compose
from .store import LOGS_KEPT, Running, Store, StoreInUse
from .tls import trust_only

REQUEST_SECONDS = 30.0
# A server that starts has the store before it listens; another command has it for a second or two.
STORE_WAIT_SECONDS = 30.0
_LOOK_EVERY_SECONDS = 0.1


def reach(running: Running) -> httpx.Client:
    """The running server, on this machine: no proxy, and no certificate but its own."""
    return httpx.Client(
        base_url=running.url,
        timeout=REQUEST_SECONDS,
        trust_env=False,
        verify=trust_only(running.certificate),
    )


@contextmanager
def operator_of(store: Store) -> Iterator[Person]:
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
    """The operator, towards the services of a store that this process has locked."""
    log.configure(log.LogFile(store.log, files_kept=LOGS_KEPT))
    token, token_hash = new_operator_token()
    services = compose(store, EmbeddedBus(), host="127.0.0.1", operator_token_hash=token_hash)
    with asyncio.Runner() as runner:
        runner.run(prepare(services))
        with in_process(services, runner) as http:
            yield Person(http, token)
