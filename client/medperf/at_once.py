"""Several pieces of work at once, each in a thread of its own, and all of them stopped together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

# A container that is killed ends in moments, one with many processes in seconds.
_END_SECONDS = 30.0
_LOOK_SECONDS = 0.2


def each(jobs: int, work: Sequence[Callable[[], T]], *, stopping: threading.Event) -> list[T]:
    """The results of all, in their order; they are begun in it too, `jobs` of them at a time.

    The first exception, and Ctrl-C, sets `stopping`, which those that go on must look at; what then begins no
    more has no result, and the exception is raised once all have ended, or after half a minute.
    """
    if jobs == 1 or len(work) <= 1:
        return [one() for one in work]
    crew = _Crew(work, stopping)
    try:
        for _ in range(min(jobs, len(work))):
            crew.add_one()
        crew.wait()
    except BaseException:
        stopping.set()
        crew.wait()
        raise
    if crew.failure is not None:
        raise crew.failure
    return [crew.results[place] for place in range(len(work))]


class _Crew(Generic[T]):
    """What is still to be done, and what has come of the rest."""

    def __init__(self, work: Sequence[Callable[[], T]], stopping: threading.Event) -> None:
        self.results: dict[int, T] = {}
        self.failure: BaseException | None = None
        self._stopping = stopping
        self._remaining = iter(enumerate(work))
        self._lock = threading.Lock()
        # Of each thread, set at its end: in Python 3.11 a `Thread.join` that Ctrl-C interrupts takes it for ended.
        self._ends: list[threading.Event] = []

    def add_one(self) -> None:
        """Begin with the work in one more thread."""
        end = threading.Event()
        # A daemon: what hangs in a device must not keep a person's Ctrl-C from ending the command.
        thread = threading.Thread(target=self._work_to, args=(end,), daemon=True)
        self._ends.append(end)
        thread.start()

    def wait(self) -> None:
        """Wait until all have ended; where all are to stop, for half a minute at most. Ctrl-C ends the wait."""
        deadline: float | None = None
        for end in self._ends:
            while not end.wait(_LOOK_SECONDS):
                if deadline is None and self._stopping.is_set():
                    deadline = time.monotonic() + _END_SECONDS
                if deadline is not None and time.monotonic() >= deadline:
                    return

    def _work_to(self, end: threading.Event) -> None:
        try:
            self._work()
        finally:
            end.set()

    def _work(self) -> None:
        """Do one piece after the other, until there is none or all are to stop."""
        while not self._stopping.is_set():
            with self._lock:
                taken = next(self._remaining, None)
            if taken is None:
                return
            place, one = taken
            try:
                self.results[place] = one()
            except BaseException as error:  # noqa: BLE001 - raised again where it can be caught
                with self._lock:
                    self.failure = self.failure or error
                self._stopping.set()
