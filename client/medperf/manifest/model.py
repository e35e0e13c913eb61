"""What a container is, whichever format told it: its tasks, their parameters, and how it can be run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from medperf.errors import BadManifest


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


@dataclass(frozen=True)
class Task:
    name: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    # Replaces the image's entrypoint; its further words come first and the task's name is not passed.
    entrypoint: tuple[str, ...] | None


@dataclass(frozen=True)
class Docker:
    image: str
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    entrypoint: str | None = None
    # As `docker run --gpus` takes it: "all", a count, "device=…".
    gpus: str | None = None
    shm_bytes: int | None = None


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
    # Accelerators that the container asks for.
    gpus: int


PARAMETERS_FILE = "parameters_file"
_INPUTS = frozenset({"data_path", "labels_path", PARAMETERS_FILE})
# role -> task -> (inputs, outputs) that must be there
_REQUIRED: Mapping[Role, Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    Role.PREPARATION: {
        "prepare": (_INPUTS, frozenset({"output_path", "output_labels_path"})),
        "sanity_check": (_INPUTS, frozenset()),
        "statistics": (_INPUTS, frozenset({"output_path"})),
    },
    Role.MODEL: {"infer": (frozenset({"data_path", PARAMETERS_FILE}), frozenset({"output_path"}))},
    Role.METRICS: {
        "evaluate": (frozenset({"predictions", "labels", PARAMETERS_FILE}), frozenset({"output_path"}))
    },
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
                return f"tasks.{task_name}.parameters.{group}.{missing[0]}"
    return None


def fitting_roles(manifest: Manifest) -> tuple[Role, ...]:
    """The roles whose tasks `manifest` has."""
    return tuple(role for role in Role if lacking(manifest, role) is None)


def own_inputs(manifest: Manifest, role: Role) -> Iterator[tuple[Task, Parameter]]:
    """The inputs of a role's tasks that are the container's own files: nobody gives them at a run."""
    for task_name, (inputs, _) in _REQUIRED[role].items():
        task = manifest.tasks[task_name]
        for parameter in task.inputs:
            if parameter.name == PARAMETERS_FILE or parameter.name not in inputs:
                yield task, parameter
