"""The databases and roles of a deployment, made by the server's administrator; run again, it only sets passwords.

A service has a database of its own name and two roles: one owns the tables and is used by migrations alone, the
other, which the processes use, works with rows only. No role but these and the administrator may connect to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import URL

from services.composition import DEFINITIONS
from services.deployment import Deployment, owner_of
from services.kernel import postgresql
from services.operator_error import OperatorError


async def provision(deployment: Deployment) -> None:
    """Make each service's roles and database as they must be."""
    async with _connected(deployment.administrators_url()) as administrator:
        for definition in DEFINITIONS:
            service, owner = definition.name, owner_of(definition.name)
            for role in (owner, service):
                await _make_role(administrator, role, deployment.secret(f"{role}_database_password"))
            if not await administrator.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", service):
                await administrator.execute(f'CREATE DATABASE "{service}" OWNER "{owner}" TEMPLATE template0')
            await _execute(
                administrator,
                f'ALTER DATABASE "{service}" OWNER TO "{owner}"',
                f'REVOKE ALL ON DATABASE "{service}" FROM PUBLIC',
                f'GRANT CONNECT ON DATABASE "{service}" TO "{service}"',
            )
    for definition in DEFINITIONS:
        async with _connected(deployment.administrators_url(definition.name)) as administrator:
            await _grant(administrator, definition.name, owner_of(definition.name))


async def _make_role(administrator: asyncpg.Connection[Any], role: str, password: str) -> None:
    verb = "ALTER" if await administrator.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role) else "CREATE"
    # PASSWORD takes no parameter; the server quotes it itself.
    quoted = await administrator.fetchval("SELECT quote_literal($1::text)", password)
    rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    await administrator.execute(f'{verb} ROLE "{role}" {rights} PASSWORD {quoted}')


async def _grant(administrator: asyncpg.Connection[Any], service: str, owner: str) -> None:
    """What the processes may do with what the owner makes, also in migrations to come."""
    await _execute(
        administrator,
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f'ALTER SCHEMA public OWNER TO "{owner}"',
        f'GRANT USAGE ON SCHEMA public TO "{service}"',
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{service}"',
        f'GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "{service}"',
        f'ALTER DEFAULT PRIVILEGES FOR ROLE "{owner}" IN SCHEMA public '
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "{service}"',
        f'ALTER DEFAULT PRIVILEGES FOR ROLE "{owner}" IN SCHEMA public GRANT USAGE ON SEQUENCES TO "{service}"',
    )


async def _execute(connection: asyncpg.Connection[Any], *statements: str) -> None:
    for statement in statements:
        await connection.execute(statement)


@asynccontextmanager
async def _connected(url: URL) -> AsyncIterator[asyncpg.Connection[Any]]:
    try:
        connection = await postgresql.connect(url, service="provision")
    except (postgresql.Unreachable, TimeoutError, asyncpg.PostgresError) as error:
        raise OperatorError(
            f"PostgreSQL at {url.host}:{url.port or 5432} does not let {url.username} in: {error}",
            hint="Look whether it runs and the administrator's secret is its password; then run this again.",
        ) from None
    try:
        yield connection
    finally:
        await connection.close()
