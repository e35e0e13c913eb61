"""What long work is doing: lines on standard error, and on a terminal a line that shows the time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from .tables import printable

_REDRAW_SECONDS = 1.0


class Progress:
    """Numbered steps of long work, such as the models of a benchmark."""

    def __init__(self, total: int, *, stream: TextIO | None = None) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._number = 0
        self._title = ""
        self._started = 0.0
        self._drawn_at = 0.0
        self._is_drawn = False

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """One step: its title with its number, and at its end how long it took and whether it failed."""
        self._number += 1
        self._title = title
        self._started = time.monotonic()
        self._write(f"[{self._number}/{self._total}] {title}")
        try:
            yield self
        except BaseException:
            self._write(f"      failed after {self._elapsed()}")
            raise
        finally:
            self._title = ""
        self._write(f"      done in {self._elapsed()}")

    def line(self, text: str) -> None:
        """A line that the container printed, or that tells what goes on inside the step."""
        self._write(f"      {text}")

    def tick(self) -> None:
        """Call while waiting: keeps the time on a terminal moving, and does nothing elsewhere."""
        now = time.monotonic()
        if not self._title:
            return  # between two steps there is nothing to wait for
        if self._stream.isatty() and now - self._drawn_at >= _REDRAW_SECONDS:
            self._drawn_at = now
            self._stream.write(f"\r\x1b[2K      … {printable(self._title)}: {self._elapsed()}")
            self._stream.flush()
            self._is_drawn = True

    def _write(self, text: str) -> None:
        clear = "\r\x1b[2K" if self._is_drawn else ""
        self._is_drawn = False
        self._stream.write(f"{clear}{printable(text)}\n")
        self._stream.flush()

    def _elapsed(self) -> str:
        seconds = time.monotonic() - self._started
        if seconds < 60:
            return f"{seconds:.1f} s"
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
