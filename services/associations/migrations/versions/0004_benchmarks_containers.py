"""Copies of benchmarks say which containers prepare their data and compute their metrics: those are no models."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for name in ("preparation_id", "metrics_id"):
        op.add_column("benchmark_copies", sa.Column(name, sa.BigInteger(), nullable=True))
