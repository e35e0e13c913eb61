"""Gathers what a machine without internet needs, by hash, into a folder that fits on a stick: `make stick`.

The client and its third parties in `wheels` with `requirements.txt`, and in `packages` what sandboxed containers
need. By default for this Python and machine, and for the tutorial's containers.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from medperf.engines.wheels import MACHINES, target_options
from medperf.errors import ClientError
from medperf.manifest import Package, parse_manifest

PROJECT = Path(__file__).resolve().parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
DOWNLOAD = (*PIP, "download", "--quiet", "--only-binary", ":all:", "--no-deps", "--require-hashes")


def main() -> int:
    """Gather it; 1 where something cannot be had for that Python and machine."""
    wanted = _arguments()
    if wanted.folder.exists():
        sys.stderr.write(f"{wanted.folder} is there already: remove it, or name another folder.\n")
        return 1
    target = target_options(wanted.python_version, wanted.machine)
    try:
        with tempfile.TemporaryDirectory() as work:
            made = Path(work) / "stick"
            _client(made, target)
            for manifest in wanted.manifest or sorted(PROJECT.glob("tutorials/*/mlcube.yaml")):
                _packages(made / "packages", manifest, target, Path(work) / "requirements.txt")
            wanted.folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(made, wanted.folder)
    except (ClientError, OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"Nothing was gathered: {error}\n")
        return 1
    sys.stdout.write(f"{wanted.folder}: copy it to the stick; README.md, Installing, says how to go on\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to; must not be there yet")
    parser.add_argument(
        "--python-version", default="", help="of the machine, such as 3.12; else that of this Python"
    )
    parser.add_argument("--machine", default="", choices=("", *MACHINES), help="its kind; else this one's")
    parser.add_argument(
        "--manifest", type=Path, action="append", help="a container's mlcube.yaml; may be repeated"
    )
    return parser.parse_args()


def _client(made: Path, target: list[str]) -> None:
    """The client's wheels and its third parties', and what pip is given to install them by hash."""
    wheels = made / "wheels"
    parts = [str(PROJECT / part) for part in ("contracts", "client")]
    build = ("wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    subprocess.run([*PIP, *build, "--wheel-dir", str(wheels), *parts], check=True)
    lines = []
    for wheel in sorted(wheels.iterdir()):
        name, version = wheel.name.split("-")[:2]
        lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    lock = PROJECT / "requirements" / "client.txt"
    subprocess.run([*DOWNLOAD, *target, "--dest", str(wheels), "-r", str(lock)], check=True)
    (made / "requirements.txt").write_text(lock.read_text() + "".join(lines))


def _packages(folder: Path, manifest: Path, target: list[str], requirements: Path) -> None:
    """The wheels that a container's manifest names for the sandbox."""
    sandbox = parse_manifest(manifest.read_bytes(), what=str(manifest)).sandbox
    if sandbox is None or not sandbox.packages:
        return
    requirements.write_text("".join(_line(package) for package in sandbox.packages))
    subprocess.run([*DOWNLOAD, *target, "--dest", str(folder), "-r", str(requirements)], check=True)


def _line(package: Package) -> str:
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in package.sha256)
    return f"{package.name}=={package.version} {hashes}\n"


if __name__ == "__main__":
    sys.exit(main())
