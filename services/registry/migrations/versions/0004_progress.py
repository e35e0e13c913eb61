"""How far preparations are, as sites tell benchmarks' owners."""

import sqlalchemy as sa
from alembic import op

from services.kernel.clock import BigId

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "progress",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("benchmark_id", BigId, nullable=False),
        sa.Column("owner_id", sa.BigInteger, nullable=False),
        sa.Column("owner_name", sa.String(64), nullable=False),
        sa.Column("preparation", sa.Uuid, nullable=False),
        sa.Column("stages", sa.JSON, nullable=False),
        sa.Column("is_withdrawn", sa.Boolean, nullable=False),
        sa.Column("began_at", sa.BigInteger, nullable=False),
        sa.Column("told_at", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["benchmark_id"], ["benchmarks.id"], name="fk_progress_benchmark_id"),
        sa.UniqueConstraint(
            "owner_id", "benchmark_id", "preparation", name="uq_progress_owner_id_benchmark_id_preparation"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_progress_benchmark_id", "progress", ["benchmark_id"])
