"""Events say why they do not leave."""

from services.kernel.migrate import add_outbox_cause

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    add_outbox_cause()
