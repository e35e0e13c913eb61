"""What an operator did about a message is kept, with the reason."""

from services.kernel.migrate import add_dead_letter_actions

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    add_dead_letter_actions()
