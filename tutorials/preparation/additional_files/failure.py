"""What stops a task: a message for the person whose data it is."""

from __future__ import annotations

SHOWN = 10


class Failure(Exception):
    """The input cannot be used. The message names the files and says what is wrong with them."""


def refuse(problems: list[str], where: str) -> None:
    """Stop the task if there are problems, naming the first ten and counting the others."""
    if problems:
        shown = "; ".join(problems[:SHOWN])
        others = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise Failure(f"{where}: {shown}{others}")
