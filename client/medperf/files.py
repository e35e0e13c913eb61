"""Files and locks of the local folder: written whole or not at all, and one writer at a time.

What is not whole yet is named `.NAME.partial-…` and locked by its writer. The kernel frees the lock when the
writer dies, however it dies; so whoever can take it may remove what was left.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import Busy

FOLDER_MODE = 0o700
# What mkstemp gives a file.
_OWN_MODE = 0o600
_POLL_SECONDS = 0.05
# Less than any command needs.
_FULL_BYTES = 1024**2
_PARTIAL = ".partial-"
# In a folder that is not whole yet; NFS locks no folder, so that a file stands for it.
_ALIVE = ".alive"
# Python has no name for syncfs(2).
_LIBC = ctypes.CDLL(None, use_errno=True)


def make_private_folder(path: Path) -> Path:
    """Make a folder that its owner alone may enter, and those above it that are missing."""
    if not path.is_dir():
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    return path


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o600) -> None:
    """Write a small file so that a reader, also after a power cut, finds the old content or the new, whole.

    OSError when it cannot be written (a full disk); the old content then stands and nothing is left behind.
    """
    with partial_file(path, mode=mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def partial_file(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file to fill that becomes `path`, whole, when the block ends well, and is gone when it does not."""
    with naming(path):
        descriptor, partial = _claimed_file(path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if mode != _OWN_MODE:
                    # A stick's file system (FAT) may have no such modes.
                    with suppress(PermissionError):
                        os.fchmod(descriptor, mode)
                yield file
                file.flush()
                os.fsync(descriptor)
                partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to make something in that is renamed to `path`; what is left of it is removed."""
    with naming(path):
        descriptor, partial = _claimed_folder(path)
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(descriptor)


def is_full(folder: Path) -> bool:
    """Whether the disk that holds `folder` has next to no space left for this user."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < _FULL_BYTES


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of the file system name `path` where it names nothing, as that of a full disk does."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def remove_abandoned(folder: Path, *, of: str = "*") -> None:
    """Remove what writers that died left half-written in `folder`; that of living ones stays.

    `of` is what it was to become: in a folder that others use too, nothing else of that shape is ours.
    """
    for partial in folder.glob(f".{of}{_PARTIAL}*"):
        # One that ends or appears meanwhile is somebody's who looks after it.
        with suppress(FileNotFoundError):
            _remove_if_abandoned(partial)


def _remove_if_abandoned(partial: Path) -> None:
    alive = partial / _ALIVE if partial.is_dir() else partial
    if not alive.exists():
        shutil.rmtree(partial)
        return
    descriptor = os.open(alive, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        alive.unlink()
        if partial != alive:
            shutil.rmtree(partial)
    finally:
        os.close(descriptor)


def _claimed_file(path: Path) -> tuple[int, Path]:
    while True:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}{_PARTIAL}", dir=path.parent)
        if _claim(descriptor):
            return descriptor, Path(name)


def _claimed_folder(path: Path) -> tuple[int, Path]:
    while True:
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}{_PARTIAL}", dir=path.parent))
        try:
            descriptor = os.open(partial / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        except BaseException:
            partial.rmdir()
            raise
        if _claim(descriptor):
            return descriptor, partial


def _claim(descriptor: int) -> bool:
    """Lock what was just made; False, and it is closed, where somebody took it for abandoned in between."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if os.fstat(descriptor).st_nlink:
        return True
    os.close(descriptor)
    return False


def sync_folder(folder: Path) -> None:
    """Make what was renamed into a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(
    path: Path, *, what: str, wait_seconds: float = 0.0, on_wait: Callable[[str], object] | None = None
) -> Iterator[None]:
    """Hold the lock file `path`; the kernel frees it when the process ends, however it ends.

    Waits at most `wait_seconds` for another holder, then raises Busy naming `what` and the other's process;
    `on_wait` is told, once, that it waits.
    The file stays: removing it would let two processes hold two files of the same name.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor, what, wait_seconds, on_wait)
        with naming(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, what: str, wait_seconds: float, on_wait: Callable[[str], object] | None) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        if time.monotonic() >= deadline:
            raise Busy(
                f"Another command is working on {what} (process {holder}).",
                hint="Wait until it has ended, or end it, then run this command again.",
            )
        if on_wait is not None:
            on_wait(f"another command is working on {what} (process {holder}): waiting until it has ended")
            on_wait = None
        time.sleep(_POLL_SECONDS)


def flush_to_disk(folder: Path) -> None:
    """Have everything that was written to the folder's file system reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
