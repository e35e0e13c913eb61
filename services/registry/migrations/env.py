"""Alembic's entry point for the registry."""

from services.kernel.migrate import run_env
from services.registry.tables import metadata

run_env(metadata)
