"""Reads MLCube's `mlcube.yaml` into the model, refusing by name what a data owner must not run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from medperf import safe_yaml
from medperf.manifest.arguments import parse_docker
from medperf.manifest.model import Kind, Manifest, Package, Parameter, Sandbox, Task
from medperf.manifest.rules import HINT, RuleBroken, refuse

MAX_TASKS = 50
MAX_PARAMETERS = 50
MAX_PACKAGES = 200
# What a name may be that becomes part of a command line and of a path.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_PACKAGE = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9.+!]{1,60})"
)
_HASH = re.compile(r"sha256:(?P<hex>[0-9a-f]{64})")


def parse_mlcube(text: str | bytes, *, what: str = "The manifest", is_own: bool = False) -> Manifest:
    """The container that an `mlcube.yaml` describes; BadManifest names the key that breaks a rule, and its line.

    `is_own` is whether who reads that is the one who can correct it.
    """
    document, lines = safe_yaml.load_with_lines(text, what=what, hint=None if is_own else HINT)
    try:
        return _manifest(document)
    except RuleBroken as broken:
        raise broken.as_error(lines) from broken


def _manifest(document: Any) -> Manifest:
    top = _mapping(document, "the manifest")
    sandbox = _sandbox(top["sandbox"]) if "sandbox" in top else None
    tasks = _tasks(top.get("tasks"))
    docker = parse_docker(_mapping(top["docker"], "docker")) if top.get("docker") is not None else None
    if docker is None and sandbox is None:
        refuse("docker", "is missing, and so is sandbox: nothing says how to run the container")
    for task in tasks.values():
        if sandbox and task.entrypoint:
            refuse(f"tasks.{task.name}.entrypoint", "cannot stand beside a sandbox section")
    platform = _mapping(top.get("platform") or {}, "platform")
    gpus = platform.get("accelerator_count") or 0
    if not isinstance(gpus, int) or isinstance(gpus, bool) or not 0 <= gpus <= 64:
        refuse("platform.accelerator_count", "must be a count of accelerators, 0 to 64")
    name = _text(top.get("name", "container"), "name")
    description = top.get("description") or ""
    return Manifest(
        name=name,
        description=_text(description, "description", limit=10_000) if description else "",
        tasks=MappingProxyType(tasks),
        docker=docker,
        sandbox=sandbox,
        gpus=gpus,
    )


def _tasks(value: Any) -> dict[str, Task]:
    written = _mapping(value, "tasks")
    if not 0 < len(written) <= MAX_TASKS:
        refuse("tasks", f"must hold 1 to {MAX_TASKS} tasks")
    return {name: _task(name, body) for name, body in written.items()}


def _task(name: str, value: Any) -> Task:
    key = f"tasks.{name}"
    if not _NAME.fullmatch(name):
        refuse(key, "is not a name: letters, digits and _ only")
    body = _mapping(value or {}, key)
    parameters = _mapping(body.get("parameters") or {}, f"{key}.parameters")
    inputs = _parameters(parameters.get("inputs"), f"{key}.parameters.inputs")
    outputs = _parameters(parameters.get("outputs"), f"{key}.parameters.outputs")
    both = {parameter.name for parameter in inputs} & {parameter.name for parameter in outputs}
    if both:
        refuse(f"{key}.parameters.outputs.{min(both)}", "is an input too")
    entrypoint = body.get("entrypoint")
    words = tuple(_text(entrypoint, f"{key}.entrypoint").split()) if entrypoint is not None else None
    return Task(name, inputs, outputs, words)


def _parameters(value: Any, key: str) -> tuple[Parameter, ...]:
    written = _mapping(value or {}, key)
    if len(written) > MAX_PARAMETERS:
        refuse(key, f"holds more than {MAX_PARAMETERS} parameters")
    return tuple(_parameter(name, body, f"{key}.{name}") for name, body in written.items())


def _parameter(name: str, value: Any, key: str) -> Parameter:
    if not _NAME.fullmatch(name):
        refuse(key, "is not a name: letters, digits and _ only")
    if isinstance(value, str):
        value = {"default": value}
    body = _mapping(value or {}, key)
    # MLCube's own rule: a parameter without a default has its name as its path.
    default = _text(body.get("default", name), f"{key}.default")
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


def _sandbox(value: Any) -> Sandbox:
    body = _mapping(value, "sandbox")
    unknown = sorted(body.keys() - {"command", "packages"})
    if unknown:
        refuse(f"sandbox.{unknown[0]}", "is unknown; a sandbox has a command and packages")
    command = body.get("command")
    if not isinstance(command, list) or not command:
        refuse("sandbox.command", "must be a list of words, the program first")
    words = tuple(_text(word, f"sandbox.command[{place}]") for place, word in enumerate(command))
    written = body.get("packages") or []
    if not isinstance(written, list) or len(written) > MAX_PACKAGES:
        refuse("sandbox.packages", f"must be a list of at most {MAX_PACKAGES} packages")
    packages = tuple(_package(entry, f"sandbox.packages[{place}]") for place, entry in enumerate(written))
    names = [re.sub(r"[-_.]+", "-", package.name).lower() for package in packages]
    for place, name in enumerate(names):
        if name in names[:place]:
            refuse(f"sandbox.packages[{place}].name", f"{name} is there twice")
    return Sandbox(words, packages)


def _package(value: Any, key: str) -> Package:
    body = _mapping(value, key)
    unknown = sorted(body.keys() - {"name", "hashes"})
    if unknown:
        refuse(f"{key}.{unknown[0]}", "is unknown; a package has a name and hashes, no options and no URL")
    found = _PACKAGE.fullmatch(_text(body.get("name"), f"{key}.name"))
    if not found:
        refuse(f"{key}.name", f"({body['name']!r:.80}) must be NAME==VERSION: no URL, no option, no range")
    hashes = body.get("hashes")
    if not isinstance(hashes, list) or not 0 < len(hashes) <= 200:
        refuse(f"{key}.hashes", "must list at least one sha256:… of the package's wheels")
    digests = []
    for place, written in enumerate(hashes):
        digest = _HASH.fullmatch(written) if isinstance(written, str) else None
        if not digest:
            refuse(f"{key}.hashes[{place}]", "must be sha256: and 64 hexadecimal digits")
        digests.append(digest["hex"])
    return Package(found["name"], found["version"], tuple(digests))


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        refuse(key, "is missing" if value is None else "must be a mapping")
    return value


def _text(value: Any, key: str, *, limit: int = 500) -> str:
    if not isinstance(value, str) or not value.strip():
        refuse(key, "must be text")
    if len(value) > limit:
        refuse(key, f"is longer than {limit} characters")
    if any(ord(character) < 32 and character not in "\n\t" for character in value):
        refuse(key, "holds control characters")
    return value
