"""What processes use, seen while they come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from medperf.engines import tree

MIB = 1024**2
SHARED_BYTES = 120 * MIB
# Four processes share the memory; the one that made it does not keep it.
_SHARING = f"""
import mmap, os, sys
shared = mmap.mmap(-1, {SHARED_BYTES})
shared.write(b"x" * {SHARED_BYTES})
for _ in range(4):
    if not os.fork():
        sum(shared[::4096])
        os.write(1, b"%d\\n" % os.getpid())
        sys.stdin.read()
        os._exit(0)
shared.close()
sys.stdin.read()
"""


def test_what_processes_share_does_not_count_again_in_the_one_that_outlives_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here they are made to end between two reads, as they do by themselves on a machine with much to do."""
    own_share = tree._own_share
    read: list[int] = []

    def read_the_last_when_the_others_have_ended(pid: int, counted: frozenset[tree.File]) -> int:
        share = own_share(pid, counted)
        read.append(pid)
        if len(read) == 4:  # the first that is read is the one above them
            for ended in read[1:]:
                os.kill(ended, signal.SIGKILL)
                while not tree._has_ended(f"/proc/{ended}"):
                    time.sleep(0.001)
        return share

    command = [sys.executable, "-c", _SHARING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as top:
        assert top.stdout is not None
        sharing = {int(top.stdout.readline()) for _ in range(4)}
        monkeypatch.setattr(tree, "_own_share", read_the_last_when_the_others_have_ended)
        held = tree.ProcessTree(top.pid).memory_bytes(enough=SHARED_BYTES + 60 * MIB)
        assert {top.pid, *sharing} == set(read[:5])
        assert held < SHARED_BYTES + 60 * MIB < len(sharing) * SHARED_BYTES
        top.communicate()
