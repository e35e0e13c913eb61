"""Services run apart: where their servers are, and their secrets, as the environment tells it.

Databases and roles are named by convention, so every process of a deployment has the same few variables, and what
it may do is decided by the secret files that it is given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from services.composition import composed, definition_of
from services.kernel.bus import Bus
from services.kernel.service import Service
from services.kernel.settings import Settings
from services.kernel.topology import VHOST
from services.operator_error import OperatorError

DATABASE_SERVER = "MEDPERF_DATABASE_SERVER"
BROKER_SERVER = "MEDPERF_BROKER_SERVER"
SECRETS = "MEDPERF_SECRETS"
SECRETS_DEFAULT = "/run/secrets"
DATABASE_ADMINISTRATOR = "postgres"
SIGNING_KEYS, PUBLIC_KEYS = "signing_keys.json", "public_keys.json"
DATABASE_ADMIN_PASSWORD, BROKER_ADMIN_PASSWORD = "database_admin_password", "broker_admin_password"


@dataclass(frozen=True)
class Deployment:
    """The servers that a deployment's processes share, and the folder with this process's secrets."""

    database_server: URL
    broker_server: str | None
    secrets: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Deployment:
        """What the variables name; `OperatorError` where they are missing or malformed."""
        try:
            server = make_url(environment[DATABASE_SERVER])
        except KeyError:
            raise OperatorError(
                f"{DATABASE_SERVER} is not set.",
                hint=f"Set it to where PostgreSQL is, such as {DATABASE_SERVER}=postgresql://postgresql:5432",
            ) from None
        except (ArgumentError, ValueError):
            server = URL.create("")
        if server.get_backend_name() != "postgresql" or not server.host or server.username or server.database:
            raise OperatorError(
                f"{DATABASE_SERVER} is not of the form postgresql://HOST[:PORT].",
                hint="Leave out user, password and database: they go by the service's name and its secret files.",
            )
        broker = environment.get(BROKER_SERVER) or None
        if broker is not None and not _is_broker(broker):
            raise OperatorError(
                f"{BROKER_SERVER} is not of the form amqp://HOST[:PORT] or amqps://HOST[:PORT].",
                hint="Leave out user, password and virtual host: they go by the service and its secret file.",
            )
        return cls(server, broker, Path(environment.get(SECRETS) or SECRETS_DEFAULT))

    @staticmethod
    def is_named(environment: Mapping[str, str] = os.environ) -> bool:
        """Whether the environment names a deployment at all; else commands are about an embedded store."""
        return bool(environment.get(DATABASE_SERVER))

    def secret(self, name: str) -> str:
        """What the secret file holds, without the newline at its end."""
        try:
            return (self.secrets / name).read_text().rstrip("\n")
        except OSError as error:
            raise OperatorError(
                f"The secret {self.secrets / name} cannot be read: {error.strerror}.",
                hint=f"Give this process that file, or name another folder with {SECRETS}. "
                "`medperf-server secrets create DIR` makes them all.",
            ) from None

    def database_url(self, service: str, *, as_owner: bool = False) -> URL:
        """The service's own database, as the role that only works with rows, or the one that owns the tables."""
        role = owner_of(service) if as_owner else service
        return self._as(role, self.secret(f"{role}_database_password"), database=service)

    def administrators_url(self, database: str = DATABASE_ADMINISTRATOR) -> URL:
        """A database, as the administrator of them all."""
        return self._as(DATABASE_ADMINISTRATOR, self.secret(DATABASE_ADMIN_PASSWORD), database=database)

    def broker_url(self, service: str) -> str:
        """The broker, as the service's own user."""
        if self.broker_server is None:
            raise OperatorError(
                f"{BROKER_SERVER} is not set.",
                hint=f"Set it to where RabbitMQ is, such as {BROKER_SERVER}=amqp://rabbitmq:5672",
            )
        server = urlsplit(self.broker_server)
        password = quote(self.secret(f"{service}_broker_password"), safe="")
        query = f"?{server.query}" if server.query else ""
        return f"{server.scheme}://{service}:{password}@{server.netloc}/{VHOST}{query}"

    def service(
        self, name: str, bus: Bus, *, as_owner: bool = False, operator_token_hash: str | None = None
    ) -> Service:
        """One service, on its database here."""
        settings = Settings(
            database_url=self.database_url(name, as_owner=as_owner),
            signing_keys_file=self.secrets / SIGNING_KEYS,
            public_keys_file=self.secrets / PUBLIC_KEYS,
            is_embedded=False,
            is_on_loopback=False,
            operator_token_hash=operator_token_hash,
        )
        return composed(definition_of(name), settings, bus)

    def _as(self, role: str, password: str, *, database: str) -> URL:
        return self.database_server.set(
            drivername="postgresql+asyncpg", username=role, password=password, database=database
        )


def owner_of(service: str) -> str:
    """The role that owns a service's tables: migrations run as it, and nothing else."""
    return f"{service}_owner"


def _is_broker(url: str) -> bool:
    parts = urlsplit(url)
    try:
        parts.port  # noqa: B018 (ValueError where it is no number)
    except ValueError:
        return False
    return (
        parts.scheme in ("amqp", "amqps")
        and bool(parts.hostname)
        and not parts.username
        and parts.path in ("", "/")
    )
