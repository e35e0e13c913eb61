"""An engine's own filter of system calls, without those that make namespaces or change mounts."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

from medperf.files import make_private_folder, write_atomically

# Podman lets containers have these, so that they can run containers themselves. In a namespace of its own a
# process has every capability, and with it more of the kernel to attack.
_DENIED = frozenset(
    {
        *("unshare", "setns", "clone", "clone3"),
        *("mount", "umount", "umount2", "mount_setattr", "move_mount", "open_tree", "pivot_root"),
        *("fsconfig", "fsmount", "fsopen", "fspick"),
        *("add_key", "keyctl", "request_key"),
    }
)
# Every other action lets a call through, though it may write it down first.
_REFUSING = ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_TRAP")
# Every CLONE_NEW… flag of linux/sched.h but the one for time, which clone does not take.
_NAMESPACE_FLAGS = 0x7E020000
# Processes and threads are made with `clone`: without those flags it stays. The flags of `clone3` lie in memory,
# where no filter sees them: it is answered as by a kernel that does not know it, so that libraries take `clone`.
_CLONES = (
    {
        "names": ["clone"],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": _NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
    },
    {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
)


def without_namespaces(profile: dict[str, Any]) -> dict[str, Any]:
    """A filter in the engines' form, with no way to a namespace or a mount; ValueError for what is none."""
    rules = profile.get("syscalls")
    if not isinstance(rules, list) or profile.get("defaultAction") != "SCMP_ACT_ERRNO":
        raise ValueError("not a filter that refuses what it does not name")
    kept = []
    for rule in rules:
        refuses = str(rule["action"]).startswith(_REFUSING)
        names = [name for name in rule["names"] if name not in _DENIED or refuses]
        if names:
            kept.append({**rule, "names": names})
    return {**profile, "syscalls": [*kept, *_CLONES]}


def write_filter(sources: tuple[str, ...], folder: Path) -> Path | None:
    """Derive the filter from the first of the engine's own that is there; None where none can be read."""
    for source in sources:
        try:
            filtered = without_namespaces(json.loads(Path(source).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        file = make_private_folder(folder) / "seccomp.json"
        write_atomically(file, json.dumps(filtered))
        return file
    return None
