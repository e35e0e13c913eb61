"""A cgroup for one run, version 1 or 2: it bounds memory, processes and processor time of the whole tree.

Made where the caller may make one; a machine where that is not so has the watcher (`watch`) instead.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medperf.engines.mounts import mount_rows

_PREFIX = "medperf-"
_REMOVAL_SECONDS = 5.0
# The kernel's own default.
_CPU_PERIOD_MICROS = 100_000


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup hierarchy, and the folder in it of this process."""

    version: int
    controllers: frozenset[str]
    top: Path
    own: Path

    def parents(self, controller: str) -> list[Path]:
        """Where a group with this controller may be made, best first."""
        if self.version == 1:
            return [self.own] if controller in self.controllers else []
        # Version 2 keeps processes out of the folders that hand controllers on: beside its own group, or above.
        above = [self.own, *self.own.parents]
        return [
            folder
            for folder in above
            if folder.is_relative_to(self.top) and controller in _words(folder / "cgroup.subtree_control")
        ]


@dataclass(frozen=True)
class Cgroup:
    """The folders of one run; each may be missing. In version 2 they are the same one."""

    memory: Path | None = None
    processes: Path | None = None
    cpu: Path | None = None

    def add(self, pid: int) -> None:
        for folder in self._folders():
            (folder / "cgroup.procs").write_text(str(pid))

    def killed_for_memory(self) -> bool:
        if self.memory is None:
            return False
        counted = _counter(self.memory / "memory.events", "oom_kill")
        return counted + _counter(self.memory / "memory.oom_control", "oom_kill") > 0

    def refused_a_process(self) -> bool:
        return self.processes is not None and _counter(self.processes / "pids.events", "max") > 0

    def remove(self) -> None:
        """Remove the folders once the processes in them have gone; the next run sweeps what stays."""
        deadline = time.monotonic() + _REMOVAL_SECONDS
        for folder in self._folders():
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.01)

    def _folders(self) -> list[Path]:
        return list(dict.fromkeys(folder for folder in (self.memory, self.processes, self.cpu) if folder))


def make_cgroup(
    run_id: str, *, memory_bytes: int, processes: int, cpus: float | None, hierarchies: list[Hierarchy]
) -> Cgroup:
    """A group for one run; without a folder for what cannot be bounded by a cgroup here."""
    # The name says whose it is: a client that was killed cannot remove it.
    name = f"{_PREFIX}{os.getpid()}-{re.sub(r'[^A-Za-z0-9]', '', run_id)[:40]}"
    memory = _make(
        name,
        "memory",
        hierarchies,
        {1: {"memory.limit_in_bytes": memory_bytes}, 2: {"memory.max": memory_bytes}},
        # Swap accounting is a kernel's choice.
        {1: {"memory.memsw.limit_in_bytes": memory_bytes}, 2: {"memory.swap.max": 0}},
    )
    pids = _make(name, "pids", hierarchies, {1: {"pids.max": processes}, 2: {"pids.max": processes}}, {})
    if cpus is None:
        return Cgroup(memory, pids)
    quota = round(cpus * _CPU_PERIOD_MICROS)
    if memory is not None and (memory / "memory.max").exists():
        # Version 2: a process is in one group, so that its share is written there or nowhere.
        return Cgroup(
            memory, pids, memory if _written(memory / "cpu.max", f"{quota} {_CPU_PERIOD_MICROS}") else None
        )
    share = {1: {"cpu.cfs_period_us": _CPU_PERIOD_MICROS, "cpu.cfs_quota_us": quota}}
    return Cgroup(memory, pids, _make(name, "cpu", [one for one in hierarchies if one.version == 1], share, {}))


def _written(file: Path, value: str) -> bool:
    try:
        # Where the controller is not handed on, there is no such file, and none can be made.
        file.write_text(value)
    except OSError:
        return False
    return True


def memory_cgroup_of(pid: int) -> Cgroup:
    """The group that counts a process's memory, whoever made it; none where it cannot be seen."""
    of_memory = (one for one in read_hierarchies(str(pid)) if one.version == 2 or "memory" in one.controllers)
    return Cgroup(memory=next((one.own for one in of_memory if one.own != one.top), None))


def read_hierarchies(process: str = "self") -> list[Hierarchy]:
    """The cgroup hierarchies that a process is in and that are mounted."""
    memberships = Path("/proc", process, "cgroup")
    if not memberships.exists():
        return []
    return parse_hierarchies(os.fsdecode(memberships.read_bytes()).splitlines(), mount_rows())


def parse_hierarchies(memberships: Sequence[str], mounts: Sequence[str]) -> list[Hierarchy]:
    """The same, from the rows of /proc/self/cgroup and /proc/self/mountinfo."""
    found = []
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, top = fields.split(" ")[3:5]
        for membership in memberships:
            _, written, own = membership.split(":", 2)
            controllers = frozenset(written.split(",")) - {""}
            same = not controllers if kind == "cgroup2" else controllers and controllers <= set(options.split(","))
            # A group above the mount's root (seen from a container) has no folder here.
            if same and (own == root or own.startswith(root.rstrip("/") + "/")):
                place = Path(top) / own[len(root) :].lstrip("/")
                found.append(Hierarchy(2 if kind == "cgroup2" else 1, controllers, Path(top), place))
    return found


def _make(
    name: str,
    controller: str,
    hierarchies: list[Hierarchy],
    limits: Mapping[int, Mapping[str, int]],
    limits_if_there: Mapping[int, Mapping[str, int]],
) -> Path | None:
    for hierarchy in hierarchies:
        for parent in hierarchy.parents(controller):
            folder = parent / name
            try:
                _sweep(parent)
                folder.mkdir(exist_ok=True)
                for file, value in limits[hierarchy.version].items():
                    (folder / file).write_text(str(value))
            except OSError:  # not the caller's to make: the next place, or the watcher
                with contextlib.suppress(OSError):
                    folder.rmdir()
                continue
            for file, value in limits_if_there.get(hierarchy.version, {}).items():
                with contextlib.suppress(OSError):
                    (folder / file).write_text(str(value))
            return folder
    return None


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            # Fails while a process is in it, as it should.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _counter(file: Path, name: str) -> int:
    words = _words(file)
    return int(words[words.index(name) + 1]) if name in words else 0
