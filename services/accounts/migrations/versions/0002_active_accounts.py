"""Accounts that can be disabled. Expand only: those that are there are active."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("users", recreate="never") as users:
        users.add_column(sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()))
