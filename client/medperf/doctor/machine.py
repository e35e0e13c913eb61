"""This machine: Python, memory, disks, and who can read the local folder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from medperf.home import Home

from .findings import Finding, Level

_GIB = 1024**3
# A container may use three quarters; the tutorial's need less than 1 GiB, a segmentation model several.
_LITTLE_MEMORY = 4 * _GIB
# Images, packages and a prepared copy of a dataset. Below the second nothing of use can be kept.
_LITTLE_DISK, _NO_DISK = 10 * _GIB, _GIB
_LITTLE_TEMPORARY, _NO_TEMPORARY = _GIB, 100 * 1024**2
_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH
_OTHERS_PASS = stat.S_IXGRP | stat.S_IXOTH


def client_version() -> str:
    """The version of this client."""
    return importlib.metadata.version("medperf")


def python() -> Finding:
    """Python and client, and whether pip is there, which fetches what sandboxed containers need."""
    found = f"Python {platform.python_version()}, medperf {client_version()}, {sys.executable}"
    if importlib.util.find_spec("pip") is None:
        advice = f"Run `{sys.executable} -m ensurepip`: the sandbox installs containers' packages with it."
        return Finding(Level.WARNING, f"{found}, without pip", advice)
    return Finding(Level.OK, found)


def memory() -> Finding:
    """Memory and processors."""
    page = os.sysconf("SC_PAGE_SIZE")
    whole, free = page * os.sysconf("SC_PHYS_PAGES"), _available_bytes(page)
    processors = len(os.sched_getaffinity(0))
    found = f"{whole / _GIB:.1f} GiB, of which {free / _GIB:.1f} GiB are free; {processors} processors"
    if whole < _LITTLE_MEMORY or free < _LITTLE_MEMORY // 4:
        return Finding(
            Level.WARNING, found, "Large models may not fit: end other programs, or use a larger machine."
        )
    return Finding(Level.OK, found)


def local_disk(home: Home) -> Finding:
    """Space where datasets, containers and results are kept."""
    return _disk(home.root, "MEDPERF_HOME", _LITTLE_DISK, _NO_DISK)


def temporary_disk() -> Finding:
    """Space where pip and others put what they work on."""
    return _disk(Path(tempfile.gettempdir()), "TMPDIR", _LITTLE_TEMPORARY, _NO_TEMPORARY)


def permissions(home: Home) -> Finding:
    """Whether the local folder is the caller's own and nobody else's to read."""
    root = home.root
    if not root.exists():
        return Finding(Level.OK, f"{root} is not there yet; it will be made for you alone")
    status = root.stat()
    if status.st_uid != os.getuid():
        advice = "Run medperf as its owner, or set MEDPERF_HOME to a folder of yours."
        return Finding(
            Level.PROBLEM, f"{root} belongs to user {status.st_uid}, not to you ({os.getuid()})", advice
        )
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        return Finding(Level.PROBLEM, f"you cannot write to {root}", f"Run `chmod u+rwx {root}`.")
    opened = [path for path in (root, *root.iterdir()) if _is_open(path)]
    if opened:
        advice = f"It holds prepared data and your login. Run `chmod -R go-rwx {root}`."
        return Finding(Level.PROBLEM, f"others can read {opened[0]}", advice)
    return Finding(Level.OK, f"{root} is yours alone")


def _available_bytes(page: int) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return page * os.sysconf("SC_AVPHYS_PAGES")


def _disk(path: Path, setting: str, little: int, none: int) -> Finding:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / _GIB:.1f} GiB are free at {path}"
    if free >= little:
        return Finding(Level.OK, found)
    level = Level.PROBLEM if free < none else Level.WARNING
    return Finding(level, found, f"Make space, or set {setting} to a folder on a larger disk.")


def _is_open(path: Path) -> bool:
    """Whether others can read or change it, also by the folders above it."""
    if not path.lstat().st_mode & _OTHERS_READ or path.is_symlink():
        return False
    return all(folder.stat().st_mode & _OTHERS_PASS for folder in path.parents)
