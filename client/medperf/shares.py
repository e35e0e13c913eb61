"""What each task of a command gets of this machine, so that those that run at once fit into it together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from medperf.engines.base import Limits
from medperf.manifest.model import ALL_GPUS, Manifest

# How often a task that waits looks whether somebody has cancelled it.
_LOOK_SECONDS = 0.5


class Shares:
    """Memory and GPUs, given to tasks in the order in which they ask, and taken back when they end.

    `limits` are those of each task; its memory is what its manifest asks for where that is more, unless
    `memory_is_said` by a person. Those that run at once have `whole_bytes` together. `gpus`, asked for once they
    are needed, go to tasks that want some; with `to_all`, to the others too: as many as leave some for each job.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        jobs: int = 1,
        memory_is_said: bool = True,
        gpus: Callable[[], tuple[str, ...]] = tuple,
        to_all: bool = False,
        whole_bytes: int | None = None,
    ) -> None:
        self._limits = limits
        self.jobs = jobs
        self._memory_is_said = memory_is_said
        self._gpus = gpus
        self._to_all = to_all
        self._whole_bytes = max(whole_bytes or Limits().memory_bytes, limits.memory_bytes)
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._taken: list[Limits] = []

    @property
    def at_once(self) -> int:
        """For how many tasks that ask for nothing of their own there is memory at once."""
        return min(self.jobs, self._whole_bytes // self._limits.memory_bytes)

    def planned(self, manifest: Manifest) -> Limits:
        """The limits of a task, before it is known which GPUs it gets."""
        asked = manifest.memory_bytes
        if self._memory_is_said or asked is None or asked <= self._limits.memory_bytes:
            return self._limits
        return replace(self._limits, memory_bytes=min(asked, self._whole_bytes))

    @contextmanager
    def taken(
        self, manifest: Manifest, *, gives_gpus: bool, is_cancelled: Callable[[], bool]
    ) -> Iterator[Limits | None]:
        """Wait for a task's share, and lend it; None where the task was cancelled meanwhile.

        Who asks first gets it first: one that needs much is not passed by for ever.
        """
        count = self._gpu_count(manifest) if gives_gpus else 0
        limits = self._awaited(self.planned(manifest), count, is_cancelled)
        if limits is None:
            yield None
            return
        with self._giving_back(limits):
            yield limits

    @contextmanager
    def held(self, limits: Limits) -> Iterator[None]:
        """Count what a run has that an earlier command started: it has it already, whatever else runs."""
        with self._changed:
            self._taken.append(limits)
        with self._giving_back(limits):
            yield

    def _awaited(self, limits: Limits, gpu_count: int, is_cancelled: Callable[[], bool]) -> Limits | None:
        me = object()
        with self._changed:
            self._waiting.append(me)
            try:
                while not is_cancelled():
                    if self._waiting[0] is me and self._fits(limits, gpu_count):
                        limits = replace(limits, gpus=self._free_gpus()[:gpu_count] if gpu_count else ())
                        self._taken.append(limits)
                        return limits
                    self._changed.wait(_LOOK_SECONDS)
                return None
            finally:
                self._waiting.remove(me)
                self._changed.notify_all()

    @contextmanager
    def _giving_back(self, limits: Limits) -> Iterator[None]:
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(limits)
                self._changed.notify_all()

    def _gpu_count(self, manifest: Manifest) -> int:
        """How many it gets: what it asks for, as far as there are so many."""
        if manifest.gpus == 0 and not self._to_all:
            return 0
        there = len(self._gpus())
        if manifest.gpus == ALL_GPUS:
            return there
        if manifest.gpus == 0 and there:
            return max(1, there // self.jobs)
        return min(manifest.gpus, there)

    def _fits(self, limits: Limits, gpu_count: int) -> bool:
        taken_bytes = sum(one.memory_bytes for one in self._taken)
        if taken_bytes + limits.memory_bytes > self._whole_bytes:
            return False
        return gpu_count == 0 or len(self._free_gpus()) >= gpu_count

    def _free_gpus(self) -> tuple[str, ...]:
        taken = {gpu for one in self._taken for gpu in one.gpus}
        return tuple(gpu for gpu in self._gpus() if gpu not in taken)
