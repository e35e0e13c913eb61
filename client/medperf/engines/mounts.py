"""A host path as a container sees it, and what is mounted inside it on the host."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Mount:
    """A host file or folder as the container sees it; `host` is absolute and exists before the start."""

    host: Path
    inside: PurePosixPath
    writable: bool


def mounted_inside(folder: Path) -> list[Path]:
    """Where other file systems are mounted below `folder`."""
    points = (Path(_unescaped(row.split(" ")[4])) for row in mount_rows())
    return [point for point in points if point != folder and point.is_relative_to(folder)]


def mount_rows() -> list[str]:
    """The rows of mountinfo: anybody's mounts, whose names need be neither UTF-8 nor one of Python's lines."""
    return [row for row in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).split("\n") if row]


def _unescaped(field: str) -> str:
    """A path of mountinfo, in which a space, tab, newline and backslash stand as octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
