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
        "notifications",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("topic", sa.String(80), nullable=False),
        sa.Column("about", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("read_at", sa.BigInteger, nullable=True),
        sa.UniqueConstraint("user_id", "event_id", name="uq_notifications_user_id_event_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_notifications_of_user", "notifications", ["user_id", "id"])
