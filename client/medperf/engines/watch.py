"""Watches one run from outside: its time, its outputs, and, where no cgroup bounds them, memory and processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medperf.engines.base import Cause, Limits
from medperf.engines.cgroup import Cgroup
from medperf.engines.outputs import used_bytes
from medperf.engines.tree import ProcessTree, Rationed

# A process can fill some GB of memory in a second; without a cgroup this is how late we may notice.
_INTERVAL_SECONDS = 0.1


class Watch:
    """Says when a run must be stopped, and why.

    `look` is what its engine looks at beside time and outputs. `nameless_bytes` says what the run's processes
    hold open on disk that no folder shows.
    """

    def __init__(
        self,
        limits: Limits,
        outputs: tuple[Path, ...],
        look: Callable[[], Cause | None] = lambda: None,
        nameless_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self.limits = limits
        self.outputs = outputs
        self.look = look
        self.nameless_bytes = nameless_bytes
        self.started = time.monotonic()
        self.next_look = self.started
        self._written = Rationed(self._written_bytes)

    def seconds_to_next_look(self) -> float:
        return max(0.0, self.next_look - time.monotonic())

    def broken_limit(self) -> Cause | None:
        """The limit that the run has gone over, if any; looks only as often as it is worth.

        Raises ContainerFailed where what it wrote or holds cannot be measured.
        """
        now = time.monotonic()
        if now - self.started > self.limits.wall_seconds:
            return Cause.TIME_LIMIT
        if now < self.next_look:
            return None
        self.next_look = now + _INTERVAL_SECONDS
        return self.look() or self._broken_output_limit()

    def output_is_over(self) -> bool:
        """Whether what lies in the outputs now is too much; once the run has ended, that is all of it."""
        return self._written_bytes() > self.limits.output_bytes

    def _broken_output_limit(self) -> Cause | None:
        over = self._written.latest() + self.nameless_bytes() > self.limits.output_bytes
        return Cause.OUTPUT_LIMIT if over else None

    def _written_bytes(self) -> int:
        return used_bytes(self.outputs, stop_above=self.limits.output_bytes)


@dataclass(frozen=True)
class TreeBounds:
    """A process tree, bounded by a cgroup, or where there is none by looking at it.

    What its folders in memory hold counts as memory in both.
    """

    tree: ProcessTree
    limits: Limits
    cgroup: Cgroup
    # Of its processes those that are the engine's own.
    overhead_processes: int

    def broken_limit(self) -> Cause | None:
        if self.cgroup.killed_for_memory():
            return Cause.OUT_OF_MEMORY
        most = self.limits.processes + self.overhead_processes
        if self.cgroup.processes is None and self.tree.threads() > most:
            return Cause.PROCESS_LIMIT
        if self.cgroup.memory is None:
            limit = self.limits.memory_bytes
            if self.tree.memory_bytes(enough=limit) > limit:
                return Cause.OUT_OF_MEMORY
        return None

    def final_cause(self, exit_code: int | None) -> Cause | None:
        """Why a run failed that nobody stopped, as far as the cgroup knows; read before it is removed."""
        if exit_code == 0:
            return None
        if self.cgroup.killed_for_memory():
            return Cause.OUT_OF_MEMORY
        return Cause.PROCESS_LIMIT if self.cgroup.refused_a_process() else None
