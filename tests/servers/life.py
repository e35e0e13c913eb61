"""How a test has a server's processes: it starts, stops, kills and freezes them, and reads their log."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

STOP_SECONDS = 20
_TAIL_CHARACTERS = 3_000
# Below the range from which the kernel takes ports for outgoing connections: a port is still free at a restart.
# To the kernel, the parent is the thread that started a process: this one ends with the tests, and not before.
_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="servers")
_PORTS = range(15_000, 30_000)


class Life(Protocol):
    """A server's processes, wherever they run."""

    @property
    def pid(self) -> int: ...
    @property
    def pids(self) -> list[int]: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def tail(self) -> str: ...


class Processes:
    """A program started by hand, and every process that descends from it."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        stop_by: signal.Signals = signal.SIGTERM,
        user: Sequence[str] = (),
    ) -> None:
        """`user` is the command by which it runs as another user, or with another environment."""
        # A test process that is killed takes it along: it is told to stop when its parent ends.
        argv = [*user, "setpriv", "--pdeathsig", stop_by.name.removeprefix("SIG"), *argv]
        self.argv, self.log, self._environment, self._stop_by = list(argv), log, environment, stop_by
        self._popen: subprocess.Popen[bytes] | None = None

    def __str__(self) -> str:
        return " ".join(self.argv[:12])

    @property
    def pid(self) -> int:
        """Of the program itself; fails where it does not run."""
        if self._popen is None or self._popen.poll() is not None:
            pytest.fail(f"{self} does not run:\n{self.tail()}")
        return self._popen.pid

    @property
    def pids(self) -> list[int]:
        """The program's and its descendants', the program's first."""
        return tree(self.pid)

    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._popen = _STARTER.submit(
                subprocess.Popen,
                self.argv,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ).result()

    def stop(self) -> None:
        """End it in order; killed where it does not end."""
        if self._popen is None:
            return
        if self.is_running():
            self.thaw()
            self._popen.send_signal(self._stop_by)
            try:
                self._popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                pytest.fail(f"{self} did not stop within {STOP_SECONDS} s:\n{self.tail()}")
        self._popen.wait()

    def kill(self) -> None:
        """SIGKILL to all of it at once: also to children that made a session of their own."""
        if self._popen is None or not self.is_running():
            return
        self.freeze()  # nothing is forked between the look and the signal
        pids = self.pids
        _signal_all(pids, signal.SIGKILL)
        self._popen.wait()
        deadline = time.monotonic() + STOP_SECONDS
        while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.01)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        _signal_all(self.pids, signal.SIGSTOP)

    def thaw(self) -> None:
        _signal_all(self.pids, signal.SIGCONT)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-_TAIL_CHARACTERS:] if self.log.exists() else "(no log)"


class Foreign:
    """A server that an environment variable names: the tests use it, and never stop it."""

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def start(self) -> None:
        pass

    def _not_ours(self) -> int:
        pytest.fail(
            f"this test stops or kills its server, and {self._variable} names one that is not the tests' own: "
            f"run it without {self._variable}"
        )

    @property
    def pid(self) -> int:
        return self._not_ours()

    @property
    def pids(self) -> list[int]:
        return [self._not_ours()]

    def stop(self) -> None:
        self._not_ours()

    kill = freeze = thaw = stop

    def tail(self) -> str:
        return f"(its log is where {self._variable} has it)"


class Server(ABC):
    """A real server as a test has it; how it is known to be ready is its kind's own."""

    def __init__(self, life: Life) -> None:
        self._life = life

    @property
    def is_own(self) -> bool:
        """Whether it ends with the tests, and everything on it."""
        return not isinstance(self._life, Foreign)

    @property
    def pid(self) -> int:
        """Of its first process."""
        return self._life.pid

    @property
    def pids(self) -> list[int]:
        """Of that process and all that descend from it."""
        return self._life.pids

    @abstractmethod
    def wait_until_ready(self) -> None:
        """Until it answers; fails with the end of its log."""

    def start(self) -> None:
        """Start it on the port and the data that it has, and wait until it answers."""
        self._life.start()
        self.wait_until_ready()

    def stop(self) -> None:
        """In order: what was begun is ended, what is to last is written."""
        self._life.stop()

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self._life.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP to all of it: connections stay open, and nothing answers."""
        self._life.freeze()

    def thaw(self) -> None:
        self._life.thaw()

    def tail(self) -> str:
        """The end of its log."""
        return self._life.tail()


def tree(root: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it ended meanwhile
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def is_alive(pid: int) -> bool:
    """Whether it runs or is frozen; one that ended and was not waited for yet is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _signal_all(pids: Sequence[int], by: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, by)


def free_port() -> int:
    """A port of the loopback on which nothing listens, and which no connection takes by chance."""
    for _ in range(100):
        port = random.choice(_PORTS)
        with socket.socket() as listener, suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return port
    pytest.fail("no free port on 127.0.0.1")


def wait_for_port(
    port: int, *, of: Life, seconds: float, host: str = "127.0.0.1", hello: bytes | None = None
) -> None:
    """Until something listens there, and answers `hello` if one is given; fails with the end of its log."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((host, port), timeout=1 if hello is None else 5) as connection:
                if hello is not None:
                    connection.sendall(hello)
                    if not connection.recv(1):
                        raise ConnectionResetError("it hangs up")
        except OSError as error:
            if time.monotonic() > deadline or (isinstance(of, Processes) and not of.is_running()):
                pytest.fail(f"nothing listens on {host}:{port} ({error}):\n{of.tail()}")
            time.sleep(0.05)
        else:
            return
