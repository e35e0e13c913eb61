"""The notifications service's one table."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text, UniqueConstraint
from sqlalchemy.orm import registry

from services.kernel.clock import BigId, Instant
from services.kernel.db import new_metadata

from .domain import Notification

metadata = new_metadata()

notifications = Table(
    "notifications",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("version", Integer, nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("event_id", String(36), nullable=False),
    Column("topic", String(80), nullable=False),
    Column("about", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("read_at", Instant, nullable=True),
    UniqueConstraint("user_id", "event_id"),
    sqlite_autoincrement=True,
)
Index("ix_notifications_of_user", notifications.c.user_id, notifications.c.id)

registry(metadata=metadata).map_imperatively(
    Notification, notifications, version_id_col=notifications.c.version, eager_defaults=True
)
