"""What a container wrote: measured while it runs, checked before anything reads it, read without following."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from medperf.errors import ContainerFailed

# Folders in folders. Paths of more can be longer than the kernel takes, and than a walk through them bears.
DEEPEST = 64
# A block of the usual file system: an empty file or a folder costs something too.
_LEAST_ENTRY_BYTES = 4096
_KINDS = {
    stat.S_IFLNK: "link",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "pipe",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
}


def used_bytes(folders: Iterable[Path], *, stop_above: int) -> int:
    """Bytes on disk of all that is in `folders`; counting ends as soon as it is above `stop_above`.

    What lies deeper than `DEEPEST` is not counted: `check_outputs` refuses it.
    """
    total = 0
    waiting = [(folder, 0) for folder in folders]
    while waiting:
        current, depth = waiting.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    total += max(status.st_blocks * 512, _LEAST_ENTRY_BYTES)
                    if total > stop_above:
                        return total
                    if stat.S_ISDIR(status.st_mode) and depth < DEEPEST:
                        waiting.append((Path(entry.path), depth + 1))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # The container is still working there, and may close its own folder; the next look counts again.
            continue
    return total


def check_outputs(folder: Path) -> None:
    """Raise ContainerFailed, naming the entry, unless `folder` holds only regular files and folders.

    Call it after the run has ended and before anything in `folder` is opened. A file with a second name
    (a hard link) is refused too.
    """
    waiting = [(folder, 0)]
    while waiting:
        current, depth = waiting.pop()
        with os.scandir(current) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if depth == DEEPEST:
                        raise ContainerFailed(
                            f"The container wrote folders that lie more than {DEEPEST} deep in each other",
                            hint="No data needs that; tell the container's owner.",
                        )
                    waiting.append((Path(entry.path), depth + 1))
                    continue
                kind = _KINDS.get(stat.S_IFMT(status.st_mode))
                if kind is None and status.st_nlink > 1:
                    kind = "hard link"
                if kind is not None:
                    raise ContainerFailed(
                        f"The container wrote a {kind}: {Path(entry.path).relative_to(folder)!s}",
                        hint="Only files and folders are taken from a container; tell the container's owner.",
                    )


def read_output(file: Path, *, inside: Path, limit_bytes: int) -> bytes:
    """The content of an output file under the folder `inside`, following no link on the way.

    Raises ContainerFailed where it is missing, larger than `limit_bytes`, or not a regular file.
    """
    relative = file.relative_to(inside)
    descriptor = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in relative.parts:
            # O_NONBLOCK: opening a pipe must not wait for its other end.
            inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(relative, "is not a regular file")
        with os.fdopen(os.dup(descriptor), "rb") as content:
            data = content.read(limit_bytes + 1)
    except FileNotFoundError:
        raise _unreadable(relative, "is not there") from None
    except OSError as broken:
        raise _unreadable(relative, f"cannot be read ({broken.strerror})") from broken
    finally:
        os.close(descriptor)
    if len(data) > limit_bytes:
        raise _unreadable(relative, f"is larger than {limit_bytes:,} bytes")
    return data


def _unreadable(relative: Path, fault: str) -> ContainerFailed:
    return ContainerFailed(
        f"The container's output {relative} {fault}",
        hint="The container did not write what its manifest promises; tell its owner.",
    )


def take_over(folder: Path, *, owner: int, group: int) -> None:
    """Make `folder`, down to `DEEPEST`, the caller's own and readable to its owner, following no link."""
    waiting = [(folder, 0)]
    while waiting:
        current, depth = waiting.pop()
        _own(current, owner, group, stat.S_IRWXU)
        with os.scandir(current) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if depth < DEEPEST:
                        waiting.append((Path(entry.path), depth + 1))
                else:
                    _own(Path(entry.path), owner, group, stat.S_IRUSR | stat.S_IWUSR)


def _own(path: Path, owner: int, group: int, mode: int) -> None:
    status = path.lstat()
    if (status.st_uid, status.st_gid) != (owner, group):
        os.chown(path, owner, group, follow_symlinks=False)
    # Set-id bits would let a container leave a program that runs as the caller.
    wanted = (stat.S_IMODE(status.st_mode) | mode) & ~(stat.S_ISUID | stat.S_ISGID)
    if not stat.S_ISLNK(status.st_mode) and wanted != stat.S_IMODE(status.st_mode):
        path.chmod(wanted)


def remove_tree(top: Path) -> None:
    """Remove a folder and all in it, however deep it is and whatever its modes are; follows no link.

    Inner folders are moved up into `top` before they are emptied, so that no path grows with the depth.
    """
    _own(top, os.getuid(), os.getgid(), stat.S_IRWXU)
    number = itertools.count()
    while inner := _without_files(top):
        for folder in inner:
            _own(folder, os.getuid(), os.getgid(), stat.S_IRWXU)
            for deeper in _without_files(folder):
                _own(deeper, os.getuid(), os.getgid(), stat.S_IRWXU)
                deeper.rename(_free_name(top, number))
            folder.rmdir()
    top.rmdir()


def _without_files(folder: Path) -> list[Path]:
    """Remove what is no folder; the folders that are in it."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            else:
                Path(entry.path).unlink()
    return folders


def _free_name(folder: Path, numbers: Iterator[int]) -> Path:
    return next(path for number in numbers if not (path := folder / f".removed-{number}").exists())
