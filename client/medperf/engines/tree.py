"""What a tree of processes uses, seen from outside through /proc as whoever looks."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from medperf.errors import ContainerFailed

T = TypeVar("T")

_KIB = 1024
# Each kind of look may take at most this part of the time, however much there is to look at; but where a run is
# about to be ended for what was seen, it is looked at again at once.
_LOOKING_SHARE = 0.1
_INTERVAL_SECONDS = 0.1
# One is looked at after the other: what they share counts whole in one that outlives the others in between.
_LOOKS_TO_BE_SURE = 3
# A process that is being replaced or ends cannot be looked into for a moment either.
_HIDDEN_LOOKS_MOST = 5
# Mappings of memory that no folder shows: memfd_create, shared anonymous memory, System V.
_NAMELESS_MEMORY = ("/memfd:", "/dev/zero (deleted)", "/SYSV")

# Device and inode.
File = tuple[int, int]


class Rationed(Generic[T]):
    """A costly look, repeated only as often as the share of the time that it may take allows."""

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._next = 0.0

    def latest(self) -> T:
        """What there is now, or what there was when it was last worth looking."""
        return self._found if time.monotonic() < self._next else self.now()

    def now(self) -> T:
        """What there is now, whatever the look costs."""
        began = time.monotonic()
        self._found = self._look()
        ended = time.monotonic()
        self._next = ended + max(_INTERVAL_SECONDS, (ended - began) / _LOOKING_SHARE)
        return self._found


@dataclass(frozen=True)
class Held:
    """Files without a name that processes hold open, and what their folders in memory hold, in bytes."""

    disk_bytes: int = 0
    memory_bytes: int = 0
    memory_files: frozenset[File] = frozenset()


class ProcessTree:
    """The process `top` and all its descendants; `memory_folders` are its own tmpfs mounts, as it sees them.

    Complete for a sandbox: a process in it whose parent dies goes to the first one inside, never out of the tree.
    """

    def __init__(self, top: int, memory_folders: Iterable[str] = ()) -> None:
        self.top = top
        self._memory_folders = tuple(memory_folders)
        self._memory_device = _device_of_memory_files()
        self._processes = Rationed(self._list)
        self._held = Rationed(self._look_at_held)
        self._exact = Rationed(self._exact_memory_bytes)
        self._hidden_looks = 0

    def threads(self) -> int:
        """Of all processes together."""
        return sum(threads for _, threads in self._processes.latest())

    def nameless_bytes(self) -> int:
        """What files on disk take that were removed, or never had a name, and are still open.

        ContainerFailed where a process keeps what it holds from being seen.
        """
        return self._held.latest().disk_bytes

    def memory_bytes(self, *, enough: int) -> int:
        """What they hold in memory, swapped out or not: their own, what they share once, files and folders in it.

        No more than the truth where that is above `enough`; up to it, pages that several share may count in each.
        """
        held = self._held.latest().memory_bytes
        at_most = held + sum(_mapped_bytes(pid) for pid, _ in self._processes.latest())
        if at_most <= enough:
            return at_most
        exact = self._exact.latest()
        for _ in range(_LOOKS_TO_BE_SURE - 1):
            if exact > enough:
                exact = self._exact.now()
        return exact

    def _list(self) -> list[tuple[int, int]]:
        """(process, its threads), each."""
        children: dict[int, list[int]] = {}
        threads: dict[int, int] = {}
        for name in _listed("/proc"):
            if name.isdigit():
                try:
                    fields = Path("/proc", name, "stat").read_text(errors="replace").rpartition(")")[2].split()
                except OSError:  # it has ended meanwhile
                    continue
                children.setdefault(int(fields[1]), []).append(int(name))
                threads[int(name)] = int(fields[17])
        tree, waiting = [], [self.top]
        while waiting:
            pid = waiting.pop()
            tree.append(pid)
            waiting.extend(children.get(pid, ()))
        return [(pid, threads.get(pid, 0)) for pid in tree]

    def _look_at_held(self) -> Held:
        pids = [pid for pid, _ in self._processes.latest()]
        folders = self._used_folders(pids)
        files: dict[File, int] = {}
        is_hidden = False
        for pid in pids:
            is_hidden |= _add_nameless_files(pid, files)
        self._hidden_looks = self._hidden_looks + 1 if is_hidden else 0
        if self._hidden_looks > _HIDDEN_LOOKS_MOST:
            raise ContainerFailed(
                "A process of the container keeps what it holds open from being seen (PR_SET_DUMPABLE)",
                hint="Nothing that computes needs that, and it could not be held to its limits; tell its owner.",
            )
        in_memory = {file: size for file, size in files.items() if file[0] == self._memory_device}
        on_disk = (size for (device, _), size in files.items() if device not in {self._memory_device, *folders})
        return Held(sum(on_disk), sum(in_memory.values()) + sum(folders.values()), frozenset(in_memory))

    def _used_folders(self, pids: list[int]) -> dict[int, int]:
        """Device -> bytes used, of each folder in memory."""
        used: dict[int, int] = {}
        for pid in pids:
            root = Path(f"/proc/{pid}/root")
            try:
                if root.samefile("/"):  # outside, or not yet inside
                    continue
                for name in self._memory_folders:
                    folder = root / name.lstrip("/")
                    system = os.statvfs(folder)
                    used[folder.stat().st_dev] = (system.f_blocks - system.f_bfree) * system.f_frsize
            except OSError:
                continue
            return used
        return used

    def _exact_memory_bytes(self) -> int:
        held = self._held.latest()
        return held.memory_bytes + sum(_own_share(pid, held.memory_files) for pid, _ in self._processes.now())


def _device_of_memory_files() -> int:
    descriptor = os.memfd_create("medperf")
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)


def _add_nameless_files(pid: int, files: dict[File, int]) -> bool:
    """Add the files without a name that a process holds open; whether it keeps them from being seen.

    Each thread is asked: one may have descriptors of its own (CLONE_FILES), or outlive the first.
    """
    is_hidden = False
    for task in _listed(f"/proc/{pid}/task"):
        folder = f"/proc/{pid}/task/{task}/fd"
        try:
            numbers = [entry.name for entry in os.scandir(folder)]
        except PermissionError:
            is_hidden |= not _has_ended(f"/proc/{pid}/task/{task}")
            continue
        except OSError:
            continue
        for number in numbers:
            try:
                status = Path(folder, number).stat()
            except OSError:
                continue
            if status.st_nlink == 0 and stat.S_ISREG(status.st_mode):
                files[status.st_dev, status.st_ino] = status.st_blocks * 512
    return is_hidden


def _listed(folder: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder)]
    except OSError:
        return []


def _has_ended(task: str) -> bool:
    try:
        return Path(task, "stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _mapped_bytes(pid: int) -> int:
    """A process's anonymous, shared and swapped-out memory, as far as it is in its tables; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return 0
    wanted = ("RssAnon:", "RssShmem:", "VmSwap:")
    return sum(int(line.split()[1]) * _KIB for line in lines if line.startswith(wanted))


def _own_share(pid: int, counted: frozenset[File]) -> int:
    """A process's share (of a page that N processes have, 1/N) of what `_mapped_bytes` counts.

    Without what is in `counted` or in a folder in memory; of files on disk only what it changed for itself.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines()
    except OSError:
        return _mapped_bytes(pid)
    total = 0
    wanted: tuple[str, ...] = ()
    for line in lines:
        words = line.split(maxsplit=5)
        if not words[0].endswith(":"):
            path = words[5] if len(words) > 5 else ""
            is_own = words[4] == "0" or (path.startswith(_NAMELESS_MEMORY) and _file(words) not in counted)
            wanted = ("Pss:", "SwapPss:") if is_own else ("Anonymous:",)
        elif words[0] in wanted:
            total += int(words[1]) * _KIB
    return total


def _file(mapping: list[str]) -> File:
    major, minor = (int(number, 16) for number in mapping[3].split(":"))
    return os.makedev(major, minor), int(mapping[4])
