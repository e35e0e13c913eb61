"""Trying again, within a bound that the person sees."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from .errors import ClientError

T = TypeVar("T")

BOUND_SECONDS = 30.0
_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 5.0
# A service that waits for another's news answers within a second or two: no reason to alarm anybody.
_QUIET_SECONDS = 1.0


class TryAgain(Exception):
    """An attempt failed in a way that may pass; `error` is what the person sees if it does not."""

    def __init__(self, error: ClientError, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after_seconds = retry_after_seconds


class Patience:
    """The time that one request may be tried again, and how much of it is left."""

    def __init__(self, bound_seconds: float, notice: Callable[[str], None]) -> None:
        self._bound = bound_seconds
        self._notice = notice
        self._started = time.monotonic()
        self._failures = 0

    @property
    def left_seconds(self) -> float:
        """What is left of the bound; not below 0."""
        return max(0.0, self._bound - (time.monotonic() - self._started))

    def restart(self) -> None:
        """Begin the bound anew: what was asked for is getting on."""
        self._started = time.monotonic()
        self._failures = 0

    def wait(self, failure: TryAgain) -> bool:
        """Wait before the next attempt; False, at once, when that would pass the bound."""
        delay = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2**self._failures)
        delay *= random.uniform(0.5, 1.0)  # noqa: S311  # spreads clients out, hides nothing
        delay = max(delay, failure.retry_after_seconds or 0.0)
        if delay >= self.left_seconds:
            return False
        self._failures += 1
        waited = self._bound - self.left_seconds
        if waited + delay >= _QUIET_SECONDS:
            self._notice(f"{failure.error} Trying again ({waited:.0f} s of {self._bound:.0f} s)…")
        time.sleep(delay)
        return True


def patiently(attempt: Callable[[Patience], T], patience: Patience) -> T:
    """Call `attempt` until it gives an answer; the last failure's error once the bound has passed."""
    while True:
        try:
            return attempt(patience)
        except TryAgain as failure:
            if not patience.wait(failure):
                raise failure.error from failure.__cause__


def retry_after_seconds(header: str | None) -> float | None:
    """What a `Retry-After` header asks for, in either of its forms; None for anything else."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def notice_on_stderr(text: str) -> None:
    """Tell the person at the terminal what is being waited for."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
