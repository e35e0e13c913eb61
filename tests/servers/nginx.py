"""A real nginx for tests.

It is a program, not a container: it must reach services on the loopback of the machine that runs the tests.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .found import NGINX, first, named, program
from .life import Processes, Server, wait_for_port

START_SECONDS = 10.0


def find_nginx() -> Path:
    """The program that the environment names, else Debian's."""
    return first("nginx", NGINX, (_named, lambda: program("nginx", package="nginx-light", folders=("/usr/sbin",))))


def _named() -> Path:
    path = Path(named(NGINX))
    if not path.is_file():
        pytest.fail(f"{NGINX} names {path}, which is no program")
    return path


def as_the_tests() -> str:
    """A directive for the workers of root's nginx: a test's folder is its owner's alone."""
    return "user root;" if os.geteuid() == 0 else ""


class NginxServer(Server):
    """An nginx on a folder that holds its `nginx.conf`, and its processes."""

    def __init__(self, binary: Path, folder: Path, *, port: int, options: str = "") -> None:
        """`port` is one that the configuration listens on, `options` are directives beside it (`-g`)."""
        for name in ("tmp", "logs"):
            (folder / name).mkdir(exist_ok=True)
        argv = [str(binary), "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr"]
        if directives := f"{as_the_tests()} {options}".strip():
            argv += ["-g", directives]
        self.port = port
        super().__init__(Processes(argv, log=folder / "nginx.log", stop_by=signal.SIGQUIT))

    def wait_until_ready(self) -> None:
        wait_for_port(self.port, of=self._life, seconds=START_SECONDS)


@contextmanager
def nginx(binary: Path, folder: Path, *, port: int, options: str = "") -> Iterator[NginxServer]:
    """nginx at work, killed at the end. The configuration says `daemon off`, or `options` do."""
    server = NginxServer(binary, folder, port=port, options=options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
