"""A Docker engine of the tests' own, which may be killed: the one that other tests use goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from medperf.manifest import Role

_START_SECONDS = 60.0


class Dockerd:
    """One dockerd with a containerd of its own, as a system's services have them: only dockerd is killed."""

    def __init__(self, folder: Path, *, live_restore: bool) -> None:
        self.folder = folder
        self.address = f"unix://{folder}/docker.sock"
        # The small containers' images, by role, for whoever made them here.
        self.images: dict[Role, str] = {}
        self._options = ["--live-restore"] if live_restore else []
        self._process: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again where it was killed, and wait until it answers."""
        # A killed one leaves the file, and its process ID may be another's by now.
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            if self._containerd is None:
                self._containerd = self._start_containerd(log)
            self._process = subprocess.Popen(
                [
                    *("dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", *self._options),
                    *("--data-root", self.folder / "data", "--exec-root", self.folder / "exec"),
                    *("--pidfile", self.folder / "pid", "--host", self.address),
                    *("--containerd", self.folder / "containerd.sock"),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def _start_containerd(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        place = self.folder / "containerd"
        return subprocess.Popen(
            [
                *("containerd", "--root", place / "root", "--state", place / "state"),
                *("--address", self.folder / "containerd.sock"),
            ],
            stdout=log,
            stderr=log,
        )

    def answers(self) -> bool:
        """Whether it does what it is asked."""
        asked = subprocess.run(["docker", "-H", self.address, "version"], capture_output=True, check=False)
        return asked.returncode == 0

    def kill(self) -> None:
        """End it as a crash does; its containerd and its containers' shims go on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def load(self, base_image: str) -> None:
        """Bring the base image here from the engine that has it."""
        with subprocess.Popen(["docker", "save", f"sha256:{base_image}"], stdout=subprocess.PIPE) as saving:
            loaded = subprocess.run(
                ["docker", "-H", self.address, "load"], stdin=saving.stdout, capture_output=True, check=False
            )
        assert (loaded.returncode, saving.returncode) == (0, 0), loaded.stderr

    def close(self) -> None:
        """End it, its containerd and whatever runs in it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=30)
            self._process.kill()
            self._process.wait()
        if self._containerd is not None:
            self._containerd.kill()
            self._containerd.wait()
        for process in _started_in(self.folder):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.2)
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in sorted((it for it in mounted if it.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", place], check=False)


def _started_in(folder: Path) -> list[int]:
    """Its containers' shims and what runs in them: what names the folder in its command line."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                if f"{folder}/".encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
    return found


@contextmanager
def dockerd(*, live_restore: bool = False) -> Iterator[Dockerd]:
    """An engine that runs while the block does."""
    # Its sockets' paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    engine = Dockerd(folder, live_restore=live_restore)
    try:
        engine.start()
        yield engine
    finally:
        engine.close()
        shutil.rmtree(folder, ignore_errors=True)
