"""The operator's way to the services: requests to their own endpoints.

A deployment's operator has its databases' secrets, so the services are put together in the command's own process:
no operator's token crosses a network, and no endpoint for operators is reachable on one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from medperf_contracts.access import SERVICES
from services.caller import Person, in_process
from services.deployment import Deployment
from services.kernel import log
from services.kernel.auth import new_operator_token
from services.kernel.bus import EmbeddedBus
from services.operator_error import OperatorError


@contextmanager
def operator(*, makes_store: bool = False) -> Iterator[Person]:
    """The operator of what the environment names: a deployment, or else an embedded server's store.

    Only a command that may be a store's first one makes it.
    """
    if Deployment.is_named():
        with operator_of_deployment(Deployment.from_environment()) as person:
            yield person
        return
    from .embedded.operator import operator_of
    from .embedded.store import Store

    store = Store.from_environment()
    if not makes_store and not store.database("accounts").exists():
        raise OperatorError(
            f"There are no accounts in {store.home}.", hint="Make the first: medperf-server user add NAME --admin"
        )
    with operator_of(store) as person:
        yield person


@contextmanager
def operator_of_deployment(deployment: Deployment) -> Iterator[Person]:
    """The operator, towards a deployment's services, put together in this process."""
    log.configure(log.warnings_only())
    token, token_hash = new_operator_token()
    services = {name: deployment.service(name, EmbeddedBus(), operator_token_hash=token_hash) for name in SERVICES}
    with asyncio.Runner() as runner, in_process(services, runner) as http:
        yield Person(http, token)
