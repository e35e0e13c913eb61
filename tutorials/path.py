"""The data owner's path, once: the commands, what is typed at their prompts, and what each must show.

The demo prints it, and the tests walk it under everything that they do to the server.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pexpect

SERVER_START_SECONDS = 60
COMMAND_SECONDS = 240
SERVER_STOP_SECONDS = 30
COLUMNS = 160
_READY = re.compile(r"ready on http://127\.0\.0\.1:(\d+)\n")
_POLL_SECONDS = 0.02
_SAID_MOST_BYTES = 64 * 1024

YES = (r"\[y/N\]: ", "y")


@dataclass(frozen=True)
class Step:
    """One command of the path. `shows` are patterns that its screen must hold."""

    title: str
    command: str
    answers: tuple[tuple[str, str], ...] = ()
    shows: tuple[str, ...] = ()
    exit_code: int = 0


def login(username: str) -> Step:
    """A login at the prompts; the demo's people all have the password `test`."""
    answers = ((r"(?i)username: ", username), (r"(?i)password: ", "test"))
    return Step(f"Log in as {username}", "medperf login", answers, (f"as {username}",))


def data_owner_path(
    *, dataset_id: int = 1, data: Path | None = None, platform: str | None = None, is_first: bool = True
) -> list[Step]:
    """From the login to a submitted result; `{uid}` stands for the generated UID.

    On the tutorial's data, which is made first, or on `data`, a folder with `images` and `labels`. Unless a
    `platform` is given, the first run on a machine asks whether the sandbox may take an engine's place.
    """
    made = Step("Make the tutorial's files", "medperf tutorial data", shows=("images",))
    folder = "medperf_tutorial/mock_chexpert" if data is None else str(data)
    images, labels = shlex.quote(f"{folder}/images"), shlex.quote(f"{folder}/labels")
    run = f"medperf benchmark run --benchmark 1 --data_uid {dataset_id}"
    return [
        *([made] if data is None else []),
        login("testdataowner"),
        Step("Look at the benchmarks", "medperf benchmark ls", shows=(r"  1  chest-xray-tutorial",)),
        Step(
            "1. Prepare the data",
            'medperf dataset create --name "mytestdata" --description "A tutorial dataset" '
            f'--location "My machine" --data_path {images} --labels_path {labels} --benchmark 1'
            + (f" --platform {platform}" if platform else ""),
            (YES,) if platform is None and is_first else (),
            shows=(
                f"runs in {platform or 'sandbox'}",
                r"(?i)generated uid:? +(?P<uid>[0-9a-f]{40})",
            ),
        ),
        Step("See it", "medperf dataset ls --local", shows=("{uid}", "mytestdata")),
        Step(
            "2. Submit its metadata",
            "medperf dataset submit --data_uid {uid:.8}",
            (YES,),
            ("name: mytestdata", "generated_uid: {uid}", "statistics:", rf"(?i)server uid:? +{dataset_id}\b"),
        ),
        Step(
            "See it on the server",
            "medperf dataset ls --mine",
            shows=(rf"  {dataset_id}  mytestdata", "OPERATION"),
        ),
        Step(
            "3. Ask to take part",
            f"medperf dataset associate --benchmark_uid 1 --data_uid {dataset_id}",
            (YES,),
            ("auc:", "seconds:", "PENDING"),
        ),
        Step("Wait for the decision", "medperf association ls", shows=("PENDING",)),
        Step("Running is refused before it is approved", run, shows=("PENDING", "What to do:"), exit_code=15),
        Step("The committee approves", "medperf tutorial approve", shows=("APPROVED",)),
        Step("See the decision", "medperf association ls", shows=("APPROVED",)),
        Step("4. Run the benchmark", run, shows=(run_ends_with(dataset_id),)),
        Step("See the metrics", f"medperf result view b1m4d{dataset_id}", shows=(r"auc: [01]\.\d+",)),
        Step(
            "5. Submit a result",
            f"medperf result submit --result b1m4d{dataset_id}",
            (YES,),
            (r"auc: [01]\.\d+", r"(?i)server uid:? +\d"),
        ),
        Step("Submit the rest", "medperf result submit --all --yes", shows=(rf"b1m2d{dataset_id} is accepted",)),
    ]


def run_ends_with(dataset_id: int) -> str:
    """The table and the counts at the end of `benchmark run`, letter for letter."""
    return (
        r"  model  local result UID    partial result    from cache    error\r?\n"
        r"-------  ------------------  ----------------  ------------  -------\r?\n"
        rf"      2  b1m2d{dataset_id}              False             True *\r?\n"
        rf"      4  b1m4d{dataset_id}              False             False *\r?\n"
        r"Total number of models: 2\r?\n"
        r"        1 were skipped \(already executed\), of which 0 have partial results\r?\n"
        r"        0 failed\r?\n"
        r"        1 ran successfully, of which 0 have partial results\r?\n\r?\n"
        r"✅ Done!"
    )


class StepFailed(Exception):
    """A step did not end as it must; the message holds its screen."""


@dataclass
class Site:
    """A person's machine: where they type, what their commands see, what was learnt on the way."""

    folder: Path
    server_url: str
    say: Callable[[str], object]
    learnt: dict[str, str] = field(default_factory=dict)

    def walk(self, step: Step) -> str:
        """Type the command as a person would, at a terminal; the screen, once it is what it must be."""
        command = step.command.format(**self.learnt)
        self.say(f"\n$ {command}\n")
        screen, exit_code = self._type(command, step)
        problems = [] if exit_code == step.exit_code else [f"it ended with {exit_code}, not {step.exit_code}"]
        for pattern in step.shows:
            pattern = pattern.replace("{uid}", self.learnt.get("uid", "{uid}"))  # noqa: PLW2901
            found = re.search(pattern, screen)
            if found is None:
                problems.append(f"its screen does not show {pattern}")
            else:
                self.learnt.update(found.groupdict())
        if problems:
            raise StepFailed(f"$ {command}\n{screen}\n{'; '.join(problems)}")
        return screen

    def environment(self) -> dict[str, str]:
        """What the person's commands see: this server, a local folder of their own."""
        scripts = sysconfig.get_path("scripts")
        return {
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "MEDPERF_HOME": str(self.folder / "medperf_home"),
            "MEDPERF_SERVER": self.server_url,
            "COLUMNS": str(COLUMNS),
        }

    def _type(self, command: str, step: Step) -> tuple[str, int | None]:
        child = pexpect.spawn(
            "/bin/sh",
            ["-c", command],
            cwd=str(self.folder),
            env=self.environment(),
            encoding="utf-8",
            codec_errors="replace",
            timeout=COMMAND_SECONDS,
            dimensions=(50, COLUMNS),
        )
        screen = _Screen(self.say)
        child.logfile_read = screen
        try:
            for prompt, answer in step.answers:
                child.expect(prompt)
                child.sendline(answer)
            child.expect(pexpect.EOF)
        except (pexpect.EOF, pexpect.TIMEOUT) as error:
            child.close(force=True)
            why = "ended early" if isinstance(error, pexpect.EOF) else f"took over {COMMAND_SECONDS} s"
            raise StepFailed(f"$ {command}\n{screen.text}\nit {why}") from None
        child.close()
        return screen.text, child.exitstatus


class _Screen:
    """Keeps what a command printed, and passes it on as it comes."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self.text = ""
        self._say = say

    def write(self, text: str) -> None:
        self.text += text
        self._say(text)

    def flush(self) -> None:
        """Nothing is held back."""


@dataclass
class EmbeddedServer:
    """A real `medperf-server` process on a store of its own, on a free port that it keeps over restarts."""

    home: Path
    options: tuple[str, ...] = ()
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens; known once it was started."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        # A file, not a pipe: nobody reads it once the server is ready, and it can be looked at with a deadline.
        with tempfile.TemporaryFile() as output:
            self._process = subprocess.Popen(
                [*self._program(), "up", "--port", str(self.port), *self.options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment(),
            )
            said = self._first_words(output, time.monotonic() + SERVER_START_SECONDS)
        ready = _READY.search(said)
        if ready is None:
            self.stop()
            raise StepFailed(f"the server did not start:\n{said}")
        self.port = int(ready[1])

    def _first_words(self, output: IO[bytes], deadline: float) -> str:
        """What the server said until it was ready, or until it ended or the deadline passed."""
        assert self._process is not None
        while True:
            is_last_look = self._process.poll() is not None or time.monotonic() > deadline
            said = os.pread(output.fileno(), _SAID_MOST_BYTES, 0).decode(errors="replace")
            if is_last_look or _READY.search(said):
                return said
            time.sleep(_POLL_SECONDS)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Stop the process; its exit code."""
        assert self._process is not None
        self._process.send_signal(by)
        try:
            exit_code = self._process.wait(SERVER_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            exit_code = self._process.wait()
        self._process = None
        return exit_code

    def command(self, *arguments: str, given: str | None = None) -> str:
        """Another `medperf-server` command on the same store, `given` on its standard input; what it printed."""
        done = subprocess.run(
            [*self._program(), *arguments],
            env=self._environment(),
            input=given,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise StepFailed(f"medperf-server {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _program(self) -> list[str]:
        return [sys.executable, "-m", "services.main"]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "MEDPERF_SERVER_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}


@contextmanager
def seeded_server(home: Path, *options: str, images: Path | None = None) -> Iterator[EmbeddedServer]:
    """A running server with the tutorial's seed, with `images` where they are built; it is stopped at the end."""
    server = EmbeddedServer(home, options)
    server.start()
    try:
        server.command("seed", "--demo", "data", *(["--images", str(images)] if images else []))
        yield server
    finally:
        if server.is_running:
            server.stop()
