"""What long work is doing: lines on standard error, and on a terminal a line that shows the time."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from medperf.terminal import printable

from .drawn import shows_unicode

_REDRAW_SECONDS = 1.0
_MARGIN = "      "


@dataclass
class _Step:
    number: int
    title: str
    note: str = ""
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> str:
        seconds = time.monotonic() - self.started
        if seconds < 60:
            return f"{seconds:.1f} s"
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"


class Progress:
    """Numbered steps of long work, such as the models of a benchmark; each thread may have one at a time.

    On a terminal a line with the time moves while steps go on, whatever they wait for. With `at_once` above 1
    every line of a step begins with its number.
    """

    def __init__(self, total: int, *, at_once: int = 1, stream: TextIO | None = None) -> None:
        self._total = total
        self._at_once = at_once
        self._stream = stream or sys.stderr
        self._lock = threading.RLock()
        self._number = 0
        # The thread's ID -> its step.
        self._steps: dict[int, _Step] = {}
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
        me = threading.get_ident()
        with self._lock:
            self._number += 1
            step = self._steps[me] = _Step(self._number, title)
            self._write(f"[{step.number}/{self._total}] {title}")
        try:
            with self._clock():
                yield self
        except BaseException as error:
            how = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            self.line(f"{how} after {step.elapsed()}")
            raise
        else:
            self.line(f"done in {step.elapsed()}")
        finally:
            with self._lock:
                del self._steps[me]

    def line(self, text: str) -> None:
        """A line that the container printed, or that tells what goes on inside the step."""
        with self._lock:
            step = self._steps.get(threading.get_ident())
            margin = _MARGIN
            if step is not None:
                step.note = ""
                if self._at_once > 1:
                    margin = f"[{step.number}]".ljust(len(_MARGIN))
            self._write(f"{margin}{text}")

    def note(self, text: str) -> None:
        """What stands beside the time, such as how much of a file is there; shown on a terminal only."""
        with self._lock:
            step = self._steps.get(threading.get_ident())
            if step is not None:
                step.note = text

    def below(self, lines: Sequence[str]) -> None:
        """What stands below the time from now on, such as bars; on a terminal only, and narrower than it."""
        with self._lock:
            self._clear()
            self._below = tuple(lines)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time stands still while the block runs: somebody is asked something, or told outside the steps."""
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
            steps = sorted(self._steps.values(), key=lambda step: step.number)
            shown = "; ".join(_shown(step) for step in steps)
            # What wraps into a second row would not be cleared.
            room = shutil.get_terminal_size().columns - len(_MARGIN) - len("… ") - 1
            self._clear()
            self._stream.write(f"\r\x1b[2K{_MARGIN}… {shown[:room]}")
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


def _shown(step: _Step) -> str:
    note = f" · {printable(step.note)}" if step.note else ""
    return f"{printable(step.title)}: {step.elapsed()}{note}"
