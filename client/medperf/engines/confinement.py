"""What a container may do, as one value, the same for every engine.

Pure: facts about the caller come in, nothing is looked up here. Each engine turns the value into its own words
(`bubblewrap`, `docker_options`); each line is attacked from inside by tests/client/test_confinement.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from medperf.engines.base import Limits, TaskSpec
from medperf.engines.mounts import Mount

# Ids that no distribution, container engine or systemd gives to anyone; one for each concurrent run, because
# the kernel counts RLIMIT_NPROC by real user id.
_UNUSED_IDS = range(2_000_000_000, 2_100_000_000)
_EVERY_ID = (0, 2**32 - 1)


@dataclass(frozen=True)
class Caller:
    """Who starts a container."""

    uid: int
    gid: int
    # (first id, count) for each range of user ids that this process may use: /proc/self/uid_map
    id_ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Confinement:
    """Everything that a container may see and do."""

    # Of the host's files it sees these: its inputs, read-only, and its declared outputs.
    mounts: tuple[Mount, ...]
    # Its writable folders in memory -> their size in bytes. HOME is one of them.
    memory_folders: Mapping[str, int]
    # What it is told, over what its image says itself.
    environment: Mapping[str, str]
    # The real user and group of its processes; None is the caller's own, who is not root.
    real_id: int | None
    limits: Limits
    has_network: bool = False
    # Whether it may write to a throwaway layer over its own files: only where a person agreed.
    root_is_writable: bool = False
    capabilities: frozenset[str] = frozenset()
    may_gain_privileges: bool = False


def confine(spec: TaskSpec, caller: Caller) -> Confinement:
    """The confinement of `spec` for whoever starts it."""
    memory = {"/dev/shm": spec.shm_bytes or spec.limits.tmp_bytes, "/tmp": spec.limits.tmp_bytes}  # noqa: S108
    own = {"HOME": "/tmp", "TMPDIR": "/tmp", "USER": "container"}  # noqa: S108 - the container's own
    return Confinement(
        mounts=spec.mounts,
        memory_folders=MappingProxyType(memory),
        environment=MappingProxyType({**spec.environment, **own}),
        real_id=_real_id(spec.run_id, caller) if caller.uid == 0 else None,
        limits=spec.limits,
        root_is_writable=spec.root_is_writable,
    )


def _real_id(run_id: str, caller: Caller) -> int | None:
    """An unprivileged user id for a run that root starts; None where root here has no other id to give.

    There (a user namespace with one id) the caller is not the machine's root, and RLIMIT_NPROC binds it.
    """
    wanted = zlib.crc32(run_id.encode())
    if _EVERY_ID in caller.id_ranges:
        return _UNUSED_IDS[wanted % len(_UNUSED_IDS)]
    first, count = max(caller.id_ranges, key=lambda ids: ids[1])
    # The upper half of what a rootless container has: its own accounts are in the lower.
    return first + count // 2 + wanted % (count // 2) if count > 1000 else None
