"""The container by which an engine is tried: this machine's own program, in an image that holds nothing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path, PurePosixPath

from medperf.engines.base import Image, Limits, Mount, TaskSpec

_PROGRAM = "/usr/bin/cat"
_SECONDS = 60.0


def reading_spec(folder: Path, image: Image) -> TaskSpec:
    """A container that prints the file `token` of a folder, by a program of this machine's own."""
    return TaskSpec(
        run_id=folder.name,
        task="probe",
        arguments=("/mlcube_io0/token",),
        mounts=(
            *(Mount(path.resolve(), PurePosixPath(path), writable=False) for path in program_files()),
            Mount(folder / "token", PurePosixPath("/mlcube_io0/token"), writable=False),
        ),
        code=None,
        sandbox=None,
        log=folder / "log",
        limits=Limits(wall_seconds=_SECONDS),
        image=image,
        entrypoint=_PROGRAM,
    )


def program_files(program: str = _PROGRAM) -> list[Path]:
    """The program, its loader and its libraries, by the paths under which it looks for them."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=_SECONDS, check=False).stdout
    return [Path(program), *(Path(found) for found in re.findall(r"(/\S+) \(0x", listed))]
