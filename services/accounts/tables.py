"""The accounts service's tables: users, their logins, the store's identity."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, String, Table, Uuid, true
from sqlalchemy.orm import registry

from services.kernel.clock import BigId, Instant
from services.kernel.db import new_metadata

from .domain import Login, Store, User

metadata = new_metadata()

users = Table(
    "users",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("version", Integer, nullable=False),
    Column("username", String(64), nullable=False, unique=True),
    Column("password_hash", String(256), nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("is_active", Boolean, nullable=False, server_default=true()),
    Column("created_at", Instant, nullable=False),
    sqlite_autoincrement=True,
)

logins = Table(
    "logins",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("user_id", BigInteger, ForeignKey("users.id"), nullable=False, index=True),
    Column("current_hash", String(64), nullable=False),
    Column("previous_hash", String(64), nullable=True),
    Column("expires_at", Instant, nullable=False),
    Column("is_ended", Boolean, nullable=False),
)

store = Table(
    "store",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("store_id", Uuid, nullable=False),
    Column("seeded_with", String(32), nullable=True),
    Column("created_at", Instant, nullable=False),
)

# The store's identity is one row.
STORE_ROW = 1

_mapping = registry(metadata=metadata)
_mapping.map_imperatively(User, users, version_id_col=users.c.version)
_mapping.map_imperatively(Login, logins, version_id_col=logins.c.version)
_mapping.map_imperatively(Store, store)
