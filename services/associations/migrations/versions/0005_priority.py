"""How early a model is run. Expand only: a process of the schema before goes on inserting without it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("associations", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
