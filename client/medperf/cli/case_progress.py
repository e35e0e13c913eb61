"""How far a preparation's cases are, while it runs: bars on a terminal, elsewhere a line at each change."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from medperf.drawings import Value

from .drawn import WIDTH_LEAST, WIDTH_MOST, bars

if TYPE_CHECKING:
    from medperf.case_report import CaseReport
    from medperf.preparations import InPreparation

    from .progress import Progress

_LOOK_SECONDS = 3.0
# A large report takes a while to read: of the machine's time it gets a tenth at most.
_REST_FACTOR = 10


@contextmanager
def watched(
    progress: Progress, ongoing: InPreparation, on_report: Callable[[CaseReport], object]
) -> Iterator[None]:
    """Show a preparation's report while the block runs; one that cannot be shown is said once, at the end.

    `on_report` gets each report that differs from the one before.
    """
    watch = _Watch(progress, ongoing, on_report)
    is_over = threading.Event()

    def look() -> None:
        wait = _LOOK_SECONDS
        while not is_over.wait(wait):
            began = time.monotonic()
            watch.look()
            wait = max(_LOOK_SECONDS, _REST_FACTOR * (time.monotonic() - began))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        watch.end()


class _Watch:
    def __init__(
        self, progress: Progress, ongoing: InPreparation, on_report: Callable[[CaseReport], object]
    ) -> None:
        self._progress = progress
        self._ongoing = ongoing
        self._on_report = on_report
        self._seen: tuple[int, int, int] | None = None
        self._shown: CaseReport | None = None
        self._fault: str | None = None

    def look(self) -> None:
        """Read the report where it has changed; half-written it is not shown, and the next look finds it whole."""
        from medperf.errors import ContainerFailed

        try:
            status = (self._ongoing.work / self._ongoing.report).lstat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return
            report = self._ongoing.read_report()
            self._seen, self._fault = seen, None
        except FileNotFoundError:
            return
        except (ContainerFailed, OSError) as broken:
            self._fault = str(broken)
            return
        if report is not None and report != self._shown:
            self._shown = report
            self._show(report)
            self._on_report(report)

    def end(self) -> None:
        """Say where the cases are now, or why that is not known."""
        self.look()
        self._progress.below(())
        if self._fault is not None:
            self._progress.line(f"the cases' progress is not shown: {self._fault}")
        elif self._shown is not None and self._progress.is_on_terminal:
            self._progress.line(str(self._shown))

    def _show(self, report: CaseReport) -> None:
        if not self._progress.is_on_terminal:
            self._progress.line(str(report))
            return
        width = max(WIDTH_LEAST, min(WIDTH_MOST, shutil.get_terminal_size().columns - 1))
        rows = tuple(
            Value(stage.shown, f"{stage.cases:,}", "", stage.cases / report.cases) for stage in report.stages
        )
        self._progress.below(bars(rows, width, self._progress.shows_unicode))
