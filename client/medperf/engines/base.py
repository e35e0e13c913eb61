"""The seam between MedPerf and whatever runs a container: what a run is, and what an engine must do with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from medperf.causes import NEXT_STEP, Cause
from medperf.engines.logs import last_lines
from medperf.engines.mounts import Mount
from medperf.errors import ContainerFailed, EngineUnavailable
from medperf.image_archives import ImageArchive
from medperf.manifest.model import Sandbox

__all__ = [
    "CannotStart",
    "Cause",
    "Engine",
    "EngineLost",
    "EngineSilent",
    "Image",
    "Limits",
    "Mount",
    "Outcome",
    "State",
    "TaskSpec",
    "failure",
]

_GIB = 1024**3


def _default_memory_bytes() -> int:
    # Three quarters of the machine: a container may use it, and the person's session survives one that leaks.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


@dataclass(frozen=True)
class Limits:
    """Bounds on one run, each for the whole container and not for one of its processes."""

    # Wall-clock time from the start. Inference on a large test set takes hours; a day means that it hangs.
    wall_seconds: float = 24 * 3600
    # Processors' worth of time; None is all that the machine has.
    cpus: float | None = None
    memory_bytes: int = field(default_factory=_default_memory_bytes)
    # Processes and threads together: a numerical library starts one thread a core, in each worker.
    processes: int = 1024
    # Everything written to the declared outputs together; an entry counts for 4096 bytes at least.
    output_bytes: int = 50 * _GIB
    # /tmp and /dev/shm, each; they are memory.
    tmp_bytes: int = 1 * _GIB
    log_bytes: int = 16 * 1024**2
    # Those that it is given, by UUID.
    gpus: tuple[str, ...] = ()

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Limits:
        """The limits that the journal has of a run, as `asdict` made them."""
        return cls(**{**record, "gpus": tuple(record.get("gpus", ()))})


@dataclass(frozen=True)
class Image:
    """A container's image: the name in its manifest, and the SHA-256 that says which it is.

    `digests` are others by which a store may know it; `archive` brings it here as a file, where there is one. One
    that is a Singularity file is that file's: `sif` brings it, and Docker has no use for it.
    """

    name: str
    sha256: str
    digests: tuple[str, ...] = ()
    archive: Callable[[], ImageArchive] | None = field(default=None, compare=False)
    sif: Callable[[], Path] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class TaskSpec:
    """One run of one task of a container."""

    run_id: str
    task: str
    # The container's command line after its own command: the task's name, then `--parameter=path`.
    arguments: tuple[str, ...]
    mounts: tuple[Mount, ...]
    # The unpacked additional files, seen at /mlcube_code.
    code: Path | None
    sandbox: Sandbox | None
    # Written from the start of the run on; its folder exists.
    log: Path
    limits: Limits = field(default_factory=Limits)
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    image: Image | None = None
    # Replaces the image's own program; the sandbox has its own.
    entrypoint: str | None = None
    # Of /dev/shm, where the manifest asks for more than `tmp_bytes`.
    shm_bytes: int | None = None
    # Runs that the same command may have beside it: where the kernel counts a user's processes, theirs count too.
    neighbours: int = 0
    # Whether an image may write to a throwaway layer over its own files: only where a person agreed.
    root_is_writable: bool = False

    def outputs(self) -> tuple[Path, ...]:
        """The host folders that hold what the container writes; a file that it may write is alone in its own."""
        hosts = (mount.host for mount in self.mounts if mount.writable)
        return tuple(host.parent if host.is_file() else host for host in hosts)


class CannotStart(ContainerFailed):
    """The image's own program cannot be started."""


class EngineSilent(EngineUnavailable):
    """An engine takes connections and does not answer."""


class EngineLost(EngineUnavailable):
    """An engine stopped answering in the middle of a run, which may still go on in it."""


class State(StrEnum):
    """What an engine knows of a run that it was asked to start."""

    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `exit_code` is None where the container was stopped before it could exit itself."""

    cause: Cause
    exit_code: int | None
    seconds: float
    # What the engine knows that may help, as a sentence.
    advice: str = ""

    @property
    def succeeded(self) -> bool:
        return self.cause is Cause.EXIT_CODE and self.exit_code == 0


class Engine(Protocol):
    """Runs containers. A run is known by its `run_id`; nothing here blocks but `prepare` and `wait`."""

    name: str
    # Whether a container has files of its own here, which it could be let write to.
    has_images: bool

    def weaknesses(self) -> tuple[str, ...]:
        """What it cannot hold a container to on this machine, each as a clause; none where it can do all."""

    def why_no_gpus(self) -> str | None:
        """Why it can give a container no GPU, as a clause; None where it can, if the machine has any."""

    def prepare(self, spec: TaskSpec, *, on_line: Callable[[str], None]) -> None:
        """Fetch what the run needs (packages, an image). May be long, uses the network, can be repeated."""

    def start(self, spec: TaskSpec) -> None:
        """Start the prepared run and return. Raises EngineUnavailable where the engine cannot run it."""

    def find(self, run_id: str) -> State | None:
        """The state of a run that this engine still knows, else None."""

    def adopt(self, spec: TaskSpec) -> bool:
        """Take over a run that another process started, running or ended; False where nothing of it is here.

        Of `spec` counts how it is watched: its log, its outputs and its limits. It must be waited for.
        """

    def wait(
        self, run_id: str, *, on_line: Callable[[str], None], is_cancelled: Callable[[], bool] = lambda: False
    ) -> Outcome:
        """Block until the run has ended; `discard` then removes what the engine keeps of it.

        Until then another process can adopt it and learn the same outcome. `on_line` gets each line of output,
        harmless to a terminal; `is_cancelled` is asked whether the run is to be stopped. An exception,
        KeyboardInterrupt included, stops the run and leaves nothing of it; but EngineLost leaves it as it is.
        """

    def stop(self, run_id: str) -> None:
        """End the run now; its outcome is CANCELLED. Does nothing for a run that has ended or is unknown."""

    def discard(self, run_id: str) -> None:
        """End the run, whoever started it, and leave nothing of it. Raises EngineUnavailable where the engine does
        not answer: then it is tried again by the next command.
        """

    def left_over(self) -> set[str]:
        """The runs of this local folder of which the engine still has something, whosever they are."""


_FAULTS = {
    Cause.TIME_LIMIT: "ran longer than its limit of {limits.wall_seconds:,.0f} s",
    Cause.OUT_OF_MEMORY: "used more memory than its limit of {limits.memory_bytes:,} bytes",
    Cause.OUTPUT_LIMIT: "wrote more than its limit of {limits.output_bytes:,} bytes",
    Cause.PROCESS_LIMIT: "started more than its limit of {limits.processes:,} processes",
    Cause.EXIT_CODE: "ended with exit code {code}",
    Cause.CANCELLED: "was stopped",
    Cause.ENGINE_GONE: "was lost: its engine ended in the middle",
}


def failure(spec: TaskSpec, outcome: Outcome) -> ContainerFailed:
    """The error for a run that did not succeed: task, cause, log file and the log's last lines."""
    said = _FAULTS[outcome.cause].format(limits=spec.limits, code=outcome.exit_code)
    hint = f"{outcome.advice} {NEXT_STEP[outcome.cause]} The whole log: {spec.log}".lstrip()
    lines = last_lines(spec.log)
    tail = "\n  its last lines:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""
    return ContainerFailed(f"The task {spec.task!r} {said}{tail}", hint=hint)
