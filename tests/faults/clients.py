"""Commands of `medperf` on one person's machine, each a real process that a test may interrupt."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pexpect

from medperf.home import Home

_LAUNCHER = Path(__file__).with_name("launched_client.py")
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal that killed it) and its screen."""

    exit_code: int
    screen: str
    touches: int


class Launcher:
    """The process that forks a command for each order."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, str(_LAUNCHER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(_ROOT / "tests")},
        )
        self._answer()

    @property
    def pid(self) -> int:
        """The launcher's process ID."""
        return self._process.pid

    def order(self, **words: object) -> dict[str, Any]:
        """Have an order carried out; what the launcher answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the launcher; its commands die with it."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the launcher died"
        return cast(dict[str, Any], json.loads(line))


@contextmanager
def launcher(*prefix: str) -> Iterator[Launcher]:
    """A launcher, perhaps itself started by another program."""
    begun = Launcher(prefix)
    try:
        yield begun
    finally:
        begun.close()


@dataclass
class Terminal:
    """A person's machine: where they are, their local folder, the server they use."""

    launcher: Launcher
    folder: Path
    server: str
    temporary: Path | None = None
    bound_seconds: float = 30.0
    screens: Path | None = None
    _number: int = field(default=0, init=False)

    @property
    def base(self) -> Path:
        """MEDPERF_HOME."""
        return self.folder / "home"

    @property
    def home(self) -> Home:
        """The local folder that belongs to the server."""
        return Home(self.server, self.base / f"127.0.0.1_{self.server.rpartition(':')[2]}")

    def begin(self, *arguments: str, stdin: str = "", at: int = 0, by: signal.Signals = signal.SIGKILL) -> Begun:
        """Begin a command; with `at`, it gets the signal `by` just before it touches the world that often."""
        self._number += 1
        logs = self.screens or self.folder.with_name(f"{self.folder.name}.screens")
        logs.mkdir(exist_ok=True)
        output, counter = logs / f"{self._number}", logs / f"{self._number}.touches"
        if self.screens is None:
            (self.folder / "work").mkdir(exist_ok=True, parents=True)
        answer = self.launcher.order(
            cwd=str(self.folder / "work"),
            environment=self.environment(),
            output=str(output),
            counter=str(counter),
            arguments=arguments,
            stdin=stdin,
            at=at,
            by=int(by),
            bound_seconds=self.bound_seconds,
        )
        return Begun(self.launcher, answer["pid"], output, counter)

    def run(self, *arguments: str, stdin: str = "", at: int = 0, by: signal.Signals = signal.SIGKILL) -> Ended:
        """Run a command to its end."""
        return self.begin(*arguments, stdin=stdin, at=at, by=by).wait()

    def done(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that must end well; its screen."""
        ended = self.run(*arguments, stdin=stdin)
        assert ended.exit_code == 0, f"medperf {' '.join(arguments)}\n{ended.screen}\nexit {ended.exit_code}"
        return ended.screen

    @contextmanager
    def at_a_terminal(self, *arguments: str) -> Iterator[pexpect.spawn[str]]:
        """A command that a person types at a terminal."""
        (self.folder / "work").mkdir(exist_ok=True, parents=True)
        child = pexpect.spawn(
            str(Path(sys.executable).with_name("medperf")),
            list(arguments),
            cwd=str(self.folder / "work"),
            env=self.environment(),
            encoding="utf-8",
            timeout=30,
            dimensions=(50, 160),
        )
        try:
            yield child
        finally:
            child.close(force=True)

    def environment(self) -> dict[str, str]:
        """What its commands see."""
        own = {"MEDPERF_HOME": str(self.base), "MEDPERF_SERVER": self.server, "COLUMNS": "160"}
        if self.temporary is not None:
            own["TMPDIR"] = str(self.temporary)
        return {**os.environ, **own}

    def copied_to(self, folder: Path) -> Terminal:
        """The same machine somewhere else, as it is now."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Terminal(self.launcher, folder, self.server, self.temporary, self.bound_seconds)


@dataclass(frozen=True)
class Begun:
    """A command that runs."""

    launcher: Launcher
    pid: int
    output: Path
    counter: Path

    def screen(self) -> str:
        """What it has printed so far."""
        return self.output.read_text() if self.output.exists() else ""

    def wait_for(self, text: str, seconds: float = 30.0) -> None:
        """Wait until it has printed something."""
        deadline = time.monotonic() + seconds
        while text not in self.screen():
            assert time.monotonic() < deadline, f"it never said {text!r}:\n{self.screen()}"
            time.sleep(0.01)

    def send(self, by: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, by)

    def wait(self) -> Ended:
        """Wait for its end."""
        exit_code = self.launcher.order(wait=self.pid)["exit_code"]
        counted = self.counter.read_text() if self.counter.exists() else ""
        return Ended(exit_code, self.screen(), int(counted or 0))
