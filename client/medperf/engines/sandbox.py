"""The engine for machines without one: a container's own code as a local process under bubblewrap."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from medperf.engines.base import TaskSpec
from medperf.engines.bubblewrap import OVERHEAD_PROCESSES, Machine, bubblewrap_command, lay_out
from medperf.engines.cgroup import Hierarchy
from medperf.engines.confinement import confine
from medperf.engines.local import Launch, LocalEngine, Run
from medperf.engines.logs import last_lines
from medperf.engines.machine import read_machine, remedy
from medperf.engines.packages import install
from medperf.errors import ClientError, EngineUnavailable
from medperf.manifest.model import Package, Sandbox


class SandboxEngine(LocalEngine):
    """Runs containers that have a sandbox section.

    `packages_root` keeps the installed packages of all containers, by hash.
    """

    name = "sandbox"
    has_images = False

    def __init__(
        self, packages_root: Path, *, machine: Machine | None = None, hierarchies: list[Hierarchy] | None = None
    ) -> None:
        super().__init__(hierarchies)
        self.packages_root = packages_root
        self._machine = machine
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

    def why_no_gpus(self) -> str | None:
        return "the sandbox shows a container no devices"

    def prepare(self, spec: TaskSpec, *, on_line: Callable[[str], None]) -> None:
        packages = spec.sandbox.packages if spec.sandbox is not None else ()
        if packages and packages not in self._packages:
            self._packages[packages] = install(self.packages_root, packages, on_line=on_line)

    def start(self, spec: TaskSpec) -> None:
        if spec.run_id in self._runs:
            raise ValueError(f"the run {spec.run_id} was started already")
        machine = self._read_machine()
        # Beside the log: a client that is killed leaves it where the run's other files are found.
        scratch = spec.log.parent / f"{spec.run_id}.tmp"
        confinement = confine(spec, machine.caller)
        layout = lay_out(spec, confinement, machine, packages=self._packages_of(spec), scratch=scratch)
        if any(mount.host == scratch for mount in layout.mounts):
            scratch.mkdir()
        self.launch(
            Launch(
                spec,
                command=lambda status: (bubblewrap_command(layout, status_descriptor=status), None),
                real_id=confinement.real_id,
                mounts=layout.mounts,
                memory_folders=tuple(layout.memory_folders),
                overhead_processes=OVERHEAD_PROCESSES,
                overhead_bytes=0,
                # Nothing: a container's LD_PRELOAD would be loaded before it is confined.
                environment={},
                has_gate=True,
                scratch=scratch,
            )
        )

    def fault(self, run: Run, report: Mapping[str, int]) -> ClientError | None:
        if "child-pid" in report:
            return None
        lines = last_lines(run.spec.log)
        said = "\n".join(f"    {line}" for line in lines)
        return EngineUnavailable(
            f"bubblewrap cannot run a container on this machine; it said\n{said}",
            hint=remedy("\n".join(lines), self._read_machine().bubblewrap),
        )

    def _read_machine(self) -> Machine:
        self._machine = self._machine or read_machine()
        return self._machine

    def _packages_of(self, spec: TaskSpec) -> Path | None:
        if spec.sandbox is None or not spec.sandbox.packages:
            return None
        folder = self._packages.get(spec.sandbox.packages)
        if folder is None:
            raise EngineUnavailable(
                f"The packages of the task {spec.task!r} are not installed", hint="Run the same command again."
            )
        return folder
