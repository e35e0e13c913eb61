"""Why a result's engine was chosen. Expand only: a process of the schema before goes on inserting without it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # A plain ALTER TABLE also on SQLite: remaking the table would drop the triggers that make results final.
    with op.batch_alter_table("results", recreate="never") as results:
        results.add_column(sa.Column("engine_reason", sa.String(256), nullable=False, server_default=""))
