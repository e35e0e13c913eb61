"""What clients that died left behind: gone on with where it can be, else ended, removed and said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from medperf.causes import Cause
from medperf.client_process import boot_id
from medperf.engines.base import EngineSilent, State
from medperf.engines.choice import Engines
from medperf.errors import EngineUnavailable
from medperf.files import locked
from medperf.home import Home
from medperf.journal import Journal, Run, RunState
from medperf.tasks import OUTPUTS_KEPT, remove_folders

# Records and logs of ended runs that are kept; the oldest go first. A log is bounded, their number is by this.
_RUNS_KEPT = 1000
_LOCK = "left-over.lock"
# Removing what a large run left takes a while.
_WAIT_SECONDS = 60.0


def end_left_over(home: Home, journal: Journal, engines: Engines, *, say: Callable[[str], None]) -> None:
    """End what clients that died left behind, remove its outputs, and say so; a folder that resists is said too.

    Every command that runs containers calls it first. Left alone are runs of a client that lives, those that
    the same command can go on with, and outputs that wait for it, for `OUTPUTS_KEPT` at most.
    """
    with locked(home.root / _LOCK, what="what was left behind", wait_seconds=_WAIT_SECONDS):
        for run in journal.left_over():
            _look_after(run, journal, engines, say)
        _discard_strays(journal, engines, say)
        # Folders first: a run that another client records meanwhile then has no folder in this list.
        folders = list(home.runs.iterdir())
        runs = journal.runs()
        living = {client for client in {run.client for run in runs} if client.is_alive()}
        for run in runs:
            if run.holds_outputs and run.client not in living and _age(run.finished_at) > OUTPUTS_KEPT:
                journal.release(run.id)
        # An open run of a client that is gone goes on, or its engine does not answer: it may still write.
        lent = {run.id for run in journal.runs() if run.client in living or run.is_open or run.holds_outputs}
        _remove_left_over(folders, lent, say)
        old = [run.id for run in runs[_RUNS_KEPT:] if run.id not in lent]
        for run_id in old:
            shutil.rmtree(home.runs / run_id, ignore_errors=True)
        journal.forget(old)


def _look_after(run: Run, journal: Journal, engines: Engines, say: Callable[[str], None]) -> None:
    """Leave an open run whose client is gone to the command that can go on with it, or end it."""
    what = f"{run.task} of {run.container_name} ({run.purpose})"
    engine = engines.named(run.engine)
    is_over_time = _age(run.started_at).total_seconds() > (run.limits.get("wall_seconds") or 0)
    try:
        # Of an earlier boot nothing runs any more, and not all that it wrote need have reached the disk.
        can_go_on = run.work_key is not None and run.client.boot_id == boot_id()
        state = engine.find(run.id) if can_go_on else None
        # One that ended before its time was over is taken as it is, however late.
        is_over_time = is_over_time and state is not State.ENDED
        if state is not None and not is_over_time:
            say(
                f"An earlier command left {what} in {run.engine}: the same command goes on with it,"
                f" `medperf run cancel {run.short_id}` ends it."
            )
            return
        engine.discard(run.id)
    except EngineUnavailable as error:
        say(f"An earlier command ended in the middle of {what}, which may still go on: {error}. {error.hint}")
        return
    cause = Cause.TIME_LIMIT if is_over_time and run.work_key is not None else Cause.CLIENT_GONE
    if journal.ended(run.id, RunState.FAILED, cause=cause, exit_code=None):
        say(f"An earlier command ended in the middle of {what}: what it left is removed.")


def _age(moment: datetime | None) -> timedelta:
    return timedelta() if moment is None else datetime.now(UTC) - moment


def _discard_strays(journal: Journal, engines: Engines, say: Callable[[str], None]) -> None:
    """End what engines still have of runs whose records are closed: they did not answer when they ended.

    What no record names is left alone and said: a folder of the same path, of another machine or of another root,
    may be using the same engine.
    """
    for name in sorted({run.engine for run in journal.runs()}):
        engine = engines.named(name)
        try:
            found = sorted(engine.left_over())
            # Read after it: a run is recorded before its container is made, so that each that lives is in it.
            runs = {run.id: run for run in journal.runs()}
            for run_id in found:
                if run_id not in runs:
                    say(f"{name} has a container of run {run_id}, which this journal does not know: left alone.")
                elif not runs[run_id].is_open and engine.find(run_id) is not None:
                    engine.discard(run_id)
                    say(f"A container that {name} still had of an earlier command is removed.")
        except EngineSilent as silent:
            say(f"{silent}: what it may have of earlier commands is looked for again by the next one.")
        except EngineUnavailable:
            continue  # it does not run, and so nothing in it does


def _remove_left_over(folders: list[Path], lent: set[str], say: Callable[[str], None]) -> None:
    for folder in folders:
        if folder.name not in lent:
            try:
                remove_folders(folder)
            except OSError as resisted:
                say(f"What an earlier run left cannot be removed ({resisted.strerror}): remove {folder} by hand.")
