"""An engine's stream of output or events, read in a thread: whoever waits can look at other things meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

# Items that wait to be taken; when there are so many, the engine is read no further.
_WAITING_MOST = 64
_LOOK_SECONDS = 0.1


class Stream(Generic[T]):
    """Items as they come. Leaving the block closes the stream, also where the engine says nothing more."""

    def __init__(self, begin: Callable[[], Iterable[T]]) -> None:
        self._begin = begin
        self._items: queue.Queue[T | None] = queue.Queue(_WAITING_MOST)
        self._opened: Any = None
        self._is_left = threading.Event()
        self._is_let_go = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.has_ended = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_left.set()
        with suppress(Exception):  # the SDK's stream has a `close`; whether it was closed already does not matter
            self._opened.close()
        with suppress(Exception):  # which shuts its socket down, and leaves the file around it to the collector
            self._opened._response.close()

    def take(self, timeout_seconds: float = 0.0) -> T | None:
        """The next item; None where none came within the timeout, and at the end, which `has_ended` then tells."""
        if self.has_ended:
            return None
        try:
            item = self._items.get(block=timeout_seconds > 0, timeout=timeout_seconds or None)
        except queue.Empty:
            return None
        self.has_ended = item is None
        return item

    def let_go(self) -> None:
        """Take no more than is here already, and read on without keeping it: an engine that cannot get rid of its
        output does not end a container either.
        """
        self._is_let_go.set()

    def _read(self) -> None:
        # However the SDK fails when its engine ends: the container's state, asked for next, tells what happened.
        with suppress(Exception):
            self._opened = self._begin()
            if self._is_left.is_set():  # left before it was open: nobody else closes it
                self._opened.close()
                return
            for item in self._opened:
                if not self._put(item):
                    return
        self._put(None)

    def _put(self, item: T | None) -> bool:
        while not self._is_left.is_set():
            if item is not None and self._is_let_go.is_set():
                return True
            try:
                self._items.put(item, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False
