"""Who works in a server's local folder: any number of commands together, or one alone that moves or removes it."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import Busy

# Setting a folder aside takes no time; a person who is asked whether to remove one is waited for so long.
_SHARE_WAIT_SECONDS = 10.0
_POLL_SECONDS = 0.05
# The kernel's `struct flock`: kind, origin, start, length, process.
_FLOCK = "hhqqi4x"
_HINT = "Wait until it has ended, or end it, then run this command again."


class FolderLock:
    """Held by a command for its whole length, in a file beside the folder, which outlives what becomes of that.

    A record lock: unlike `flock` it goes from shared to exclusive in one step, and the kernel says who holds it.
    It is the process's own, and ends when any descriptor of the file is closed: one a process and folder.
    """

    def __init__(self, folder: Path, descriptor: int) -> None:
        self._folder = folder
        self._descriptor = descriptor

    @classmethod
    @contextmanager
    def shared(cls, folder: Path) -> Iterator[FolderLock]:
        """Work in `folder` beside other commands; Busy while one has it alone. What it is in must be there."""
        file = folder.with_name(f".{folder.name}.lock")
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock = cls(folder, descriptor)
            lock._share()
            yield lock
        finally:
            os.close(descriptor)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep all others out while the block runs; Busy, at once, naming one of those that work there."""
        if not self._takes(fcntl.LOCK_EX):
            raise Busy(f"Another command works in {self._folder} (process {self._other()}).", hint=_HINT)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_SH)

    def _share(self) -> None:
        deadline = time.monotonic() + _SHARE_WAIT_SECONDS
        while not self._takes(fcntl.LOCK_SH):
            if time.monotonic() > deadline:
                raise Busy(
                    f"Another command is about to move or remove {self._folder} (process {self._other()}).",
                    hint=_HINT,
                )
            time.sleep(_POLL_SECONDS)

    def _takes(self, kind: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, kind | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # which of the two depends on the file system
            return False
        return True

    def _other(self) -> str:
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        pid = struct.unpack(_FLOCK, fcntl.fcntl(self._descriptor, fcntl.F_GETLK, wanted))[4]
        # 0 for a process that is not seen from here, such as one on another machine.
        return str(pid) if pid > 0 else "unknown"
