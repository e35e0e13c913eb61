"""One look at one thing, and what it found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from medperf.errors import ClientError

# Longer than any look at a machine in order takes, a small container included.
_SECONDS = 15.0


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What was found, and what to do about it; `advice` is empty where nothing is to be done."""

    level: Level
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """A look, which returns a finding or raises a ClientError, and how long it may take."""

    name: str
    look: Callable[[], Finding]
    seconds: float = _SECONDS


@dataclass(frozen=True)
class Examined:
    """A check's name and its finding."""

    name: str
    finding: Finding


def examine(checks: Iterable[Check]) -> Iterator[Examined]:
    """Make one check after another; whatever one of them does, the next is made."""
    for check in checks:
        yield Examined(check.name, _bounded(check))


def _bounded(check: Check) -> Finding:
    found: list[Finding] = []
    # A daemon: one that hangs for good does not keep the command from ending.
    thread = threading.Thread(target=lambda: found.append(_look(check)), daemon=True)
    thread.start()
    thread.join(check.seconds)
    if found:
        return found[0]
    return Finding(
        Level.PROBLEM,
        f"no answer within {check.seconds:g} s",
        "Something on this machine hangs there: a file system that is gone, or a machine under heavy load.",
    )


def _look(check: Check) -> Finding:
    try:
        return check.look()
    except ClientError as error:
        return Finding(Level.PROBLEM, str(error), error.hint)
    except Exception as error:  # noqa: BLE001 - a fault in one check must not hide what the others find
        return Finding(
            Level.WARNING, f"could not be looked at: {type(error).__name__}: {error}", "Please report this line."
        )
