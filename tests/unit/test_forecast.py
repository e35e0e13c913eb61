"""What is said before a benchmark run of how long it will take."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from medperf.cli.forecast import forecast
from medperf.containers import LocalContainer
from medperf.journal import Journal, RunState
from medperf.manifest import parse_manifest
from peers.runs import open_run

MANIFEST = parse_manifest("docker: {image: a}\ntasks: {infer: {}}")


def container(name: str) -> LocalContainer:
    return LocalContainer(1, name, name, MANIFEST, Path())


def took(file: Path, name: str, seconds: int, *, state: RunState = RunState.DONE) -> None:
    """Record a run of a container that took so long."""
    journal = Journal(file)
    run = open_run(journal, container_hash=name)
    journal.started(run.id)
    journal.ended(run.id, state, cause=None, exit_code=0)
    began = datetime.now(UTC) - timedelta(days=1)
    times = (began.isoformat(), (began + timedelta(seconds=seconds)).isoformat(), run.id)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE runs SET started_at = ?, finished_at = ? WHERE id = ?", times)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "Models: 2 to run, 3 already done. Free"),
        ({"a": 42}, "; 1 of them took 42 s when last run here. "),
        ({"a": 61 * 60, "b": 59}, "; they took 1 h 1 min when last run here. "),
        ({"a": 120}, " took 2 min when"),
    ],
)
def test_it_counts_what_is_known(tmp_path: Path, known: dict[str, int], said: str) -> None:
    file = tmp_path / "journal.sqlite"
    for name, seconds in known.items():
        took(file, name, 5 * seconds)  # an earlier run, on another machine's load
        took(file, name, seconds)
        took(file, name, 1, state=RunState.FAILED)
    assert said in forecast(Journal(file), tmp_path, [container("a"), container("b")], done=3)
