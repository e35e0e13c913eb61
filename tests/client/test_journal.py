"""The journal of runs: written before they start, and what a client that died leaves is found by the next."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from containers.small import sandbox_only
from medperf import left_over
from medperf.causes import Cause
from medperf.client_process import Client
from medperf.engines.base import State
from medperf.engines.choice import Engines
from medperf.errors import StorageFailed, UsageError
from medperf.home import Home
from medperf.journal import Journal, RunState
from medperf.left_over import end_left_over
from peers.runs import open_run

# Another process opens a run, says its ID, and waits to be killed.
_OTHER_CLIENT = """
import sys, time
from pathlib import Path
from medperf.journal import Journal
run = Journal(Path(sys.argv[1])).open_run(
    purpose="benchmark run", container_hash="0" * 64, container_name="model", task="infer",
    dataset_uid=None, engine="sandbox", limits={})
Journal(Path(sys.argv[1])).started(run.id)
print(run.id, flush=True)
time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home("http://localhost:8000", tmp_path / "localhost_8000")


def other_client(home: Home) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _OTHER_CLIENT, str(home.journal)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_run_is_a_record_from_its_start_to_its_one_end(home: Home) -> None:
    journal = Journal(home.journal)
    run = open_run(journal, dataset_uid="ab" * 20, limits={"wall_seconds": 5.0})
    assert (run.state, run.started_at, run.limits) == (RunState.QUEUED, None, {"wall_seconds": 5.0})
    journal.started(run.id)
    assert journal.find(run.id).state is RunState.RUNNING
    assert journal.ended(run.id, RunState.FAILED, cause=Cause.EXIT_CODE, exit_code=3)
    assert not journal.ended(run.id, RunState.DONE, cause=None, exit_code=0)

    ended = Journal(home.journal).find(run.id)

    assert (ended.state, ended.cause, ended.exit_code) == (RunState.FAILED, "exit_code", 3)
    assert ended.finished_at is not None
    assert ended.started_at is not None
    assert ended.client == Client.this()


def test_a_run_that_is_not_there_is_not_found(home: Home) -> None:
    with pytest.raises(KeyError):
        Journal(home.journal).find("nothing")


def test_the_runs_of_a_dataset_are_the_newest_first(home: Home) -> None:
    journal = Journal(home.journal)
    first, second = (
        open_run(journal, dataset_uid="ab" * 20, limits={"wall_seconds": 5.0}),
        open_run(journal, dataset_uid="ab" * 20, limits={"wall_seconds": 5.0}),
    )
    assert [run.id for run in journal.runs(dataset_uid="ab" * 20)] == [second.id, first.id]
    assert journal.runs(dataset_uid="cd" * 20) == []


def test_a_run_of_a_client_that_lives_is_no_left_over(home: Home) -> None:
    journal = Journal(home.journal)
    open_run(journal)
    process, run_id = other_client(home)
    try:
        assert journal.left_over() == []
    finally:
        kill(process)
    assert [run.id for run in journal.left_over()] == [run_id]


def test_a_process_id_that_came_back_is_another_client() -> None:
    this = Client.this()
    assert this.is_alive()
    assert not replace(this, started=f"{int(this.started) - 1}").is_alive()
    assert not replace(this, boot_id="another boot").is_alive()


def said(home: Home, journal: Journal) -> list[str]:
    """What the next command says of what earlier ones left, having ended and removed it."""
    lines: list[str] = []
    end_left_over(home, journal, sandbox_only(home), say=lines.append)
    return lines


def test_the_next_command_ends_what_a_killed_client_left_and_keeps_its_log(home: Home) -> None:
    journal = Journal(home.journal)
    process, run_id = other_client(home)
    folder = home.runs / run_id
    (folder / "work/output_path").mkdir(parents=True)
    (folder / "work/output_path/half.csv").write_text("half")
    (folder / f"{run_id}.tmp").mkdir()
    # As a container could leave it.
    (folder / "work/output_path").chmod(0o000)
    (folder / "task.log").write_text("said")
    try:
        assert said(home, journal) == []
        assert (folder / "work").is_dir()
    finally:
        kill(process)

    (line,) = said(home, journal)

    assert "in the middle of" in line
    assert (journal.find(run_id).state, journal.find(run_id).cause) == (RunState.FAILED, Cause.CLIENT_GONE)
    assert [path.name for path in folder.iterdir()] == ["task.log"]
    assert (folder / "task.log").read_text() == "said"
    assert said(home, journal) == []


def test_outputs_that_a_killed_client_had_lent_are_removed_though_its_run_was_done(home: Home) -> None:
    journal = Journal(home.journal)
    process, run_id = other_client(home)
    work = home.runs / run_id / "work"
    work.mkdir(parents=True)
    journal.ended(run_id, RunState.DONE, cause=None, exit_code=0)
    try:
        said(home, journal)
        assert work.is_dir()
    finally:
        kill(process)
    said(home, journal)
    assert not work.exists()


def test_however_deep_a_container_wrote_it_is_removed(home: Home) -> None:
    journal = Journal(home.journal)
    process, run_id = other_client(home)
    folder = home.runs / run_id / "work"
    folder.mkdir(parents=True)
    deepest = os.open(folder, os.O_DIRECTORY)
    # Deeper than Python's recursion, with a path longer than the kernel takes.
    for _ in range(1500):
        os.mkdir("deep", dir_fd=deepest)
        inner = os.open("deep", os.O_DIRECTORY, dir_fd=deepest)
        os.close(deepest)
        deepest = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=deepest))
    os.close(deepest)
    kill(process)
    said(home, journal)
    assert list((home.runs / run_id).iterdir()) == []


def test_two_commands_at_once_both_find_what_was_left_behind_in_order(home: Home) -> None:
    for _ in range(5):
        process, run_id = other_client(home)
        (home.runs / run_id / "work" / "some" / "folders").mkdir(parents=True)
        kill(process)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from medperf.home import Home\n"
        "from medperf.journal import Journal\n"
        "from containers.small import sandbox_only\n"
        "from medperf.left_over import end_left_over\n"
        "home = Home(sys.argv[1], Path(sys.argv[2]))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "end_left_over(home, Journal(home.journal), sandbox_only(home), say=lambda text: None)\n"
    )
    command = [sys.executable, "-c", code, home.server, str(home.root)]
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    both = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)
        for _ in range(2)
    ]
    for one in both:
        assert one.stdout
        assert one.stdout.readline() == "ready\n"
    for one in both:
        assert one.stdin
        one.stdin.write("go\n")
        one.stdin.flush()
    ends = [one.communicate(timeout=60) for one in both]
    assert [one.returncode for one in both] == [0, 0], ends
    assert all(list(folder.iterdir()) == [] for folder in home.runs.iterdir())


class Busy:
    """An engine at the seam, in which another terminal's container appears while it is asked what it has."""

    name = "docker"

    def __init__(self, appears: Callable[[], str]) -> None:
        self.appears = appears
        self.discarded: list[str] = []

    def left_over(self) -> set[str]:
        return {self.appears()}

    def find(self, run_id: str) -> State | None:
        return None if run_id in self.discarded else State.RUNNING

    def discard(self, run_id: str) -> None:
        self.discarded.append(run_id)


def engines_with(home: Home, engine: Busy) -> Engines:
    engines = sandbox_only(home)
    vars(engines)["docker"] = engine
    return engines


def test_a_container_that_another_terminal_starts_meanwhile_is_left_alone(home: Home) -> None:
    journal = Journal(home.journal)
    journal.ended(open_run(journal, engine="docker").id, RunState.DONE, cause=None, exit_code=0)
    begun: list[subprocess.Popen[str]] = []

    def appears() -> str:
        process, run_id = other_client(home)
        begun.append(process)
        return run_id

    engine = Busy(appears)
    lines: list[str] = []
    try:
        end_left_over(home, journal, engines_with(home, engine), say=lines.append)
    finally:
        for process in begun:
            kill(process)
    assert len(begun) == 1
    assert engine.discarded == []
    assert lines == []


def test_a_container_that_no_record_names_may_be_another_machines_and_is_only_said(home: Home) -> None:
    journal = Journal(home.journal)
    journal.ended(open_run(journal, engine="docker").id, RunState.DONE, cause=None, exit_code=0)
    engine = Busy(lambda: "a-run-of-elsewhere")
    lines: list[str] = []
    end_left_over(home, journal, engines_with(home, engine), say=lines.append)
    assert engine.discarded == []
    assert ["a-run-of-elsewhere" in line for line in lines] == [True]


def test_only_so_many_ended_runs_are_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_over, "_RUNS_KEPT", 2)
    journal = Journal(home.journal)
    process, old = other_client(home)
    kill(process)
    (home.runs / old).mkdir()
    runs = [open_run(journal) for _ in range(3)]
    said(home, journal)
    # The oldest of the living client stays: it may still be lending its outputs.
    assert {run.id for run in journal.runs()} == {run.id for run in runs}
    assert not (home.runs / old).exists()


def test_what_is_written_survives_a_power_cut(home: Home) -> None:
    journal = Journal(home.journal)
    with journal._connected() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_clients_that_begin_at_the_same_moment_all_record_their_runs(home: Home) -> None:
    file = home.journal
    started = [other_client_process(file) for _ in range(4)]
    try:
        ids = {process.stdout.readline().strip() for process in started if process.stdout}
    finally:
        for process in started:
            kill(process)
    assert len(ids) == 4
    assert {run.id for run in Journal(file).runs()} == ids


def other_client_process(file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _OTHER_CLIENT, str(file)], stdout=subprocess.PIPE, text=True)


def test_a_journal_of_a_newer_client_is_refused_and_left_alone(home: Home) -> None:
    with sqlite3.connect(home.journal) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UsageError, match="newer medperf"):
        Journal(home.journal)


def test_a_file_that_is_no_journal_is_a_clear_error(home: Home) -> None:
    home.journal.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageFailed, match="cannot be used"):
        Journal(home.journal)
