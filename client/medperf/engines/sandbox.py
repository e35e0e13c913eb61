"""The engine for machines without one: a container's own code as a local process under bubblewrap."""

from __future__ import annotations

import math
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medperf.engines.base import Cause, Outcome, State, TaskSpec
from medperf.engines.bubblewrap import Layout, Machine, bubblewrap_command, lay_out
from medperf.engines.cgroup import OVERHEAD_PROCESSES, Cgroup, Hierarchy, make_cgroup, read_hierarchies
from medperf.engines.confinement import confine
from medperf.engines.logs import RunLog, last_lines
from medperf.engines.machine import read_machine, remedy
from medperf.engines.outputs import remove_tree, take_over
from medperf.engines.packages import install
from medperf.engines.process import SandboxProcess
from medperf.engines.tree import ProcessTree
from medperf.engines.watch import TreeBounds, Watch
from medperf.errors import EngineUnavailable
from medperf.manifest.model import Package, Sandbox


@dataclass
class _Run:
    spec: TaskSpec
    layout: Layout
    process: SandboxProcess
    log: RunLog
    bounds: TreeBounds
    watch: Watch
    scratch: Path
    cause: Cause | None = None


class SandboxEngine:
    """Runs containers that have a sandbox section.

    A run dies with the client, more exactly with the thread that started it. Every started run must be waited
    for. `packages_root` keeps the installed packages of all containers, by hash.
    """

    name = "sandbox"
    has_images = False

    def __init__(
        self, packages_root: Path, *, machine: Machine | None = None, hierarchies: list[Hierarchy] | None = None
    ) -> None:
        self.packages_root = packages_root
        self._machine = machine
        self._hierarchies = hierarchies
        self._runs: dict[str, _Run] = {}
        # Installed, and hashed, once for an engine's life, as a container's code is: no container can write there.
        self._packages: dict[tuple[Package, ...], Path] = {}

    def probe(self) -> None:
        """Raise EngineUnavailable, with the remedy, unless a container runs here: found by running one."""
        with tempfile.TemporaryDirectory(prefix="medperf-probe-") as folder:
            # Two clients may probe at once.
            run_id = f"probe{Path(folder).name}"
            spec = TaskSpec(
                run_id, "probe", (), (), None, Sandbox(("python", "-c", "pass"), ()), Path(folder, "log")
            )
            self.start(spec)
            outcome = self.wait(run_id, on_line=lambda _line: None)
            if not outcome.succeeded:
                raise EngineUnavailable(
                    f"A container that does nothing ended with {outcome.cause}, exit code {outcome.exit_code}",
                    hint="\n".join(last_lines(spec.log)) or "It said nothing.",
                )

    def weaknesses(self) -> tuple[str, ...]:
        hierarchies = read_hierarchies() if self._hierarchies is None else self._hierarchies
        tried = make_cgroup(
            f"try{secrets.token_hex(4)}", memory_bytes=2**30, processes=64, cpus=None, hierarchies=hierarchies
        )
        tried.remove()
        if tried.memory is None or tried.processes is None:
            return ("memory and processes are only looked at, several times a second: no cgroup can be made",)
        return ()

    def why_no_gpus(self) -> str | None:
        return "the sandbox shows a container no devices"

    def prepare(self, spec: TaskSpec, *, on_line: Callable[[str], None]) -> None:
        packages = spec.sandbox.packages if spec.sandbox is not None else ()
        if packages and packages not in self._packages:
            self._packages[packages] = install(self.packages_root, packages, on_line=on_line)

    def start(self, spec: TaskSpec) -> None:
        if spec.run_id in self._runs:
            raise ValueError(f"the run {spec.run_id} was started already")
        self._machine = self._machine or read_machine()
        # Beside the log: a client that is killed leaves it where the run's other files are found.
        scratch = spec.log.parent / f"{spec.run_id}.tmp"
        confinement = confine(spec, self._machine.caller)
        layout = lay_out(spec, confinement, self._machine, packages=self._packages_of(spec), scratch=scratch)
        if any(mount.host == scratch for mount in layout.mounts):
            scratch.mkdir()
        self._runs[spec.run_id] = self._launch(spec, layout, scratch)

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
        if run.cause is None and "child-pid" not in report:
            raise _unavailable(run)
        code = report.get("exit-code")
        cause = run.cause or (Cause.ENGINE_GONE if code is None else Cause.EXIT_CODE)
        return Outcome(cause, code, time.monotonic() - run.watch.started)

    def _packages_of(self, spec: TaskSpec) -> Path | None:
        if spec.sandbox is None or not spec.sandbox.packages:
            return None
        folder = self._packages.get(spec.sandbox.packages)
        if folder is None:
            raise EngineUnavailable(
                f"The packages of the task {spec.task!r} are not installed", hint="Run the same command again."
            )
        return folder

    def _launch(self, spec: TaskSpec, layout: Layout, scratch: Path) -> _Run:
        process = SandboxProcess()
        log: RunLog | None = None
        cgroup = Cgroup()
        try:
            log = RunLog(spec.log, spec.limits.log_bytes)
            cgroup = self._cgroup(spec, process.pid)
            tree = ProcessTree(process.pid, layout.memory_folders)
            bounds = TreeBounds(tree, spec.limits, cgroup)
            watch = Watch(spec.limits, (*spec.outputs(), scratch), bounds.broken_limit, tree.nameless_bytes)
            process.hand_over(_plan(layout, cgroup, process.tell_status))
        except BaseException:
            process.end()
            cgroup.remove()
            if log is not None:
                log.close()
            raise
        return _Run(spec, layout, process, log, bounds, watch, scratch)

    def _cgroup(self, spec: TaskSpec, pid: int) -> Cgroup:
        """A cgroup with the process in it; without folders where the caller may not make or not join them."""
        cgroup = make_cgroup(
            spec.run_id,
            memory_bytes=spec.limits.memory_bytes,
            processes=spec.limits.processes,
            cpus=spec.limits.cpus,
            hierarchies=read_hierarchies() if self._hierarchies is None else self._hierarchies,
        )
        try:
            cgroup.add(pid)
        except OSError:
            cgroup.remove()
            return Cgroup()
        return cgroup


def _follow(run: _Run, on_line: Callable[[str], None], is_cancelled: Callable[[], bool]) -> None:
    """Read the run's output to its end, stopping the run where it breaks a limit or is cancelled."""
    while run.process.has_output:
        for line in run.log.feed(run.process.read(run.watch.seconds_to_next_look())):
            on_line(line)
        if run.cause is None:
            run.cause = run.watch.broken_limit() or (Cause.CANCELLED if is_cancelled() else None)
            if run.cause is not None:
                run.process.kill()


def _end(run: _Run) -> tuple[dict[str, int], list[str]]:
    """Leave nothing of the run: no process, no cgroup, no folder, no file of another owner."""
    try:
        report = run.process.end()
        run.cause = run.cause or run.bounds.final_cause(report.get("exit-code"))
    finally:
        run.bounds.cgroup.remove()
        last = run.log.close()
    for folder in (*run.spec.outputs(), run.scratch):
        if folder.exists():
            take_over(folder, owner=os.getuid(), group=os.getgid())
    if run.scratch.exists():
        remove_tree(run.scratch)
    return report, last


def _plan(layout: Layout, cgroup: Cgroup, status: int) -> dict[str, object]:
    limits = layout.confinement.limits
    resources = {"RLIMIT_FSIZE": layout.largest_file_bytes, "RLIMIT_CORE": 0}
    if cgroup.memory is None:
        # Of one process only; the watcher adds them up, but is late by its interval.
        resources["RLIMIT_DATA"] = limits.memory_bytes
    return {
        "parent": os.getpid(),
        "real_id": layout.confinement.real_id,
        "mounts": [{"host": str(mount.host), "writable": mount.writable} for mount in layout.mounts],
        "limits": resources,
        # A cgroup counts exactly, and says that it was what refused.
        "processes": None if cgroup.processes else limits.processes + OVERHEAD_PROCESSES,
        # Whole processors only, and a container could ask for others again: a cgroup's share is what binds.
        "processors": None if cgroup.cpu or limits.cpus is None else math.ceil(limits.cpus),
        "command": bubblewrap_command(layout, status_descriptor=status),
    }


def _unavailable(run: _Run) -> EngineUnavailable:
    lines = last_lines(run.spec.log)
    said = "\n".join(f"    {line}" for line in lines)
    return EngineUnavailable(
        f"bubblewrap cannot run a container on this machine; it said\n{said}",
        hint=remedy("\n".join(lines), run.layout.bubblewrap),
    )
