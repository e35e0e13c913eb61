"""Builds the images of the tutorial's containers, and says by which hash each is registered.

    python -m tutorials.images [--base IMAGE] [-o images.json]

The base is an image with Python 3.11 or later and pip (python:3.11-slim). The wheels that the manifests name are
fetched by the pip of this machine, with its own settings, so that the build itself needs no network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import yaml

HERE = Path(__file__).parent
CONTAINERS = ("preparation", "reference_model", "metrics", "second_model")
BASE = "python:3.11-slim"
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
_GLIBC_TAGS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")


class BuildFailed(Exception):
    """A step of the build ended badly; the message is what it said."""


def build(base: str, say: Callable[[str], object]) -> dict[str, str]:
    """Build the four images on `base`; container -> the SHA-256 of its image, in hex."""
    version = _run(["docker", "run", "--rm", "--network", "none", base, "python3", "-c", _SAY_VERSION]).strip()
    architecture = _run(["docker", "image", "inspect", "--format", "{{.Architecture}}", base]).strip()
    built = {}
    fetched: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        wheels = Path(folder) / "wheels"
        for name in CONTAINERS:
            manifest = yaml.safe_load((HERE / name / "mlcube.yaml").read_text())
            context = Path(folder) / name
            context.mkdir()
            requirements = _requirements(manifest)
            (context / "requirements.txt").write_text(requirements)
            if requirements not in fetched:
                _fetch(context / "requirements.txt", wheels, version, _ARCHITECTURES[architecture])
                fetched.add(requirements)
            shutil.copytree(wheels, context / "wheels")
            shutil.copytree(
                HERE / name / "additional_files",
                context / "additional_files",
                ignore=shutil.ignore_patterns("__pycache__"),
            )
            image = manifest["docker"]["image"]
            say(f"building {image}")
            options = ["--quiet", "--network", "none", "--build-arg", f"BASE={base}", "--tag", image]
            _run(["docker", "build", *options, "--file", str(HERE / "Dockerfile"), str(context)])
            built[name] = _run(["docker", "image", "inspect", "--format", "{{.Id}}", image]).strip()[-64:]
    return built


_SAY_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


def _requirements(manifest: dict[str, dict[str, list[dict[str, object]]]]) -> str:
    lines = []
    for package in manifest["sandbox"]["packages"]:
        hashes = package["hashes"]
        assert isinstance(hashes, list)
        lines.append(" ".join([str(package["name"]), *(f"--hash={digest}" for digest in hashes)]) + "\n")
    return "".join(lines)


def _fetch(requirements: Path, wheels: Path, version: str, machine: str) -> None:
    platforms = [word for tag in _GLIBC_TAGS for word in ("--platform", f"{tag}_{machine}")]
    which = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--implementation",
        "cp",
        "--python-version",
        version,
        *platforms,
    ]
    where = ["--require-hashes", "--requirement", str(requirements), "--dest", str(wheels)]
    _run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *which, *where])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(command[:3])} … ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


@click.command()
@click.option("--base", default=BASE, show_default=True, metavar="IMAGE", help="An image with Python 3 and pip.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the hashes go; else to the screen.")
def main(base: str, output: Path | None) -> None:
    """Build the tutorial's images with the Docker that answers here."""
    try:
        built = build(base, lambda text: click.echo(text, err=True))
    except BuildFailed as error:
        raise click.ClickException(str(error)) from error
    text = json.dumps(built, indent=2)
    if output is None:
        click.echo(text)
    else:
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
