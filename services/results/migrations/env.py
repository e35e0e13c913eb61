"""Alembic's entry point for the results service."""

from services.kernel.migrate import run_env
from services.results.tables import metadata

run_env(metadata)
