"""Alembic's entry point for the associations service."""

from services.associations.tables import metadata
from services.kernel.migrate import run_env

run_env(metadata)
