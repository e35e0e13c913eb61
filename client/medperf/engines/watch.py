"""Watches one run from outside: its time, its outputs, and, where no cgroup bounds them, memory and processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medperf.engines.base import Cause, Limits
from medperf.engines.cgroup import OVERHEAD_PROCESSES, Cgroup
from medperf.engines.outputs import used_bytes

# A process can fill some GB of memory in a second; without a cgroup this is how late we may notice.
_INTERVAL_SECONDS = 0.1
# Looking at the outputs may take at most this part of the time.
_LOOKING_SHARE = 0.1
_KIB = 1024


@dataclass(frozen=True)
class TreeUse:
    """What a process and all below it use."""

    threads: int
    memory_bytes: int


class Watch:
    """Says when a run must be stopped, and why. `look` is what its engine looks at beside time and outputs."""

    def __init__(
        self, limits: Limits, outputs: tuple[Path, ...], look: Callable[[], Cause | None] = lambda: None
    ) -> None:
        self.limits = limits
        self.outputs = outputs
        self.look = look
        self.started = time.monotonic()
        self.next_look = self.started
        self.next_output_look = self.started

    def seconds_to_next_look(self) -> float:
        return max(0.0, self.next_look - time.monotonic())

    def broken_limit(self) -> Cause | None:
        """The limit that the run has gone over, if any; looks only as often as it is worth."""
        now = time.monotonic()
        if now - self.started > self.limits.wall_seconds:
            return Cause.TIME_LIMIT
        if now < self.next_look:
            return None
        self.next_look = now + _INTERVAL_SECONDS
        return self.look() or self._broken_output_limit(now)

    def output_is_over(self) -> bool:
        return used_bytes(self.outputs, stop_above=self.limits.output_bytes) > self.limits.output_bytes

    def _broken_output_limit(self, now: float) -> Cause | None:
        if now < self.next_output_look:
            return None
        over = self.output_is_over()
        self.next_output_look = time.monotonic() + (time.monotonic() - now) / _LOOKING_SHARE
        return Cause.OUTPUT_LIMIT if over else None


@dataclass(frozen=True)
class TreeBounds:
    """The process tree below `pid`, bounded by a cgroup, or where there is none by looking at it."""

    pid: int
    limits: Limits
    cgroup: Cgroup

    def broken_limit(self) -> Cause | None:
        if self.cgroup.killed_for_memory():
            return Cause.OUT_OF_MEMORY
        if self.cgroup.memory is not None and self.cgroup.processes is not None:
            return None
        use = tree_use(self.pid)
        if self.cgroup.processes is None and use.threads > self.limits.processes + OVERHEAD_PROCESSES:
            return Cause.PROCESS_LIMIT
        if self.cgroup.memory is None and use.memory_bytes > self.limits.memory_bytes:
            return Cause.OUT_OF_MEMORY
        return None

    def final_cause(self, exit_code: int | None) -> Cause | None:
        """Why a run failed that nobody stopped, as far as the cgroup knows; read before it is removed."""
        if exit_code == 0:
            return None
        if self.cgroup.killed_for_memory():
            return Cause.OUT_OF_MEMORY
        return Cause.PROCESS_LIMIT if self.cgroup.refused_a_process() else None


def tree_use(top: int) -> TreeUse:
    """Threads and memory of the process `top` and all its descendants.

    Complete for a sandbox: a process in it whose parent dies goes to the first one inside, never out of the tree.
    """
    children: dict[int, list[int]] = {}
    threads: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
            threads[int(entry.name)] = int(fields[17])
    tree, waiting = [], [top]
    while waiting:
        pid = waiting.pop()
        tree.append(pid)
        waiting.extend(children.get(pid, ()))
    own, shared = zip(*(_memory_bytes(pid) for pid in tree), strict=True)
    # Shared memory is counted in each process that has it: the largest is what is there at least.
    return TreeUse(sum(threads.get(pid, 0) for pid in tree), sum(own) + max(shared))


def _memory_bytes(pid: int) -> tuple[int, int]:
    """(its own, shared and in memory file systems) bytes of a process; zeros once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return 0, 0
    fields = dict(line.split(":", 1) for line in lines if line.startswith(("RssAnon", "RssShmem")))
    anonymous, shared = (int(fields.get(name, "0 kB").split()[0]) * _KIB for name in ("RssAnon", "RssShmem"))
    return anonymous, shared
