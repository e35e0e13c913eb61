"""The first schema."""

import sqlalchemy as sa
from alembic import op

from services.kernel.clock import BigId
from services.kernel.migrate import create_kernel_tables_1

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_kernel_tables_1()
    op.create_table(
        "associations",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("benchmark_id", sa.BigInteger, nullable=False),
        sa.Column("benchmark_name", sa.String(128), nullable=False),
        sa.Column("benchmark_owner_id", sa.BigInteger, nullable=False),
        sa.Column("part_kind", sa.String(32), nullable=False),
        sa.Column("part_id", sa.BigInteger, nullable=False),
        sa.Column("part_name", sa.String(128), nullable=False),
        sa.Column("part_owner_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("requested_by", sa.BigInteger, nullable=False),
        sa.Column("requested_at", sa.BigInteger, nullable=False),
        sa.Column("decided_by", sa.BigInteger, nullable=True),
        sa.Column("decided_at", sa.BigInteger, nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("summary", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    for column in ("benchmark_id", "benchmark_owner_id", "part_owner_id"):
        op.create_index(f"ix_associations_{column}", "associations", [column])
    live = sa.text("state IN ('PENDING', 'APPROVED')")
    op.create_index(
        "uq_associations_live_pair",
        "associations",
        ["benchmark_id", "part_kind", "part_id"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_table(
        "benchmark_copies",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("owner_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("approval", sa.String(32), nullable=False),
        sa.Column("is_valid", sa.Boolean, nullable=False),
        sa.Column("preparation_hash", sa.String(64), nullable=False),
        sa.Column("reference_model_id", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "model_copies",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("owner_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("is_valid", sa.Boolean, nullable=False),
    )
    op.create_table(
        "dataset_copies",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("owner_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("is_valid", sa.Boolean, nullable=False),
        sa.Column("data_hash", sa.String(64), nullable=False),
        sa.Column("preparation_hash", sa.String(64), nullable=False),
    )
    op.create_index("ix_dataset_copies_data_hash", "dataset_copies", ["data_hash"])
