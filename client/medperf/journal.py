"""The journal: one row for every run of a container's task, written before it starts.

One SQLite file in the server's local folder. What a client that died left behind is found here by the next one.
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from medperf.errors import Busy, StorageFailed, UsageError
from medperf.files import is_full

# A second command writes for milliseconds at most; more means that something holds the file.
_BUSY_SECONDS = 10.0
_SCHEMA_VERSION = 2
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
}
CLIENT_GONE = "client_gone"


class RunState(StrEnum):
    """`queued` and `running` are open; the others are ends, each with its cause."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = frozenset({RunState.QUEUED, RunState.RUNNING})


@dataclass(frozen=True)
class Client:
    """One process of one boot: a process ID alone comes back."""

    pid: int
    started: str
    boot_id: str

    @classmethod
    def this(cls) -> Client:
        """The process that asks."""
        pid = os.getpid()
        return cls(pid, _process_start(pid) or "", _boot_id())

    def is_alive(self) -> bool:
        """Whether that very process still runs."""
        return self.boot_id == _boot_id() and _process_start(self.pid) == self.started


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
    cause: str | None
    exit_code: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    limits: dict[str, float | None]
    client: Client
    engine_reason: str
    root_is_writable: bool


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
        limits: Mapping[str, float | None],
        engine_reason: str = "",
        root_is_writable: bool = False,
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
                " created_at, limits, client_pid, client_started, boot_id, engine_reason, root_is_writable)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?)",
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
                ),
            )
        return self.find(run_id)

    def started(self, run_id: str) -> None:
        """The engine has it."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE runs SET state = 'running', started_at = ? WHERE id = ? AND state = 'queued'",
                (_now(), run_id),
            )

    def ended(self, run_id: str, state: RunState, *, cause: str | None, exit_code: int | None) -> bool:
        """Write how a run ended, once: False if it had ended before."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE runs SET state = ?, cause = ?, exit_code = ?, finished_at = ?"
                " WHERE id = ? AND state IN ('queued', 'running')",
                (state.value, cause, exit_code, _now(), run_id),
            )
            return changed.rowcount == 1

    def belong_to(self, dataset_uid: str, run_ids: list[str]) -> None:
        """Write down which dataset became of the runs that prepared it."""
        with self._writing() as connection:
            connection.executemany(
                "UPDATE runs SET dataset_uid = ? WHERE id = ?", [(dataset_uid, run_id) for run_id in run_ids]
            )

    def find(self, run_id: str) -> Run:
        """The run with this ID; KeyError if there is none."""
        with self._connected() as connection:
            row = connection.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is None:
            raise KeyError(run_id)
        return _run(row)

    def runs(self, *, dataset_uid: str | None = None) -> list[Run]:
        """Every run, or those of one dataset; the newest first."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT * FROM runs WHERE ?1 IS NULL OR dataset_uid = ?1 ORDER BY created_at DESC, rowid DESC",
                (dataset_uid,),
            ).fetchall()
        return [_run(row) for row in rows]

    def left_over(self) -> list[Run]:
        """Open runs whose client is gone."""
        with self._connected() as connection:
            rows = connection.execute("SELECT * FROM runs WHERE state IN ('queued', 'running')").fetchall()
        return [run for run in map(_run, rows) if not run.client.is_alive()]

    def forget(self, run_ids: list[str]) -> None:
        """Remove the rows of runs that ended."""
        with self._writing() as connection:
            connection.executemany(
                "DELETE FROM runs WHERE id = ? AND state NOT IN ('queued', 'running')", [(i,) for i in run_ids]
            )

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
        cause=row["cause"],
        exit_code=row["exit_code"],
        created_at=datetime.fromisoformat(row["created_at"]),
        started_at=_instant(row["started_at"]),
        finished_at=_instant(row["finished_at"]),
        limits=json.loads(row["limits"]),
        client=Client(row["client_pid"], row["client_started"], row["boot_id"]),
        engine_reason=row["engine_reason"],
        root_is_writable=bool(row["root_is_writable"]),
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _process_start(pid: int) -> str | None:
    """When the process started, in clock ticks since boot; None if there is none or it is a zombie."""
    try:
        # The name, in parentheses, may itself hold spaces and parentheses, and half a character at its end.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode("ascii").split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
