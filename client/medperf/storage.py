"""Where a server's local folder lies, how much is in it, and how it is moved to another disk as a whole."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medperf.errors import UsageError
from medperf.files import flush_to_disk, is_full, partial_folder, remove_abandoned, sync_folder
from medperf.home import MOVED_PREFIX, Home, entry_of
from medperf.images import SIFS
from medperf.journal import Journal

# What of a local folder is said apart, and what it is.
PARTS = {
    "datasets": "prepared data",
    "preparations": "data in preparation",
    "results": "scores",
    "runs": "logs of runs, and what goes on with them",
    "assets": "registered files",
    "containers": "containers laid out to run",
    "environments": "packages of sandboxed containers",
    SIFS: "images made for Apptainer",
}
# In a copy until it is what is found: whose it is to be.
_MARK = ".being-moved"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Part:
    """One folder of a local folder, and how many bytes its files have."""

    name: str
    what: str
    size_bytes: int


def parts_of(home: Home) -> list[Part]:
    """What is in a local folder, without making any of it."""
    return [Part(name, what, _size(home.root / name)) for name, what in PARTS.items()]


def move(home: Home, into: Path, *, on_copied: Callable[[int], object]) -> tuple[Path, Path | None]:
    """Move the local folder into the folder `into`, and leave a link to it where it is looked for.

    Returns its new path, and what of the old one could not be removed, if anything. For whoever has it alone.
    Killed at any moment, the folder is whole at its old place or at its new one, and is found there; the same call
    then goes on. `on_copied` is told how many bytes have been copied, where it is another file system.
    """
    target = check_move(home, into)
    remove_abandoned(into, of=target.name)
    _remove_unfinished(home, target)
    entry = entry_of(home.server)
    if _can_rename(home.root, into):
        _rename(home.root, target, entry)
        old = None
    else:
        old = _move_copy(home.root, target, entry, on_copied)
    for folder in {into, entry.parent}:
        sync_folder(folder)
    if old is not None:
        # Last, for it takes long: who is killed here has moved.
        shutil.rmtree(old, ignore_errors=True)
    return target, old if old is not None and old.exists() else None


def check_move(home: Home, into: Path) -> Path:
    """The path that the local folder would have in `into`; UsageError where it cannot be moved there."""
    target = into / home.root.name
    if not into.is_dir():
        raise UsageError(f"{into} is no folder.", hint="Make it, or name the disk's folder that is there.")
    if not home.root.is_dir():
        raise UsageError(
            f"There is nothing in {home.root} to be moved.", hint="Look at MEDPERF_HOME and --server."
        )
    if into == home.root or home.root in into.parents:
        raise UsageError(f"{into} lies in the folder that is to be moved.", hint="Name a folder outside of it.")
    if os.path.lexists(target) and not _may_be_replaced(home, target):
        raise UsageError(f"{target} is there already.", hint="Name another folder, or look at what it is.")
    running = [run.short_id for run in Journal(home.journal).runs() if run.is_open]
    if running:
        raise UsageError(
            f"Runs that have not ended work in {home.root}: {', '.join(running)}.",
            hint="Go on with them by the commands that began them, or end them: `medperf run cancel`.",
        )
    if not os.access(into, os.W_OK | os.X_OK) or is_full(into):
        raise UsageError(f"Nothing can be written to {into}.", hint="Mend its permissions, or make space.")
    if not _can_rename(home.root, into):
        needed, free = _size(home.root), shutil.disk_usage(into).free
        if needed > free:
            raise UsageError(
                f"{home.root} holds {needed / 1e9:,.1f} GB, and the disk of {into} has {free / 1e9:,.1f} GB free.",
                hint="Make space: `medperf cache prune` removes here what can be had again. Or name another disk.",
            )
    return target


def _may_be_replaced(home: Home, target: Path) -> bool:
    """Whether what is at the target is our own: the link that leads here, or what a killed move left."""
    if target.is_symlink():
        return target == entry_of(home.server) or target.readlink() == target
    # Never the folder that is in use, whatever is written in it.
    return target != home.root and _mark_in(target) == str(entry_of(home.server))


def _remove_unfinished(home: Home, target: Path) -> None:
    """Remove what a move left there that was killed before the folder was found at its new place."""
    if target == entry_of(home.server):
        return
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)


def _mark_in(folder: Path) -> str | None:
    try:
        return (folder / _MARK).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _can_rename(folder: Path, into: Path) -> bool:
    """Whether a folder can be moved there without a copy: one file system may be mounted in two places."""
    try:
        probe = Path(tempfile.mkdtemp(prefix=".medperf-", dir=folder.parent))
    except OSError:
        return False
    moved = into / probe.name
    try:
        probe.rename(moved)
    except OSError:
        probe.rmdir()
        return False
    moved.rmdir()
    return True


def _rename(root: Path, target: Path, entry: Path) -> None:
    if target == entry:  # back to where it was first
        _swap(root, entry)
        root.unlink()
        return
    # A link to itself, until it has changed places with the folder.
    _swap(root, _link(target, to=target))
    if entry != root:
        _point(entry, target)
        root.unlink()


def _move_copy(root: Path, target: Path, entry: Path, on_copied: Callable[[int], object]) -> Path:
    """Copy the folder, and have the copy found instead of it; what is to be removed then."""
    with partial_folder(target) as partial:
        whole = partial / "whole"
        _copy(root, whole, on_copied)
        (whole / _MARK).unlink(missing_ok=True)
        if target == entry:
            flush_to_disk(whole)
            _swap(whole, entry)
            return root
        (whole / _MARK).write_text(str(entry))
        flush_to_disk(whole)
        whole.rename(target)
    old = root
    if entry == root:
        old = _link(_aside(entry), to=target)
        _swap(entry, old)
    else:
        _point(entry, target)
    (target / _MARK).unlink()
    return old


def _point(entry: Path, target: Path) -> None:
    """Have a link lead elsewhere, in one step."""
    _link(_aside(entry), to=target).replace(entry)


def _copy(source: Path, target: Path, on_copied: Callable[[int], object]) -> None:
    """Copy a folder with its modes, times and links; OSError where anything of it cannot be."""
    copied = 0

    def copy(one: str, other: str) -> str:
        nonlocal copied
        shutil.copy2(one, other, follow_symlinks=False)
        status = os.lstat(one)
        if status.st_size != os.lstat(other).st_size:
            raise OSError(f"{one} changed while it was copied")
        copied += status.st_size
        on_copied(copied)
        return other

    try:
        shutil.copytree(source, target, symlinks=True, copy_function=copy)
    except shutil.Error as several:
        one, _, why = several.args[0][0]
        raise UsageError(
            f"{one} cannot be copied: {why}. Nothing was moved.",
            hint="Mend that, or name a folder on another disk; a disk for Windows has no owners and no links.",
        ) from several


def _aside(path: Path) -> Path:
    """A name beside a folder for what takes its place, and then for what it was; `Home.tidy` knows it."""
    return path.with_name(f"{MOVED_PREFIX.format(path.name)}{os.getpid()}")


def _link(path: Path, *, to: Path) -> Path:
    path.symlink_to(to)
    return path


def _swap(folder: Path, link: Path) -> None:
    """Exchange a folder and a link, in one step where the file system can (not over a network)."""
    words = (_AT_FDCWD, os.fsencode(folder), _AT_FDCWD, os.fsencode(link), _RENAME_EXCHANGE)
    if hasattr(_LIBC, "renameat2") and _LIBC.renameat2(*words) == 0:
        return
    aside = folder.with_name(f".{folder.name}.aside-{os.getpid()}")
    folder.rename(aside)
    try:
        to = link.readlink()
        folder.symlink_to(to)
        link.unlink()
        aside.rename(link)
    except BaseException:
        folder.unlink(missing_ok=True)
        aside.rename(folder)
        raise


def _size(folder: Path) -> int:
    return sum(_sizes(folder)) if folder.is_dir() else 0


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(Path(place, name)).st_size
            except FileNotFoundError:  # another command's, which has just ended with it
                continue
