"""The databases of all services, for an operator's command: of a deployment, or of an embedded server's store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL

from medperf_contracts.access import SERVICES
from services.composition import prepare
from services.deployment import DATABASE_SERVER, Deployment
from services.embedded.server import compose
from services.embedded.store import Store
from services.kernel import migrate
from services.kernel.bus import EmbeddedBus
from services.kernel.db import Database
from services.operator_error import OperatorError

T = TypeVar("T")


@dataclass(frozen=True)
class Everything:
    """All services' databases, and where the store's assets are; None where the environment does not tell."""

    databases: Mapping[str, Database]
    assets: Path | None
    _runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it, and wait for it."""
        return self._runner.run(work)


@contextmanager
def beside_what_runs() -> Iterator[Everything]:
    """The databases, whether their services run or not.

    What an embedded server's lock keeps out is a second relay, and none begins here: SQLite itself keeps the
    transactions of two processes apart.
    """
    with ExitStack() as stack:
        if Deployment.is_named():
            urls = _of_deployment(as_owner=False)
            assets = None
        else:
            store = _store(makes_it=False)
            if store.running() is None:
                stack.enter_context(store.locked())
                _prepare(store)
            urls, assets = _of_store(store), store.assets
        yield stack.enter_context(_everything(urls, assets))


@contextmanager
def of_store_alone() -> Iterator[Everything]:
    """An embedded store's databases, with no server on it."""
    if Deployment.is_named():
        raise OperatorError(
            f"{DATABASE_SERVER} is set: this is about an embedded server's store, not about a deployment.",
            hint=f"Unset {DATABASE_SERVER} to export a store. A deployment is backed up by pg_basebackup.",
        )
    store = _store(makes_it=False)
    with store.locked():
        _prepare(store)
        with _everything(_of_store(store), store.assets) as everything:
            yield everything


@contextmanager
def to_fill() -> Iterator[Everything]:
    """Databases that something is to be imported into; an embedded store is made where there is none."""
    with ExitStack() as stack:
        if Deployment.is_named():
            # Numbering goes on after the highest ID: only the tables' owner may say where.
            urls, assets = _of_deployment(as_owner=True), None
        else:
            store = _store(makes_it=True)
            stack.enter_context(store.locked())
            _prepare(store)
            urls, assets = _of_store(store), store.assets
        yield stack.enter_context(_everything(urls, assets))


def _of_deployment(*, as_owner: bool) -> dict[str, URL | str]:
    deployment = Deployment.from_environment()
    return {name: deployment.database_url(name, as_owner=as_owner) for name in SERVICES}


def _of_store(store: Store) -> dict[str, URL | str]:
    return {name: f"sqlite+aiosqlite:///{store.database(name)}" for name in SERVICES}


def _store(*, makes_it: bool) -> Store:
    store = Store.from_environment()
    if not makes_it and not store.database("accounts").exists():
        raise OperatorError(
            f"There is no store in {store.home}.",
            hint=f"Name its folder with MEDPERF_SERVER_HOME, or a deployment with {DATABASE_SERVER}.",
        )
    return store


def _prepare(store: Store) -> None:
    asyncio.run(prepare(compose(store, EmbeddedBus(), host="127.0.0.1", operator_token_hash="")))


@contextmanager
def _everything(urls: Mapping[str, URL | str], assets: Path | None) -> Iterator[Everything]:
    databases = {name: Database(url, service=name) for name, url in urls.items()}
    with asyncio.Runner() as runner:
        try:
            for database in databases.values():
                runner.run(_check_schema(database))
            yield Everything(databases, assets, runner)
        finally:
            for database in databases.values():
                runner.run(database.close())


async def _check_schema(database: Database) -> None:
    missing = await migrate.what_is_missing(database)
    if missing is not None:
        raise OperatorError(
            f"The database of {database.service} is not this version's: {missing}.",
            hint="medperf-server migrate; for an embedded server: start it anew with this version.",
        )
