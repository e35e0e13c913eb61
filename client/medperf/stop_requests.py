"""Whether a run is to end before it ends itself: by `medperf run cancel`, or with all that its command runs."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from medperf.errors import Busy, StorageFailed
from medperf.journal import Journal

_LOOK_SECONDS = 1.0


class StopRequests:
    """Asked, again and again, by whoever waits for a run; the journal is looked at once a second."""

    def __init__(self, journal: Journal, run_id: str, stopping: threading.Event) -> None:
        self._journal = journal
        self._run_id = run_id
        self._stopping = stopping
        self._next_look = time.monotonic() + _LOOK_SECONDS
        self._is_asked = False

    def __call__(self) -> bool:
        """True where somebody has asked to cancel the run.

        KeyboardInterrupt where all that the command runs is to stop: a thread gets none of its own.
        """
        if self._stopping.is_set():
            raise KeyboardInterrupt
        if not self._is_asked and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            with suppress(StorageFailed, Busy):  # a disk that is full for a moment ends no run of hours
                self._is_asked = self._journal.find(self._run_id).cancel_is_asked
        return self._is_asked
