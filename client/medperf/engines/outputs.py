"""What a container wrote: measured while it runs, checked before anything reads it, read without following."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

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

    Folders that their owner may not read are made readable to him. Raises ContainerFailed where folders lie deeper
    than `DEEPEST` or cannot be read even so: what cannot be measured is within no limit.
    """
    total = 0
    for folder in folders:
        for found in _walk(folder):
            total += max(found.status.st_blocks * 512, _LEAST_ENTRY_BYTES)
            if total > stop_above:
                return total
    return total


def check_outputs(folder: Path) -> None:
    """Raise ContainerFailed, naming the entry, unless `folder` holds only regular files and folders.

    Call it after the run has ended and before anything in `folder` is opened. A file with a second name
    (a hard link) is refused too.
    """
    for found in _walk(folder):
        mode = found.status.st_mode
        if stat.S_ISDIR(mode):
            continue
        kind = _KINDS.get(stat.S_IFMT(mode))
        if kind is None and found.status.st_nlink > 1:
            kind = "hard link"
        if kind is not None:
            raise ContainerFailed(
                f"The container wrote a {kind}: {'/'.join((*found.above, found.name))}",
                hint="Only files and folders are taken from a container; tell the container's owner.",
            )


class _Found(NamedTuple):
    # An open descriptor of the folder that it is in.
    folder: int
    name: str
    status: os.stat_result
    # The folders above it, from the top's own.
    above: tuple[str, ...]


def _walk(top: Path) -> Iterator[_Found]:
    """Everything in `top`, each folder before what is in it; follows no link.

    By descriptors: no path is too long, and none leads elsewhere while the container is still at work. What it
    removes meanwhile is left out.
    """
    try:
        descriptor = _opened(top, None)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        yield from _inside(descriptor, ())
    finally:
        os.close(descriptor)


def _inside(folder: int, above: tuple[str, ...]) -> Iterator[_Found]:
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = _status(folder, entry.name)
            except FileNotFoundError:
                continue
            yield _Found(folder, entry.name, status, above)
            if stat.S_ISDIR(status.st_mode):
                inner.append(entry.name)
    if inner and len(above) == DEEPEST:
        raise ContainerFailed(
            f"The container wrote folders that lie more than {DEEPEST} deep in each other",
            hint="No data needs that; tell the container's owner.",
        )
    for name in inner:
        try:
            descriptor = _opened(name, folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            yield from _inside(descriptor, (*above, name))
        finally:
            os.close(descriptor)


def _status(folder: int, name: str) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except PermissionError:
        pass  # the container has closed its folder since it was opened
    try:
        _make_readable(folder)
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except PermissionError:
        raise _unmeasurable(name) from None


def _opened(name: Path | str, inside: int | None) -> int:
    """The descriptor of a folder, made readable to its owner where it is not."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
    try:
        try:
            return _reopened(handle)
        except PermissionError:
            _make_readable(handle)
        return _reopened(handle)
    except PermissionError:
        raise _unmeasurable(str(name)) from None
    finally:
        os.close(handle)


def _reopened(handle: int) -> int:
    return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _make_readable(folder: int) -> None:
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    # By way of /proc: `fchmod` refuses a descriptor that was opened without a right to read.
    Path(f"/proc/self/fd/{folder}").chmod(mode | stat.S_IRWXU)


def _unmeasurable(name: str) -> ContainerFailed:
    return ContainerFailed(
        f"The container wrote a folder that cannot be read, so that it cannot be measured: {name}",
        hint="Its outputs must stay readable to whoever runs it; tell the container's owner.",
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
    _own(folder, owner, group, stat.S_IRWXU)
    # What is deeper stays as it is: `check_outputs` refuses the whole, and `remove_tree` removes it.
    with contextlib.suppress(ContainerFailed):
        for found in _walk(folder):
            mode = stat.S_IRWXU if stat.S_ISDIR(found.status.st_mode) else stat.S_IRUSR | stat.S_IWUSR
            _own(found.name, owner, group, mode, inside=found.folder)


def _own(path: Path | str, owner: int, group: int, mode: int, *, inside: int | None = None) -> None:
    status = os.stat(path, dir_fd=inside, follow_symlinks=False)
    if (status.st_uid, status.st_gid) != (owner, group):
        os.chown(path, owner, group, dir_fd=inside, follow_symlinks=False)
    # Set-id bits would let a container leave a program that runs as the caller.
    wanted = (stat.S_IMODE(status.st_mode) | mode) & ~(stat.S_ISUID | stat.S_ISGID)
    if not stat.S_ISLNK(status.st_mode) and wanted != stat.S_IMODE(status.st_mode):
        os.chmod(path, wanted, dir_fd=inside)


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
