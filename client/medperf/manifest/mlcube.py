"""Reads MLCube's `mlcube.yaml` into the model, refusing by name what a data owner must not run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from medperf.manifest.arguments import parse_docker
from medperf.manifest.model import Kind, Manifest, Parameter, Task
from medperf.manifest.rules import MAX_GPUS, MAX_PARAMETERS, MAX_TASKS, check_name, mapping, refuse, text
from medperf.manifest.sandbox_section import read_sandbox

_MAX_MEMORY_GB = 100_000


def read_mlcube(top: Mapping[str, Any]) -> Manifest:
    """The container that an `mlcube.yaml` describes; RuleBroken names the key that breaks a rule."""
    sandbox = read_sandbox(top["sandbox"]) if "sandbox" in top else None
    tasks = _tasks(top.get("tasks"))
    docker, argued_gpus = None, None
    if top.get("docker") is not None:
        docker, argued_gpus = parse_docker(mapping(top["docker"], "docker"))
    # Of a file: which one is run says the registration, by its hash.
    is_singularity = docker is None and sandbox is None and top.get("singularity") is not None
    if is_singularity:
        mapping(top["singularity"], "singularity")
    elif docker is None and sandbox is None:
        refuse("docker", "is missing, and so is sandbox: nothing says how to run the container")
    for task in tasks.values():
        if sandbox and task.entrypoint:
            refuse(f"tasks.{task.name}.entrypoint", "cannot stand beside a sandbox section")
    platform = mapping(top.get("platform") or {}, "platform")
    gpus = platform.get("accelerator_count") or 0
    if not isinstance(gpus, int) or isinstance(gpus, bool) or not 0 <= gpus <= MAX_GPUS:
        refuse("platform.accelerator_count", f"must be a count of accelerators, 0 to {MAX_GPUS}")
    name = text(top.get("name", "container"), "name")
    description = top.get("description") or ""
    return Manifest(
        name=name,
        description=text(description, "description", limit=10_000) if description else "",
        tasks=MappingProxyType(tasks),
        docker=docker,
        sandbox=sandbox,
        gpus=gpus if argued_gpus is None else argued_gpus,
        is_singularity=is_singularity,
        memory_bytes=_memory(platform.get("host_memory_gb")),
    )


def _memory(written: Any) -> int | None:
    """The host's memory that a container asks for, in bytes."""
    if not written:
        return None
    try:
        number = float(written)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(written, bool) or not 0 < number <= _MAX_MEMORY_GB:
        refuse("platform.host_memory_gb", f"must be a number of gigabytes up to {_MAX_MEMORY_GB:,}")
    return int(number * 1024**3)


def _tasks(value: Any) -> dict[str, Task]:
    written = mapping(value, "tasks")
    if not 0 < len(written) <= MAX_TASKS:
        refuse("tasks", f"must hold 1 to {MAX_TASKS} tasks")
    return {name: _task(name, body) for name, body in written.items()}


def _task(name: str, value: Any) -> Task:
    key = f"tasks.{name}"
    check_name(name, key)
    body = mapping(value or {}, key)
    parameters = mapping(body.get("parameters") or {}, f"{key}.parameters")
    inputs = _parameters(parameters.get("inputs"), f"{key}.parameters.inputs")
    outputs = _parameters(parameters.get("outputs"), f"{key}.parameters.outputs")
    both = {parameter.name for parameter in inputs} & {parameter.name for parameter in outputs}
    if both:
        refuse(f"{key}.parameters.outputs.{min(both)}", "is an input too")
    entrypoint = body.get("entrypoint")
    words = tuple(text(entrypoint, f"{key}.entrypoint").split()) if entrypoint is not None else None
    return Task(name, inputs, outputs, words)


def _parameters(value: Any, key: str) -> tuple[Parameter, ...]:
    written = mapping(value or {}, key)
    if len(written) > MAX_PARAMETERS:
        refuse(key, f"holds more than {MAX_PARAMETERS} parameters")
    return tuple(_parameter(name, body, f"{key}.{name}") for name, body in written.items())


def _parameter(name: str, value: Any, key: str) -> Parameter:
    check_name(name, key)
    if isinstance(value, str):
        value = {"default": value}
    body = mapping(value or {}, key)
    # MLCube's own rule: a parameter without a default has its name as its path.
    default = text(body.get("default", name), f"{key}.default")
    written_kind = body.get("type")
    if written_kind not in (None, "unknown", Kind.FILE, Kind.DIRECTORY):
        refuse(f"{key}.type", "must be file or directory")
    kind = Kind(written_kind) if written_kind in (Kind.FILE, Kind.DIRECTORY) else None
    if kind is None and default.endswith("/"):
        kind = Kind.DIRECTORY
    return Parameter(name, _inside_workspace(default, f"{key}.default"), kind)


def _inside_workspace(default: str, key: str) -> str:
    path = PurePosixPath(default)
    if path.is_absolute():
        refuse(key, f"is an absolute path ({default!r:.80}); it must be relative to the workspace")
    for forbidden in ("~", "$"):
        if forbidden in default:
            refuse(key, f"holds {forbidden!r}, which would be expanded on the data owner's machine")
    if ".." in path.parts:
        refuse(key, "climbs out of the workspace with '..'")
    return str(path)
