"""What long work is doing: lines on standard error, and on a terminal a line that shows the time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from medperf.terminal import printable

from .drawn import shows_unicode

_REDRAW_SECONDS = 1.0


class Progress:
    """Numbered steps of long work, such as the models of a benchmark.

    On a terminal a line with the time moves while a step goes on, whatever the step waits for.
    """

    def __init__(self, total: int, *, stream: TextIO | None = None) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._lock = threading.RLock()
        self._number = 0
        self._title = ""
        self._note = ""
        self._started = 0.0
        self._is_drawn = False
        self._below: tuple[str, ...] = ()
        self._lines_below = 0

    @property
    def is_on_terminal(self) -> bool:
        """Whether there is a line that moves."""
        return self._stream.isatty()

    @property
    def shows_unicode(self) -> bool:
        """Whether more than ASCII can be written."""
        return shows_unicode(self._stream)

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """One step: its title with its number, and at its end how long it took and whether it failed."""
        self._number += 1
        self._title, self._note = title, ""
        self._started = time.monotonic()
        self._write(f"[{self._number}/{self._total}] {title}")
        try:
            with self._clock():
                yield self
        except BaseException as error:
            how = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            self._write(f"      {how} after {self._elapsed()}")
            raise
        self._write(f"      done in {self._elapsed()}")

    def line(self, text: str) -> None:
        """A line that the container printed, or that tells what goes on inside the step."""
        self._note = ""
        self._write(f"      {text}")

    def note(self, text: str) -> None:
        """What stands beside the time, such as how much of a file is there; shown on a terminal only."""
        self._note = text

    def below(self, lines: Sequence[str]) -> None:
        """What stands below the time from now on, such as bars; on a terminal only, and narrower than it."""
        with self._lock:
            self._clear()
            self._below = tuple(lines)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time stands still while the block runs: somebody is asked something."""
        with self._lock:
            self._clear()
            yield

    @contextmanager
    def _clock(self) -> Iterator[None]:
        if not self._stream.isatty():
            yield
            return
        is_over = threading.Event()

        def redraw() -> None:
            while not is_over.wait(_REDRAW_SECONDS):
                self._draw()

        thread = threading.Thread(target=redraw, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _draw(self) -> None:
        with self._lock:
            note = f" · {self._note}" if self._note else ""
            self._clear()
            self._stream.write(f"\r\x1b[2K      … {printable(self._title)}: {self._elapsed()}{printable(note)}")
            self._stream.write("".join(f"\n{printable(line)}" for line in self._below))
            self._lines_below = len(self._below)
            self._stream.flush()
            self._is_drawn = True

    def _write(self, text: str) -> None:
        with self._lock:
            self._clear()
            self._stream.write(f"{printable(text)}\n")
            self._stream.flush()

    def _clear(self) -> None:
        if self._is_drawn:
            up = f"\x1b[{self._lines_below}A" if self._lines_below else ""
            self._stream.write(f"\r{up}\x1b[J" if up else "\r\x1b[2K")
            self._stream.flush()
            self._is_drawn = False
            self._lines_below = 0

    def _elapsed(self) -> str:
        seconds = time.monotonic() - self._started
        if seconds < 60:
            return f"{seconds:.1f} s"
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
