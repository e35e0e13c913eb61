"""Reads MedPerf's `container_config.yaml`: an image, tasks, and volumes at paths that the container expects."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from medperf.manifest.arguments import image_name, size
from medperf.manifest.model import (
    ADDITIONAL_FILES,
    ALL_GPUS,
    PARAMETERS_FILE,
    Docker,
    Gpus,
    Kind,
    Manifest,
    Parameter,
    Task,
)
from medperf.manifest.rules import MAX_PARAMETERS, MAX_TASKS, check_name, gpu_count, mapping, refuse, text

_IMAGE, _ARCHIVE, _SINGULARITY = "DockerImage", "DockerArchive", "SingularityFile"
_ENCRYPTED = ("EncryptedDockerArchive", "EncryptedSingularityFile")
_RUN_ARGS = ("command", "entrypoint", "environment", "gpus", "shm_size")
# Decided by the site, whatever a manifest says.
_OF_THE_SITE = {"network": "network", "ports": "ports", "user": "privileges", "volumes": "a mount"}
# Where the container's own files lie in its workspace; whatever else is given has no place of its own.
_OWN_FILES = {PARAMETERS_FILE: "parameters.yaml", ADDITIONAL_FILES: ADDITIONAL_FILES}
_MAX_VARIABLES = 100
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# The kernel's, and what every engine puts there itself.
_TAKEN = tuple(PurePosixPath(path) for path in ("/proc", "/sys", "/dev"))
_TAKEN_ITSELF = tuple(PurePosixPath(path) for path in ("/", "/tmp", "/etc", "/usr", "/bin", "/lib"))  # noqa: S108


def read_container_config(top: Mapping[str, Any]) -> Manifest:
    """The container that a `container_config.yaml` describes; RuleBroken names the key that breaks a rule."""
    kind = top.get("container_type")
    if kind in _ENCRYPTED:
        refuse("container_type", f"is {kind}: encrypted images cannot be run")
    if kind not in (_IMAGE, _ARCHIVE, _SINGULARITY):
        refuse("container_type", f"must be {_IMAGE}, {_ARCHIVE} or {_SINGULARITY}")
    if "sandbox" in top:
        refuse("sandbox", "is of mlcube.yaml: code that is told its paths can run without its image, this cannot")
    # Of an archive or a file it is an address; which one is run says the registration, by its hash.
    address = text(top.get("image"), "image", limit=2000)
    image = image_name(address, "image") if kind == _IMAGE else _file_name(address)
    written = mapping(top.get("tasks"), "tasks")
    if not 0 < len(written) <= MAX_TASKS:
        refuse("tasks", f"must hold 1 to {MAX_TASKS} tasks")
    gpus = [_gpus(mapping(body or {}, f"tasks.{name}"), f"tasks.{name}") for name, body in written.items()]
    description = top.get("description") or ""
    return Manifest(
        name=text(top.get("name") or "container", "name"),
        description=text(description, "description", limit=10_000) if description else "",
        tasks=MappingProxyType({name: _task(name, body) for name, body in written.items()}),
        docker=None if kind == _SINGULARITY else Docker(image, is_archive=kind == _ARCHIVE),
        sandbox=None,
        gpus=ALL_GPUS if ALL_GPUS in gpus else max(count for count in gpus if isinstance(count, int)),
        is_singularity=kind == _SINGULARITY,
    )


def _file_name(address: str) -> str:
    """What an archive is called, as an engine would let an image be called."""
    return re.sub(r"[^a-z0-9]+", "-", address.rpartition("/")[2].lower()).strip("-") or "archive"


def _task(name: str, value: Any) -> Task:
    key = f"tasks.{name}"
    check_name(name, key)
    body = mapping(value or {}, key)
    inputs = _volumes(body.get("input_volumes"), f"{key}.input_volumes")
    outputs = _volumes(body.get("output_volumes"), f"{key}.output_volumes")
    both = {volume.name for volume in inputs} & {volume.name for volume in outputs}
    if both:
        refuse(f"{key}.output_volumes.{min(both)}", "is an input too")
    _check_apart(inputs, outputs, key)
    arguments = _run_args(body, key)
    entrypoint = arguments.get("entrypoint")
    size_key = f"{key}.run_args.shm_size"
    return Task(
        name,
        inputs,
        outputs,
        entrypoint=None if entrypoint is None else (text(entrypoint, f"{key}.run_args.entrypoint"),),
        command=_words(arguments.get("command"), f"{key}.run_args.command"),
        environment=_environment(arguments.get("environment"), f"{key}.run_args.environment"),
        shm_bytes=None if arguments.get("shm_size") is None else size(str(arguments["shm_size"]), size_key),
    )


def _run_args(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    arguments = mapping(body.get("run_args") or {}, f"{key}.run_args")
    for name in arguments:
        if name in _OF_THE_SITE:
            refuse(f"{key}.run_args.{name}", f"asks for {_OF_THE_SITE[name]}; the site decides that")
        if name not in _RUN_ARGS:
            refuse(f"{key}.run_args.{name}", f"is unknown; only {', '.join(_RUN_ARGS)} count")
    return arguments


def _words(value: Any, key: str) -> tuple[str, ...]:
    """A command as text, split as a shell would, or as a list of words."""
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(text(word, f"{key}[{place}]") for place, word in enumerate(value))
    try:
        return tuple(shlex.split(text(value, key, limit=4000)))
    except ValueError:
        refuse(key, "has a quote that is not closed")


def _environment(value: Any, key: str) -> Mapping[str, str]:
    written = mapping(value or {}, key)
    if len(written) > _MAX_VARIABLES:
        refuse(key, f"holds more than {_MAX_VARIABLES} variables")
    for name, content in written.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            refuse(f"{key}.{name}", "is not a variable's name")
        if not isinstance(content, str | int | float) or isinstance(content, bool):
            refuse(f"{key}.{name}", "must be text or a number")
    return MappingProxyType({name: str(content) for name, content in written.items()})


def _gpus(body: Mapping[str, Any], key: str) -> Gpus:
    """How many a task asks for."""
    key = f"{key}.run_args"
    value = mapping(body.get("run_args") or {}, key).get("gpus")
    return 0 if value in (None, "") else gpu_count(value, f"{key}.gpus")


def _volumes(value: Any, key: str) -> tuple[Parameter, ...]:
    written = mapping(value or {}, key)
    if len(written) > MAX_PARAMETERS:
        refuse(key, f"holds more than {MAX_PARAMETERS} volumes")
    return tuple(_volume(name, body, f"{key}.{name}") for name, body in written.items())


def _volume(name: str, value: Any, key: str) -> Parameter:
    check_name(name, key)
    body = mapping(value, key)
    kind = body.get("type")
    if kind not in (Kind.FILE, Kind.DIRECTORY):
        refuse(f"{key}.type", "must be file or directory")
    return Parameter(
        name, _OWN_FILES.get(name, name), Kind(kind), _mount_path(body.get("mount_path"), f"{key}.mount_path")
    )


def _mount_path(value: Any, key: str) -> PurePosixPath:
    written = text(value, key)
    path = PurePosixPath(written)
    if not path.is_absolute() or ".." in path.parts or str(path).startswith("//"):
        refuse(key, f"({written!r:.80}) must be an absolute path inside the container, without '..'")
    if path in _TAKEN_ITSELF or any(path == taken or taken in path.parents for taken in _TAKEN):
        refuse(key, f"({written!r:.80}) is a place that the container's system needs")
    return path


def _check_apart(inputs: tuple[Parameter, ...], outputs: tuple[Parameter, ...], key: str) -> None:
    """Refuse volumes that lie in each other: the inner one's place would have to be made in the outer one."""
    placed = [(volume, f"{key}.input_volumes") for volume in inputs]
    placed += [(volume, f"{key}.output_volumes") for volume in outputs]
    for number, (one, where) in enumerate(placed):
        for other, _ in placed[:number]:
            first, second = one.mount_path, other.mount_path
            if (
                first is not None
                and second is not None
                and (first == second or first in second.parents or second in first.parents)
            ):
                refuse(f"{where}.{one.name}.mount_path", f"({first}) overlaps that of {other.name} ({second})")
