"""An engine's stream of output, read in a thread so that whoever waits can look at other things meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

# Chunks that wait to be taken; when there are so many, the engine is read no further.
_WAITING_MOST = 64
_LOOK_SECONDS = 0.1


class Stream:
    """Chunks as they come. Leaving the block lets the thread end, also where the engine says nothing more."""

    def __init__(self, begin: Callable[[], Iterable[bytes]]) -> None:
        self._begin = begin
        self._chunks: queue.Queue[bytes | None] = queue.Queue(_WAITING_MOST)
        self._is_left = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_left.set()

    def next(self, timeout_seconds: float) -> bytes | None:
        """What came, empty where nothing did within the timeout; None at the end."""
        try:
            return self._chunks.get(timeout=max(timeout_seconds, 0.001))
        except queue.Empty:
            return b""

    def _read(self) -> None:
        # However the SDK fails when its engine ends: the container's state, asked for next, tells what happened.
        with suppress(Exception):
            for chunk in self._begin():
                if not self._put(chunk):
                    return
        self._put(None)

    def _put(self, chunk: bytes | None) -> bool:
        while not self._is_left.is_set():
            try:
                self._chunks.put(chunk, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False
