"""A folder for what is needed only while a command runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medperf.files import locked
from medperf.home import Home

# Removing what a large archive left takes a while.
_WAIT_SECONDS = 60.0


@contextmanager
def scratch_folder(home: Home) -> Iterator[Path]:
    """A new folder that is removed when the block is left; what a command that died left there goes first.

    It is in the local folder, where there is room for data, and for its owner only.
    """
    parent = home.folder("scratch")
    with locked(parent / ".lock", what="what earlier commands left", wait_seconds=_WAIT_SECONDS):
        _remove_forsaken(parent)
        folder = Path(tempfile.mkdtemp(dir=parent))
        # The kernel frees it when this process ends, however it ends.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _remove_forsaken(parent: Path) -> None:
    for folder in [entry for entry in parent.iterdir() if entry.is_dir() and not entry.is_symlink()]:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its command is at work
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
