"""What the engines share that run a container as a child process: started, watched, ended, nothing left."""

from __future__ import annotations

import math
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medperf.engines.base import Cause, Limits, Outcome, State, TaskSpec
from medperf.engines.cgroup import Cgroup, Hierarchy, make_cgroup, read_hierarchies
from medperf.engines.logs import RunLog
from medperf.engines.mounts import Mount
from medperf.engines.outputs import remove_tree, take_over
from medperf.engines.process import LocalProcess
from medperf.engines.tree import ProcessTree
from medperf.engines.watch import TreeBounds, Watch
from medperf.errors import ClientError


@dataclass(frozen=True)
class Launch:
    """What the launcher is to become, and within which bounds."""

    spec: TaskSpec
    # The command line and the launcher's `enclosure`, given the descriptor to report on.
    command: Callable[[int], tuple[tuple[str, ...], Mapping[str, object] | None]]
    # The user that it becomes, which sees these host paths staged; None is the caller's own.
    real_id: int | None
    mounts: tuple[Mount, ...]
    # The container's folders in memory, as it sees them.
    memory_folders: tuple[str, ...]
    # Processes that are the engine's own, and memory that a process of it reserves.
    overhead_processes: int
    overhead_bytes: int
    environment: Mapping[str, str]
    # Whether the command waits inside until it is told to go on: see `LocalProcess`.
    has_gate: bool
    # A folder of the run on disk that counts as output and is removed after it, where there is one.
    scratch: Path

    @property
    def limits(self) -> Limits:
        return self.spec.limits


@dataclass
class Run:
    """A run that was started and not yet waited for."""

    launch: Launch
    process: LocalProcess
    log: RunLog
    bounds: TreeBounds
    watch: Watch
    cause: Cause | None = None

    @property
    def spec(self) -> TaskSpec:
        return self.launch.spec


class LocalEngine(ABC):
    """Runs that die with the client, more exactly with the thread that started them; each must be waited for."""

    def __init__(self, hierarchies: list[Hierarchy] | None = None) -> None:
        self._hierarchies = hierarchies
        self._runs: dict[str, Run] = {}

    @abstractmethod
    def fault(self, run: Run, report: Mapping[str, int]) -> ClientError | None:
        """Why a run that nobody stopped was none of its container's, or never began; None where it was one."""

    def weaknesses(self) -> tuple[str, ...]:
        tried = make_cgroup(
            f"try{secrets.token_hex(4)}",
            memory_bytes=2**30,
            processes=64,
            cpus=None,
            hierarchies=self._own_hierarchies(),
        )
        tried.remove()
        if tried.memory is None or tried.processes is None:
            return ("memory and processes are only looked at, several times a second: no cgroup can be made",)
        return ()

    def find(self, run_id: str) -> State | None:
        run = self._runs.get(run_id)
        if run is None:
            return None
        return State.RUNNING if run.process.is_running else State.ENDED

    def stop(self, run_id: str) -> None:
        run = self._runs.get(run_id)
        if run is not None and run.process.is_running:
            run.cause = run.cause or Cause.CANCELLED
            run.process.kill()

    def discard(self, run_id: str) -> None:
        # What a client that is gone started died with it; the next one sweeps its cgroup.
        if run_id in self._runs:
            self.stop(run_id)
            self.wait(run_id, on_line=lambda _line: None)

    def left_over(self) -> set[str]:
        return set(self._runs)

    def adopt(self, spec: TaskSpec) -> bool:
        return False  # what another process started died with it

    def wait(
        self, run_id: str, *, on_line: Callable[[str], None], is_cancelled: Callable[[], bool] = lambda: False
    ) -> Outcome:
        run = self._runs[run_id]
        try:
            _follow(run, on_line, is_cancelled)
        finally:
            report, last = _end(run)
            del self._runs[run_id]
        for line in last:
            on_line(line)
        if run.cause is None and run.watch.output_is_over():
            run.cause = Cause.OUTPUT_LIMIT
        if run.cause is None and (fault := self.fault(run, report)) is not None:
            raise fault
        code = report.get("exit-code")
        cause = run.cause or (Cause.ENGINE_GONE if code is None else Cause.EXIT_CODE)
        return Outcome(cause, code, time.monotonic() - run.watch.started)

    def launch(self, launch: Launch) -> None:
        """Begin a run and return."""
        spec = launch.spec
        process = LocalProcess()
        log: RunLog | None = None
        cgroup = Cgroup()
        try:
            log = RunLog(spec.log, spec.limits.log_bytes)
            cgroup = self._cgroup(launch, process.pid)
            tree = ProcessTree(process.pid, launch.memory_folders)
            bounds = TreeBounds(tree, spec.limits, cgroup, launch.overhead_processes)
            watch = Watch(spec.limits, (*spec.outputs(), launch.scratch), bounds.broken_limit, tree.nameless_bytes)
            process.hand_over(_plan(launch, cgroup, process.tell_status), has_gate=launch.has_gate)
        except BaseException:
            process.end()
            cgroup.remove()
            if log is not None:
                log.close()
            raise
        self._runs[spec.run_id] = Run(launch, process, log, bounds, watch)

    def _own_hierarchies(self) -> list[Hierarchy]:
        return read_hierarchies() if self._hierarchies is None else self._hierarchies

    def _cgroup(self, launch: Launch, pid: int) -> Cgroup:
        """A cgroup with the process in it; without folders where the caller may not make or not join them."""
        cgroup = make_cgroup(
            launch.spec.run_id,
            memory_bytes=launch.limits.memory_bytes,
            processes=launch.limits.processes + launch.overhead_processes,
            cpus=launch.limits.cpus,
            hierarchies=self._own_hierarchies(),
        )
        try:
            cgroup.add(pid)
        except OSError:
            cgroup.remove()
            return Cgroup()
        return cgroup


def _follow(run: Run, on_line: Callable[[str], None], is_cancelled: Callable[[], bool]) -> None:
    """Read the run's output to its end, stopping the run where it breaks a limit or is cancelled."""
    while run.process.has_output:
        for line in run.log.feed(run.process.read(run.watch.seconds_to_next_look())):
            on_line(line)
        if run.cause is None:
            run.cause = run.watch.broken_limit() or (Cause.CANCELLED if is_cancelled() else None)
            if run.cause is not None:
                run.process.kill()


def _end(run: Run) -> tuple[dict[str, int], list[str]]:
    """Leave nothing of the run: no process, no cgroup, no folder, no file of another owner."""
    try:
        report = run.process.end()
        run.cause = run.cause or run.bounds.final_cause(report.get("exit-code"))
    finally:
        run.bounds.cgroup.remove()
        last = run.log.close()
    scratch = run.launch.scratch
    for folder in (*run.spec.outputs(), scratch):
        if folder.exists():
            take_over(folder, owner=os.getuid(), group=os.getgid())
    if scratch.exists():
        remove_tree(scratch)
    return report, last


def _plan(launch: Launch, cgroup: Cgroup, status: int) -> dict[str, object]:
    limits = launch.limits
    resources = {"RLIMIT_FSIZE": max(limits.output_bytes, limits.tmp_bytes), "RLIMIT_CORE": 0}
    if cgroup.memory is None:
        # Of one process only; the watcher adds them up, but is late by its interval.
        resources["RLIMIT_DATA"] = limits.memory_bytes + launch.overhead_bytes
    command, enclosure = launch.command(status)
    return {
        "parent": os.getpid(),
        "real_id": launch.real_id,
        "mounts": [{"host": str(mount.host), "writable": mount.writable} for mount in launch.mounts],
        "limits": resources,
        # A cgroup counts exactly, and says that it was what refused; else the watcher counts each run's own.
        "processes": None
        if cgroup.processes
        else (limits.processes + launch.overhead_processes) * (1 + launch.spec.neighbours),
        # Whole processors only, and a container could ask for others again: a cgroup's share is what binds.
        "processors": None if cgroup.cpu or limits.cpus is None else math.ceil(limits.cpus),
        "command": command,
        "enclosure": enclosure,
        "has_gate": launch.has_gate,
        "environment": dict(launch.environment),
    }
