"""What an operator's command ends with where something that can be foreseen is wrong."""

from __future__ import annotations


class OperatorError(Exception):
    """The command cannot do this; `hint` says what to do."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint
