"""A host path as a container sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Mount:
    """A host file or folder as the container sees it; `host` is absolute and exists before the start."""

    host: Path
    inside: PurePosixPath
    writable: bool
