"""Which process a record is of, and whether it lives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Client:
    """One process of one boot: a process ID alone comes back."""

    pid: int
    started: str
    boot_id: str

    @classmethod
    def this(cls) -> Client:
        """The process that asks."""
        pid = os.getpid()
        return cls(pid, _process_start(pid) or "", boot_id())

    def is_alive(self) -> bool:
        """Whether that very process still runs."""
        return self.boot_id == boot_id() and _process_start(self.pid) == self.started


def boot_id() -> str:
    """What the kernel calls the time since the machine was started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _process_start(pid: int) -> str | None:
    """When the process started, in clock ticks since boot; None if there is none or it is a zombie."""
    try:
        # The name, in parentheses, may itself hold spaces and parentheses, and half a character at its end.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode("ascii").split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
