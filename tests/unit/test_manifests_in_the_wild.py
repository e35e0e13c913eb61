"""Manifests as sites have them, each with what must happen: the mounts and the command line, or the error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medperf.errors import BadManifest
from medperf.manifest import fitting_roles, parse_manifest, plan_io

CASES = sorted((Path(__file__).parent / "manifests").glob("*.yaml"))


def read(case: Path) -> tuple[str, dict[str, Any]]:
    """A manifest, and what must happen: the last document of its file."""
    manifest, _, expected = case.read_text().rpartition("\n---\n")
    return manifest + "\n", yaml.safe_load(expected)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with whatever a container may have of its own."""
    workspace = tmp_path / "workspace"
    for path in (
        "parameters.yaml",
        "additional_files/weights.pt",
        "additional_files/models/fold_0.pt",
        "weights/w.pt",
    ):
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).touch()
    return workspace


def planned(text: str, task: str, tmp_path: Path, workspace: Path) -> dict[str, Any]:
    """What a task of the manifest is given."""
    manifest = parse_manifest(text)
    bindings = {}
    for name in ("data_path", "labels_path", "predictions", "labels", "metadata_path"):
        if any(parameter.name == name for parameter in manifest.tasks[task].inputs):
            bindings[name] = tmp_path / name
            bindings[name].mkdir(exist_ok=True)
    plan = plan_io(manifest.tasks[task], bindings=bindings, workspace=workspace, output_folder=tmp_path / "run")
    return {
        "command": " ".join(plan.arguments),
        "mounts": {
            str(mount.inside): f"{mount.host.relative_to(tmp_path)}{' rw' if mount.writable else ''}"
            for mount in plan.mounts
        },
    }


def test_there_are_enough_of_both_formats() -> None:
    newer = [case for case in CASES if "container_type" in read(case)[0]]
    assert len(newer) >= 8
    assert len(CASES) - len(newer) >= 12


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_manifest_does_what_it_must(case: Path, tmp_path: Path, workspace: Path) -> None:
    text, expected = read(case)
    if "error" in expected:
        with pytest.raises(BadManifest) as raised:
            parse_manifest(text)
        assert expected["error"] in str(raised.value)
        return
    manifest = parse_manifest(text)
    assert [str(role) for role in fitting_roles(manifest)] == expected["roles"]
    for task, given in expected["tasks"].items():
        assert planned(text, task, tmp_path, workspace) == given, task
    of = manifest.docker
    known = {
        "gpus": manifest.gpus,
        "memory_bytes": manifest.memory_bytes,
        "image": of and of.image,
        "shm_bytes": of and of.shm_bytes,
        "environment": dict(of.environment) if of else None,
        "is_archive": of is not None and of.is_archive,
        "is_singularity": manifest.is_singularity,
        "entrypoint": of and of.entrypoint,
        "task_environment": {
            name: dict(task.environment) for name, task in manifest.tasks.items() if task.environment
        },
        "task_shm_bytes": {name: task.shm_bytes for name, task in manifest.tasks.items() if task.shm_bytes},
        "task_entrypoint": {
            name: list(task.entrypoint) for name, task in manifest.tasks.items() if task.entrypoint
        },
    }
    assert {key: known[key] for key in expected.get("also", {})} == expected.get("also", {})
