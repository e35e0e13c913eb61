"""Renders an overlay as an operator does: in a copy, with a file for each secret and certificate."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from services import secret_files

from .objects import Object

SOURCE = Path(__file__).parents[3] / "deploy"
OVERLAYS = ("small", "production")
OLDEST_KUBECTL = (1, 27)

# What an operator puts beside an overlay.
CERTIFICATES = {
    "small": ("gateway.crt", "gateway.key"),
    "production": (
        "gateway.crt",
        "gateway.key",
        "broker.crt",
        "broker.key",
        "broker-authority.pem",
        "database-authority.pem",
    ),
}


def copy_with_secrets(folder: Path) -> Path:
    """The manifests, with the secrets that an operator makes, and a file in the place of each certificate."""
    for part in ("kubernetes", "nginx"):
        shutil.copytree(SOURCE / part, folder / part, ignore=shutil.ignore_patterns("files", "certificates"))
    copy = folder / "kubernetes"
    secret_files.create(copy / "secrets" / "files")
    for overlay, names in CERTIFICATES.items():
        certificates = copy / "overlays" / overlay / "certificates"
        certificates.mkdir()
        for name in names:
            (certificates / name).write_text(f"the content of {name}\n")
    return copy


def render(copy: Path, overlay: str) -> list[Object]:
    """What `kubectl apply -k` would apply."""
    rendered = subprocess.run(
        ["kubectl", "kustomize", str(copy / "overlays" / overlay)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if rendered.returncode:
        pytest.fail(f"kubectl kustomize {overlay}: {rendered.stderr}")
    assert not rendered.stderr, rendered.stderr
    return list(yaml.safe_load_all(rendered.stdout))


def require_kubectl() -> None:
    """Fail, and say what to install, where there is no kubectl of 1.27 or later."""
    what_to_do = "Install kubectl 1.27 or later (https://kubernetes.io/docs/tasks/tools/) on PATH."
    if shutil.which("kubectl") is None:
        pytest.fail(f"There is no kubectl on PATH. {what_to_do}")
    told = subprocess.run(
        ["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=60, check=True
    )
    version = json.loads(told.stdout)["clientVersion"]
    found = (int(version["major"]), int(re.sub(r"\D.*", "", version["minor"])))
    if found < OLDEST_KUBECTL:
        pytest.fail(f"kubectl on PATH is {version['gitVersion']}. {what_to_do}")
