"""What a container is, whichever format told it: its tasks, their parameters, and how it can be run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final, Literal

from medperf.errors import BadManifest

# How many GPUs are meant: a count, or all that there are.
Gpus = int | Literal["all"]
ALL_GPUS: Final = "all"


class Kind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"


class Role(StrEnum):
    """What a benchmark uses a container for; each role has its tasks and parameters."""

    PREPARATION = "preparation"
    MODEL = "model"
    METRICS = "metrics"


@dataclass(frozen=True)
class Parameter:
    """An input or output of a task. `kind` is None where the manifest leaves it to what is there."""

    name: str
    # Relative to the workspace; normalised, inside it.
    default: str
    kind: Kind | None
    # Where the container expects it, if its manifest fixes that; else it is told on its command line.
    mount_path: PurePosixPath | None = None


@dataclass(frozen=True)
class Task:
    """A task: what it takes and gives, and how it is called."""

    name: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    # Replaces the image's entrypoint; its further words come first and the task's name is not passed.
    entrypoint: tuple[str, ...] | None
    # The whole command line of a task whose paths are fixed, empty for the image's own; else it is the task's name
    # with its parameters.
    command: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    shm_bytes: int | None = None


@dataclass(frozen=True)
class Docker:
    """How it runs as an image: by the image's name, or where it `is_archive`, from a file that is registered."""

    image: str
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    entrypoint: str | None = None
    shm_bytes: int | None = None
    is_archive: bool = False


@dataclass(frozen=True)
class Package:
    """One wheel to install: exact version, and the SHA-256 of each file that may be it, in hex."""

    name: str
    version: str
    sha256: tuple[str, ...]


@dataclass(frozen=True)
class Sandbox:
    """How a container's own code runs without an image; `python` as first word is the sandbox's interpreter."""

    command: tuple[str, ...]
    packages: tuple[Package, ...]


@dataclass(frozen=True)
class Manifest:
    name: str
    description: str
    tasks: Mapping[str, Task]
    docker: Docker | None
    sandbox: Sandbox | None
    # What it asks of a machine; of memory, None where it does not say.
    gpus: Gpus
    # Whether its image is a Singularity file that is registered.
    is_singularity: bool = False
    memory_bytes: int | None = None

    @property
    def image_name(self) -> str | None:
        """What its image is called; None where it has none."""
        if self.docker is not None:
            return self.docker.image
        return self.name if self.is_singularity else None


PARAMETERS_FILE = "parameters_file"
ADDITIONAL_FILES = "additional_files"
# What a preparation's first task may write for those after it.
METADATA_PATH = "metadata_path"
# Where it tells of each case how far it is, so that it can be gone on with.
REPORT_FILE = "report_file"
_INPUTS = frozenset({"data_path", "labels_path"})
# role -> task -> (inputs, outputs) that must be there
_REQUIRED: Mapping[Role, Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    Role.PREPARATION: {
        "prepare": (_INPUTS, frozenset({"output_path", "output_labels_path"})),
        "sanity_check": (_INPUTS, frozenset()),
        "statistics": (_INPUTS, frozenset({"output_path"})),
    },
    Role.MODEL: {"infer": (frozenset({"data_path"}), frozenset({"output_path"}))},
    Role.METRICS: {"evaluate": (frozenset({"predictions", "labels"}), frozenset({"output_path"}))},
}


def require_tasks(manifest: Manifest, role: Role | str) -> None:
    """Raise BadManifest, naming the key, unless `manifest` can serve as `role`."""
    role = Role(role)
    missing = lacking(manifest, role)
    if missing is not None:
        raise BadManifest(
            f"The container {manifest.name!r} cannot be a benchmark's {role} container: {missing} is missing",
            hint="Its owner must add it to the manifest; the tasks of each role are in docs/containers.md.",
        )


def lacking(manifest: Manifest, role: Role) -> str | None:
    """The first key that `manifest` would need in order to serve as `role`; None where it can."""
    for task_name, (inputs, outputs) in _REQUIRED[role].items():
        task = manifest.tasks.get(task_name)
        if task is None:
            return f"tasks.{task_name}"
        for group, needed, given in (("inputs", inputs, task.inputs), ("outputs", outputs, task.outputs)):
            missing = sorted(needed - {parameter.name for parameter in given})
            if missing:
                where = f"parameters.{group}" if task.command is None else f"{group.removesuffix('s')}_volumes"
                return f"tasks.{task_name}.{where}.{missing[0]}"
    return None


def fitting_roles(manifest: Manifest) -> tuple[Role, ...]:
    """The roles whose tasks `manifest` has."""
    return tuple(role for role in Role if lacking(manifest, role) is None)


def takes_additional_files(manifest: Manifest) -> bool:
    """Whether a task takes the folder of additional files as a whole, whatever is in it."""
    return any(is_additional_files(parameter) for task in manifest.tasks.values() for parameter in task.inputs)


def is_additional_files(parameter: Parameter) -> bool:
    """Whether an input is the folder of additional files itself."""
    return parameter.default == ADDITIONAL_FILES and parameter.kind is Kind.DIRECTORY


def own_inputs(manifest: Manifest, role: Role) -> Iterator[tuple[Task, Parameter]]:
    """The inputs of a role's tasks that are the container's own files: nobody gives them at a run."""
    for task_name, (inputs, _) in _REQUIRED[role].items():
        task = manifest.tasks[task_name]
        for parameter in task.inputs:
            if parameter.name not in inputs and parameter.name != METADATA_PATH:
                yield task, parameter
