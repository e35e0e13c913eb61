"""The databases and roles of a deployment, made by the server's administrator; run again, it only sets passwords.

A service has a database of its own name and two roles: one owns the tables and is used by migrations alone, the
other, which the processes use, works with rows only. No role but these and the administrator may connect to it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import URL

from services.composition import DEFINITIONS
from services.deployment import Deployment, owner_of
from services.kernel import postgresql
from services.operator_error import OperatorError

# Any number; held in the administrator's own database, where nothing else takes one.
PROVISION_LOCK = 7_301_114
OTHER_SECONDS, LOOK_AGAIN_SECONDS = 60.0, 0.1
# PostgreSQL's own count and length.
SCRAM_ITERATIONS, SCRAM_SALT_BYTES = 4096, 16


async def provision(deployment: Deployment) -> None:
    """Make each service's roles and database as they must be; a second one meanwhile waits for the first."""
    async with _connected(deployment.administrators_url()) as administrator:
        # Freed by the end of the connection, which is therefore kept to the end of the run.
        await _wait_for_others(administrator)
        for definition in DEFINITIONS:
            await _make_database(administrator, deployment, definition.name)
        for definition in DEFINITIONS:
            async with _connected(deployment.administrators_url(definition.name)) as inside:
                await _grant(inside, definition.name, owner_of(definition.name))


async def _wait_for_others(administrator: asyncpg.Connection[Any]) -> None:
    """Take the lock of whoever provisions, by asking again: a statement that waits would end by its timeouts."""
    deadline = time.monotonic() + OTHER_SECONDS
    while not await administrator.fetchval("SELECT pg_try_advisory_lock($1)", PROVISION_LOCK):
        if time.monotonic() > deadline:
            raise OperatorError(
                f"Another `medperf-server provision` has been at work for {OTHER_SECONDS:.0f} seconds.",
                hint="Let it end, or end it; then run this again.",
            )
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def _make_database(administrator: asyncpg.Connection[Any], deployment: Deployment, service: str) -> None:
    owner = owner_of(service)
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


async def _make_role(administrator: asyncpg.Connection[Any], role: str, password: str) -> None:
    if not password.isascii():
        raise OperatorError(
            f"The secret {role}_database_password holds other characters than ASCII.",
            hint=f"Renew it: `medperf-server secrets renew DIR {role}_database_password`; then run this again.",
        )
    verb = "ALTER" if await administrator.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role) else "CREATE"
    rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    # The statement may stand in the server's log: it holds no password. Nothing in a verifier needs a quote.
    await administrator.execute(f"{verb} ROLE \"{role}\" {rights} PASSWORD '{scram_verifier(password)}'")


def scram_verifier(password: str) -> str:
    """What PostgreSQL keeps of an ASCII password and takes in its place: RFC 5803, by RFC 5802 and RFC 7677.

    SASLprep (RFC 4013), which comes first there, changes no printable ASCII.
    """
    salt = secrets.token_bytes(SCRAM_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, SCRAM_ITERATIONS)
    client_key, server_key = (hmac.digest(salted, name, "sha256") for name in (b"Client Key", b"Server Key"))
    stored_key = hashlib.sha256(client_key).digest()
    salt_, stored, server = (b64encode(part).decode("ascii") for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{salt_}${stored}:{server}"


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
