"""Renders an overlay as an operator does: in a copy, with a file for each secret and certificate."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from .objects import SERVICES, Object

SOURCE = Path(__file__).parents[3] / "deploy" / "kubernetes"
OVERLAYS = ("small", "production")
OLDEST_KUBECTL = (1, 27)

# What `medperf-server secrets create` makes.
SECRET_FILES = (
    *(f"{service}_database_password" for service in SERVICES),
    *(f"{service}_owner_database_password" for service in SERVICES),
    *(f"{service}_broker_password" for service in SERVICES),
    "database_admin_password",
    "broker_admin_password",
    "erlang_cookie",
    "signing_keys.json",
    "public_keys.json",
    "rabbitmq_definitions.json",
)
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
    """The manifests, with a file in the place of each secret and certificate."""
    copy = folder / "kubernetes"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("files", "certificates"))
    _fill(copy / "secrets" / "files", SECRET_FILES)
    for overlay, names in CERTIFICATES.items():
        _fill(copy / "overlays" / overlay / "certificates", names)
    return copy


def _fill(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"the content of {name}\n")


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
