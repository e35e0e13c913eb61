"""Alembic's entry point for the accounts service."""

from services.accounts.tables import metadata
from services.kernel.migrate import run_env

run_env(metadata)
