"""How a database can fail, whichever it is."""

from __future__ import annotations

from enum import Enum, auto


class Failure(Enum):
    """What a failure of the storage means for who asked."""

    BUSY = auto()
    """Others had it for too long; nothing was changed."""
    FULL = auto()
    AWAY = auto()
    """It cannot be reached, or cannot read or write. Whether a commit that was under way is there is not known."""
