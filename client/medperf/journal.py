"""The journal: one row for every run of a container's task, written before it starts.

One SQLite file in the server's local folder. What a client that died left behind is found here by the next one.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from medperf.causes import Cause
from medperf.client_process import Client
from medperf.errors import Busy, StorageFailed, UsageError
from medperf.files import is_full

# A second command writes for milliseconds at most; more means that something holds the file.
_BUSY_SECONDS = 10.0
_SCHEMA_VERSION = 3
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    container_hash TEXT NOT NULL,
    container_name TEXT NOT NULL,
    task TEXT NOT NULL,
    dataset_uid TEXT,
    engine TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    cause TEXT,
    exit_code INTEGER,
    created_at TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT,
    limits TEXT NOT NULL,
    client_pid INTEGER NOT NULL,
    client_started TEXT NOT NULL,
    boot_id TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS runs_open ON runs (state) WHERE state IN ('queued', 'running');
"""
# From the version before each to it.
_CHANGES = {
    2: (
        "ALTER TABLE runs ADD COLUMN engine_reason TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE runs ADD COLUMN root_is_writable INTEGER NOT NULL DEFAULT 0",
    ),
    3: (
        "ALTER TABLE runs ADD COLUMN work_key TEXT",
        "ALTER TABLE runs ADD COLUMN holds_outputs INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE runs ADD COLUMN cancel_asked_at TEXT",
        "CREATE INDEX runs_work ON runs (work_key) WHERE work_key IS NOT NULL",
    ),
}


class RunState(StrEnum):
    """`queued` and `running` are open; the others are ends, each with its cause."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = frozenset({RunState.QUEUED, RunState.RUNNING})


@dataclass(frozen=True)
class Run:
    """A run as the journal holds it. Times are UTC, limits in seconds, bytes and processes."""

    id: str
    purpose: str
    container_hash: str
    container_name: str
    task: str
    dataset_uid: str | None
    engine: str
    state: RunState
    cause: Cause | None
    exit_code: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    limits: dict[str, Any]
    client: Client
    engine_reason: str
    root_is_writable: bool
    # What it works on, by content; another command that wants the same goes on with it. None: nobody does.
    work_key: str | None
    # Whether it ended well and its outputs wait for whoever wants them.
    holds_outputs: bool
    cancel_is_asked: bool

    @property
    def is_open(self) -> bool:
        """Whether it has not ended yet, as far as is known."""
        return self.state in OPEN

    @property
    def short_id(self) -> str:
        """What a person types of its ID."""
        return self.id[:8]


class Journal:
    """The runs of one server's local folder."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with self._connected() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise UsageError(
                f"{file} was written by a newer medperf.", hint="Use that version, or another MEDPERF_HOME."
            )
        if version < _SCHEMA_VERSION:
            self._upgrade()

    def _upgrade(self) -> None:
        with self._writing() as connection:
            # Read again, with the lock: another command may have been first.
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
            for number in range(max(version, 1) + 1, _SCHEMA_VERSION + 1):
                for statement in _CHANGES[number]:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def open_run(
        self,
        *,
        purpose: str,
        container_hash: str,
        container_name: str,
        task: str,
        dataset_uid: str | None,
        engine: str,
        limits: Mapping[str, object],
        engine_reason: str = "",
        root_is_writable: bool = False,
        work_key: str | None = None,
        run_id: str | None = None,
    ) -> Run:
        """Record a run that is about to start, under an ID of its own.

        Whoever must end the run even where this call is interrupted gives a new UUID as `run_id`.
        """
        run_id = run_id or str(uuid.uuid4())
        client = Client.this()
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO runs (id, purpose, container_hash, container_name, task, dataset_uid, engine, state,"
                " created_at, limits, client_pid, client_started, boot_id, engine_reason, root_is_writable,"
                " work_key) VALUES (?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run_id,
                    purpose,
                    container_hash,
                    container_name,
                    task,
                    dataset_uid,
                    engine,
                    _now(),
                    json.dumps(dict(limits)),
                    client.pid,
                    client.started,
                    client.boot_id,
                    engine_reason,
                    root_is_writable,
                    work_key,
                ),
            )
        return self.find(run_id)

    def started(self, run_id: str, *, limits: Mapping[str, object] | None = None) -> None:
        """The engine has it, with these limits where it was opened with others."""
        written = None if limits is None else json.dumps(dict(limits))
        with self._writing() as connection:
            connection.execute(
                "UPDATE runs SET state = 'running', started_at = ?, limits = coalesce(?, limits)"
                " WHERE id = ? AND state = 'queued'",
                (_now(), written, run_id),
            )

    def ended(
        self,
        run_id: str,
        state: RunState,
        *,
        cause: Cause | None,
        exit_code: int | None,
        seconds: float | None = None,
        holds_outputs: bool = False,
    ) -> bool:
        """Write how a run ended, once: False if it had ended before.

        `seconds` is how long it ran, where that is known: it may have ended long before it was found.
        """
        started_at = None if seconds is None else self.find(run_id).started_at
        finished_at = _now()
        if started_at is not None and seconds is not None:
            finished_at = min(finished_at, _written(started_at + timedelta(seconds=seconds)))
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE runs SET state = ?, cause = ?, exit_code = ?, finished_at = ?, holds_outputs = ?"
                " WHERE id = ? AND state IN ('queued', 'running')",
                (state.value, cause, exit_code, finished_at, holds_outputs, run_id),
            )
            return changed.rowcount == 1

    def release(self, run_id: str) -> None:
        """Nobody wants the run's outputs any more: they may be removed."""
        with self._writing() as connection:
            connection.execute("UPDATE runs SET holds_outputs = 0 WHERE id = ?", (run_id,))

    def leave(self, run_id: str) -> bool:
        """Give an open run, or one that holds outputs, to whoever wants it next; False for any other."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE runs SET client_pid = 0, client_started = ''"
                " WHERE id = ? AND (state IN ('queued', 'running') OR holds_outputs)",
                (run_id,),
            )
            return changed.rowcount == 1

    def resumable(self, work_key: str) -> list[Run]:
        """Runs of this work that were open, or held outputs, when their client went; the newest first."""
        rows = self._rows(
            "SELECT * FROM runs WHERE work_key = ? AND (state IN ('queued', 'running') OR holds_outputs)"
            " ORDER BY created_at DESC, rowid DESC",
            work_key,
        )
        return [run for run in rows if not run.client.is_alive()]

    def take_over(self, run: Run) -> bool:
        """Make this process the run's client; False where another process was first."""
        this, gone = Client.this(), run.client
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE runs SET client_pid = ?, client_started = ?, boot_id = ?"
                " WHERE id = ? AND client_pid = ? AND client_started = ? AND boot_id = ?",
                (this.pid, this.started, this.boot_id, run.id, gone.pid, gone.started, gone.boot_id),
            )
            return changed.rowcount == 1

    def ask_cancel(self, run_id: str) -> None:
        """Ask the run's client, which looks for it every second, to stop it."""
        with self._writing() as connection:
            connection.execute("UPDATE runs SET cancel_asked_at = ? WHERE id = ?", (_now(), run_id))

    def belong_to(self, dataset_uid: str, run_ids: list[str]) -> None:
        """Write down which dataset became of the runs that prepared it."""
        with self._writing() as connection:
            connection.executemany(
                "UPDATE runs SET dataset_uid = ? WHERE id = ?", [(dataset_uid, run_id) for run_id in run_ids]
            )

    def find(self, run_id: str) -> Run:
        """The run with this ID; KeyError if there is none."""
        for run in self._rows("SELECT * FROM runs WHERE id = ?", run_id):
            return run
        raise KeyError(run_id)

    def starting_with(self, prefix: str) -> list[Run]:
        """The runs whose ID begins so."""
        return self._rows("SELECT * FROM runs WHERE substr(id, 1, length(?1)) = ?1", prefix)

    def runs(self, *, dataset_uid: str | None = None) -> list[Run]:
        """Every run, or those of one dataset; the newest first."""
        return self._rows(
            "SELECT * FROM runs WHERE ?1 IS NULL OR dataset_uid = ?1 ORDER BY created_at DESC, rowid DESC",
            dataset_uid,
        )

    def last_took(self, container_hash: str, task: str) -> timedelta | None:
        """How long the last run of a container's task took that ended well; None where none did."""
        for run in self._rows(
            "SELECT * FROM runs WHERE container_hash = ? AND task = ? AND state = 'done' ORDER BY created_at DESC,"
            " rowid DESC LIMIT 1",
            container_hash,
            task,
        ):
            if run.started_at is not None and run.finished_at is not None:
                return run.finished_at - run.started_at
        return None

    def left_over(self) -> list[Run]:
        """Open runs whose client is gone."""
        rows = self._rows("SELECT * FROM runs WHERE state IN ('queued', 'running')")
        return [run for run in rows if not run.client.is_alive()]

    def forget(self, run_ids: list[str]) -> None:
        """Remove the rows of runs that ended."""
        with self._writing() as connection:
            connection.executemany(
                "DELETE FROM runs WHERE id = ? AND state NOT IN ('queued', 'running')", [(i,) for i in run_ids]
            )

    def _rows(self, statement: str, *parameters: str | None) -> list[Run]:
        with self._connected() as connection:
            return [_run(row) for row in connection.execute(statement, parameters)]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self._file, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                connection.row_factory = sqlite3.Row
                connection.execute("PRAGMA journal_mode = WAL")
                # NORMAL loses the last commits at a power cut, and with them what was left running.
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            if error.sqlite_errorname == "SQLITE_BUSY":
                raise Busy(
                    f"Another command has been writing in the journal {self._file} for {_BUSY_SECONDS:.0f} s.",
                    hint="It may have been halted (Ctrl-Z): let it go on or end it, then run this command again.",
                ) from error
            # SQLite says "disk I/O error" where it had no room for its shared memory.
            said = f"its disk is full ({error})" if is_full(self._file.parent) else str(error)
            raise StorageFailed(
                f"The journal {self._file} cannot be used: {said}.",
                hint="Make space or mend the permissions, or point MEDPERF_HOME elsewhere; then run it again.",
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _run(row: Any) -> Run:
    return Run(
        id=row["id"],
        purpose=row["purpose"],
        container_hash=row["container_hash"],
        container_name=row["container_name"],
        task=row["task"],
        dataset_uid=row["dataset_uid"],
        engine=row["engine"],
        state=RunState(row["state"]),
        cause=None if row["cause"] is None else Cause(row["cause"]),
        exit_code=row["exit_code"],
        created_at=datetime.fromisoformat(row["created_at"]),
        started_at=_instant(row["started_at"]),
        finished_at=_instant(row["finished_at"]),
        limits=json.loads(row["limits"]),
        client=Client(row["client_pid"], row["client_started"], row["boot_id"]),
        engine_reason=row["engine_reason"],
        root_is_writable=bool(row["root_is_writable"]),
        work_key=row["work_key"],
        holds_outputs=bool(row["holds_outputs"]),
        cancel_is_asked=row["cancel_asked_at"] is not None,
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _now() -> str:
    return _written(datetime.now(UTC))


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
