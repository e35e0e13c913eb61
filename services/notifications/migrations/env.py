"""Alembic's entry point for the notifications service."""

from services.kernel.migrate import run_env
from services.notifications.tables import metadata

run_env(metadata)
