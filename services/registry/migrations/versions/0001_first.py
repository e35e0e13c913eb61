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
        "containers",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("owner_id", sa.BigInteger, nullable=False),
        sa.Column("owner_name", sa.String(64), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("is_valid", sa.Boolean, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("manifest_hash", sa.String(64), nullable=False),
        sa.Column("parameters", sa.Text, nullable=True),
        sa.Column("parameters_hash", sa.String(64), nullable=True),
        sa.Column("additional_files_url", sa.String(2048), nullable=True),
        sa.Column("additional_files_hash", sa.String(64), nullable=True),
        sa.Column("image_url", sa.String(2048), nullable=True),
        sa.Column("image_hash", sa.String(64), nullable=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("owner_id", "hash", name="uq_containers_owner_id_hash"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "benchmarks",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("docs_url", sa.String(2048), nullable=True),
        sa.Column("owner_id", sa.BigInteger, nullable=False),
        sa.Column("owner_name", sa.String(64), nullable=False),
        sa.Column("preparation_id", BigId, nullable=False),
        sa.Column("preparation_hash", sa.String(64), nullable=False),
        sa.Column("reference_model_id", BigId, nullable=False),
        sa.Column("metrics_id", BigId, nullable=False),
        sa.Column("metrics_hash", sa.String(64), nullable=False),
        sa.Column("demo_data_url", sa.String(2048), nullable=True),
        sa.Column("demo_data_hash", sa.String(64), nullable=True),
        sa.Column("public_scores", sa.Boolean, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("approval", sa.String(32), nullable=False),
        sa.Column("decided_by", sa.BigInteger(), nullable=True),
        sa.Column("is_valid", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("owner_id", "hash", name="uq_benchmarks_owner_id_hash"),
        *(
            sa.ForeignKeyConstraint([column], ["containers.id"], name=f"fk_benchmarks_{column}")
            for column in ("preparation_id", "reference_model_id", "metrics_id")
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "datasets",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("location", sa.String(256), nullable=False),
        sa.Column("owner_id", sa.BigInteger, nullable=False),
        sa.Column("owner_name", sa.String(64), nullable=False),
        sa.Column("generated_uid", sa.String(40), nullable=False),
        sa.Column("data_hash", sa.String(64), nullable=False),
        sa.Column("preparation_id", BigId, nullable=False),
        sa.Column("preparation_hash", sa.String(64), nullable=False),
        sa.Column("statistics", sa.JSON, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("is_valid", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint(
            "owner_id", "data_hash", "preparation_id", name="uq_datasets_owner_id_data_hash_preparation_id"
        ),
        sa.ForeignKeyConstraint(["preparation_id"], ["containers.id"], name="fk_datasets_preparation_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "association_copies",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("benchmark_id", sa.BigInteger, nullable=False),
        sa.Column("benchmark_owner_id", sa.BigInteger, nullable=False),
        sa.Column("part_kind", sa.String(32), nullable=False),
        sa.Column("part_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
    )
    for table, columns in (
        ("containers", ("name", "state")),
        ("benchmarks", ("name", "state", "approval")),
        ("datasets", ("generated_uid", "data_hash")),
        ("association_copies", ("benchmark_id", "benchmark_owner_id", "part_id")),
    ):
        for column in columns:
            op.create_index(f"ix_{table}_{column}", table, [column])
