"""What an operator did about a message is kept, with the reason."""

from services.kernel.migrate import add_dead_letter_actions

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    add_dead_letter_actions()
