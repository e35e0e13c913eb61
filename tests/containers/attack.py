"""Attacks from inside a container: a client in small, run as root or as a plain user, in any engine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).with_name("driver.py")
# A user of the machine that is nobody's, and of this test process alone: its processes are counted.
PLAIN_USER = 1_900_000_000 + os.getpid()
MIB = 1024**2
AS_ROOT = os.getuid() == 0
CALLERS = ["root", "user"] if AS_ROOT else ["user"]
# What the client imports, and the Docker SDK with what that imports.
_PACKAGES = (
    "medperf",
    "medperf_contracts",
    "yaml",
    "blake3",
    "docker",
    "requests",
    "urllib3",
    "idna",
    "charset_normalizer",
    "certifi",
)


@dataclass
class Ran:
    said: dict[str, Any]
    folder: Path
    log: bytes

    def __getattr__(self, name: str) -> Any:
        return self.said.get(name)

    @cached_property
    def answers(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.said["lines"] if "=" in line)


@dataclass
class Client:
    """Starts the driver as root or as a plain user, on a folder that this user can read."""

    engine: str
    caller: str
    folder: Path
    library: Path
    cgroups: bool = True
    image_sha256: str = ""
    # Its image as a Singularity file.
    sif: str = ""
    run_id: str = ""

    @property
    def is_rootless(self) -> bool:
        """Whether its engine is a user's own, and has no cgroups for what it bounds."""
        return self.caller == "rootless"

    def weaknesses(self) -> list[str]:
        """What its engine says that it cannot hold a container to."""
        said: list[str] = self.run("", weaknesses=True).weaknesses
        return said

    def command(self, code: str, **case: Any) -> tuple[list[str], dict[str, str]]:
        self.run_id = f"attack{uuid.uuid4().hex[:12]}"
        (self.folder / "code" / "main.py").write_text(PREAMBLE + textwrap.dedent(code))
        described = {
            "engine": self.engine,
            "folder": str(self.folder),
            "run_id": self.run_id,
            "cgroups": self.cgroups,
            "image_sha256": self.image_sha256,
            "sif": self.sif,
            **case,
        }
        (self.folder / "case.json").write_text(json.dumps(described))
        python, environment = sys.executable, {**os.environ, "HOME": str(self.folder / "home"), "SECRET": "leak"}
        prefix: list[str] = []
        user = PLAIN_USER
        if self.caller == "rootless":
            number, _, environment["CONTAINER_HOST"] = os.environ["MEDPERF_TEST_ROOTLESS"].partition(" ")
            user = int(number)
        if self.caller != "root" and AS_ROOT:
            assert Path("/usr/bin/python3").exists(), "a plain user needs an interpreter outside of root's home"
            python, environment["PYTHONPATH"] = "/usr/bin/python3", str(self.library)
            groups = f"--groups={docker_group()}" if self.engine == "docker" else "--clear-groups"
            prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", groups]
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, user, user, follow_symlinks=False)
        return [*prefix, python, str(self.library / DRIVER.name), str(self.folder / "case.json")], environment

    def run(self, code: str, **case: Any) -> Ran:
        command, environment = self.command(code, **case)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, cwd="/", check=False
        )
        assert done.returncode == 0, done.stderr
        log = self.folder / "log"
        return Ran(
            json.loads(done.stdout.splitlines()[-1]), self.folder, log.read_bytes() if log.exists() else b""
        )


PREAMBLE = """\
import ctypes, os, signal, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, action):
    try:
        print(f"{name}=done {action()}")
    except Exception as error:
        print(f"{name}=refused {type(error).__name__} {getattr(error, 'errno', '')}")
def call(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "call")
"""


@contextmanager
def library() -> Iterator[Path]:
    """The client and what it imports, where a plain user can read it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for package in _PACKAGES:
            found = find_spec(package)
            assert found is not None
            assert found.origin is not None
            source = Path(found.origin).parent
            shutil.copytree(source, Path(folder, source.name), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(DRIVER, folder)
        for path in Path(folder).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield Path(folder)


@contextmanager
def make_client(
    engine: str,
    caller: str,
    library: Path,
    *,
    cgroups: bool = True,
    image_sha256: str = "",
    sif: str = "",
) -> Iterator[Client]:
    """A client with an input, an output folder and a home."""
    # Not pytest's own folder: only root may pass it.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("in", "out", "code", "home"):
            (folder / part).mkdir()
        (folder / "in" / "scan.txt").write_text("a patient")
        (folder / "in" / "scan.txt").chmod(0o600)
        (folder / "home" / "id_rsa").write_text("a private key")
        yield Client(engine, caller, folder, library, cgroups, image_sha256, sif)


def docker_group() -> int:
    """Who may talk to the engine that the tests use."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    return Path(address.removeprefix("unix://")).stat().st_gid


def processes_with(marker: str) -> list[Path]:
    """Processes, zombies aside, whose command line holds `marker`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if marker.encode() in (process / "cmdline").read_bytes():
                    found.append(process)
    return found


def eventually(claim: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if claim():
            return True
        time.sleep(0.02)
    return claim()


def cgroups_of(run_id: str) -> list[Path]:
    return [folder for top in Path("/sys/fs/cgroup").glob("*") for folder in top.rglob(f"medperf-*-{run_id}")]
