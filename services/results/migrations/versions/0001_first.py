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
        "results",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("benchmark_id", sa.BigInteger, nullable=False),
        sa.Column("model_id", sa.BigInteger, nullable=False),
        sa.Column("dataset_id", sa.BigInteger, nullable=False),
        sa.Column("is_partial", sa.Boolean, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("engine", sa.String(256), nullable=False),
        sa.Column("dataset_hash", sa.String(64), nullable=False),
        sa.Column("model_hash", sa.String(64), nullable=False),
        sa.Column("metrics_hash", sa.String(64), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger, nullable=False),
        sa.Column("submitted_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint(
            "benchmark_id",
            "model_id",
            "dataset_id",
            "is_partial",
            name="uq_results_benchmark_id_model_id_dataset_id_is_partial",
        ),
        sqlite_autoincrement=True,
    )
    for column in ("model_id", "dataset_id"):
        op.create_index(f"ix_results_{column}", "results", [column])
    make_results_final()
    op.create_table(
        "benchmark_copies",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("owner_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("approval", sa.String(32), nullable=False),
        sa.Column("is_valid", sa.Boolean, nullable=False),
        sa.Column("reference_model_id", sa.BigInteger, nullable=False),
        sa.Column("metrics_id", sa.BigInteger, nullable=False),
        sa.Column("metrics_hash", sa.String(64), nullable=False),
        sa.Column("public_scores", sa.Boolean, nullable=False),
    )
    op.create_table(
        "container_copies",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("owner_id", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("is_valid", sa.Boolean, nullable=False),
    )
    op.create_table(
        "dataset_copies",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("owner_id", sa.BigInteger, nullable=False),
        sa.Column("data_hash", sa.String(64), nullable=False),
        sa.Column("is_valid", sa.Boolean, nullable=False),
    )
    for table in ("benchmark_copies", "container_copies", "dataset_copies"):
        op.create_index(f"ix_{table}_owner_id", table, ["owner_id"])
    op.create_table(
        "association_copies",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("benchmark_id", sa.BigInteger, nullable=False),
        sa.Column("part_kind", sa.String(32), nullable=False),
        sa.Column("part_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
    )
    op.create_index("ix_association_copies_part", "association_copies", ["part_kind", "part_id", "benchmark_id"])


def make_results_final() -> None:
    """No result is altered, not even by a defect: a later migration that remakes the table makes these again."""
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER results_are_final_{action.lower()} BEFORE {action} ON results "
                "BEGIN SELECT RAISE(ABORT, 'a result is final'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION results_are_final() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'a result is final'; END $$"
    )
    op.execute(
        "CREATE TRIGGER results_are_final BEFORE UPDATE OR DELETE ON results "
        "FOR EACH ROW EXECUTE FUNCTION results_are_final()"
    )
