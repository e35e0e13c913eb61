"""A deployment's roles and databases on a real PostgreSQL, whose log holds every statement that it is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from servers.found import POSTGRESQL
from servers.postgresql import PostgresqlServer, postgresql
from services import secret_files
from services.composition import DEFINITIONS
from services.deployment import DATABASE_SERVER, SECRETS, Deployment, owner_of
from services.operator_error import OperatorError
from services.provision import PROVISION_LOCK, provision

ROLES = {role: each.name for each in DEFINITIONS for role in (each.name, owner_of(each.name))}
TELLING = {"logging_collector": "on", "log_statement": "all"}


@pytest.fixture
def server() -> Iterator[PostgresqlServer]:
    """One of the test's own: roles are a server's, and so is what it logs."""
    with postgresql(fsync=False, options=TELLING) as server:
        if not server.is_own:
            pytest.fail(
                f"this test needs a server of its own, with its roles and its log: run it without {POSTGRESQL}"
            )
        yield server


@pytest.fixture
def deployment(server: PostgresqlServer, tmp_path: Path) -> Deployment:
    """As the operator's environment names it."""
    secret_files.create(tmp_path)
    (tmp_path / "database_admin_password").write_text(server.password)
    where = f"postgresql://{server.host}:{server.port}"
    return Deployment.from_environment({DATABASE_SERVER: where, SECRETS: str(tmp_path)})


async def log_in(server: PostgresqlServer, role: str, password: str) -> None:
    connection = await asyncpg.connect(
        host=server.host, port=server.port, user=role, password=password, database=ROLES[role]
    )
    await connection.close()


def log_of(server: PostgresqlServer) -> str:
    """All of it: up to the statement that looks, which the server's logger may write a moment later."""
    mark = f"looked at {time.monotonic_ns()}"
    server.fetch(f"SELECT '{mark}'")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        log = str(server.fetch("SELECT pg_read_file(pg_current_logfile())")[0][0])
        if mark in log:
            return log
        time.sleep(0.05)
    pytest.fail("the server's log does not go on")


def test_each_role_logs_in_with_its_password_alone_and_the_servers_log_holds_none(
    server: PostgresqlServer, deployment: Deployment
) -> None:
    passwords = {role: deployment.secret(f"{role}_database_password") for role in ROLES}

    async def check() -> None:
        for role, password in passwords.items():
            await log_in(server, role, password)
            with pytest.raises(asyncpg.InvalidPasswordError):
                await log_in(server, role, password + "x")

    for _ in range(2):  # the second time roles are altered, not created
        asyncio.run(provision(deployment))
        asyncio.run(check())
    log = log_of(server)
    assert f'ALTER ROLE "{DEFINITIONS[0].name}"' in log
    assert [role for role, password in passwords.items() if password in log] == []


def test_a_password_that_was_renewed_is_the_roles_after_provision(
    server: PostgresqlServer, deployment: Deployment
) -> None:
    role = DEFINITIONS[0].name
    old = deployment.secret(f"{role}_database_password")
    asyncio.run(provision(deployment))
    secret_files.renew(deployment.secrets, f"{role}_database_password")
    asyncio.run(provision(deployment))
    asyncio.run(log_in(server, role, deployment.secret(f"{role}_database_password")))
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(log_in(server, role, old))


def test_several_at_once_are_one_after_another(server: PostgresqlServer, deployment: Deployment) -> None:
    async def provision_at_once() -> None:
        await asyncio.gather(*(provision(deployment) for _ in range(4)))
        for role in ROLES:
            await log_in(server, role, deployment.secret(f"{role}_database_password"))

    asyncio.run(provision_at_once())


def test_nothing_is_done_while_another_is_at_work(
    server: PostgresqlServer, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.provision.OTHER_SECONDS", 0.5)

    async def provision_beside_another() -> None:
        other = await asyncpg.connect(
            host=server.host, port=server.port, user=server.user, password=server.password, database="postgres"
        )
        await other.execute(f"SELECT pg_advisory_lock({PROVISION_LOCK})")
        with pytest.raises(OperatorError, match="Another"):
            await provision(deployment)
        await other.close()

    asyncio.run(provision_beside_another())
    names = [each.name for each in DEFINITIONS]
    assert server.fetch("SELECT 1 FROM pg_roles WHERE rolname = ANY($1)", names) == []


def test_a_password_that_is_not_ascii_is_refused_and_the_way_to_a_new_one_said(deployment: Deployment) -> None:
    name = f"{DEFINITIONS[0].name}_database_password"
    (deployment.secrets / name).write_text("pässword")
    with pytest.raises(OperatorError, match=name) as refusal:
        asyncio.run(provision(deployment))
    assert f"secrets renew DIR {name}" in refusal.value.hint
