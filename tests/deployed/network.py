"""A network between processes that can be cut: a namespace for some, and a cable that can be pulled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from servers.found import program
from servers.life import Processes, free_port, wait_for_port

FORWARD = Path(__file__).with_name("forward.py")
START_SECONDS = 30.0


class Cable:
    """A namespace, and the pair of interfaces between it and this machine."""

    def __init__(self, name: str, number: int) -> None:
        self.namespace = name
        self._here, self._there = f"{name}h", f"{name}t"
        self.here, self.there = f"10.213.{number}.1", f"10.213.{number}.2"

    @property
    def inside(self) -> list[str]:
        """The command by which a program runs at the other end."""
        return [ip_program(), "netns", "exec", self.namespace]

    def lay(self) -> None:
        _ip("netns", "add", self.namespace)
        _ip("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self.namespace)
        _ip("address", "add", f"{self.here}/30", "dev", self._here)
        _ip("link", "set", self._here, "up")
        for command in (
            ("address", "add", f"{self.there}/30", "dev", self._there),
            ("link", "set", self._there, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-netns", self.namespace, *command)

    def cut(self) -> None:
        """Packets are lost from now on, and nobody is told."""
        _ip("link", "set", self._here, "down")

    def mend(self) -> None:
        _ip("link", "set", self._here, "up")

    def remove(self) -> None:
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", self.namespace)


@contextmanager
def forwarder(host: str, targets: Sequence[int], log: Path) -> Iterator[int]:
    """A process that connects who comes to `host` with the first of these ports here that takes it; its port."""
    port = free_port()
    life = Processes([sys.executable, str(FORWARD), host, str(port), *map(str, targets)], log=log)
    life.start()
    try:
        wait_for_port(port, of=life, seconds=START_SECONDS, host=host)
        yield port
    finally:
        life.kill()


@contextmanager
def cable() -> Iterator[Cable]:
    """Laid, and removed at the end. It needs root, as servers of Debian's packages do."""
    # Tests of two processes have cables at the same time; a name of an interface has at most 15 characters.
    laid = Cable(f"mp{os.getpid()}", os.getpid() % 250)
    laid.remove()
    laid.lay()
    try:
        yield laid
    finally:
        laid.remove()


@cache
def ip_program() -> str:
    return str(program("ip", package="iproute2", folders=("/usr/sbin", "/sbin", "/usr/bin")))


def _ip(*arguments: str) -> None:
    subprocess.run([ip_program(), *arguments], check=True, capture_output=True, timeout=20)
