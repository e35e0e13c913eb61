"""What stops a task: a message for the person whose data it is."""

SHOWN = 10


class Failure(Exception):
    """The input cannot be used. The message names what is wrong with it."""


def listed(problems: list[str]) -> str:
    """The first ten problems, and how many there are beyond."""
    others = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + others
