"""One task of a container, from its record in the journal to its checked outputs; and the end of left-overs."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from medperf.containers import LocalContainer
from medperf.engines.base import CannotStart, Cause, Engine, EngineSilent, Limits, Outcome, TaskSpec, failure
from medperf.engines.choice import Choice, Engines, Runnable
from medperf.engines.outputs import check_outputs, remove_tree
from medperf.errors import BadManifest, ContainerFailed, EngineUnavailable, IntegrityError, StorageFailed
from medperf.files import is_full, locked
from medperf.home import Home
from medperf.journal import CLIENT_GONE, OPEN, Journal, Run, RunState
from medperf.manifest import plan_io

_WORK = "work"
_LOG = "task.log"
# What is shown of a run's output; its log has a bound of its own.
_SHOWN_CHARACTERS_MOST = 1024**2
# Records and logs of ended runs that are kept; the oldest go first. A log is bounded, their number is by this.
_RUNS_KEPT = 1000
_LEFT_OVER_LOCK = "left-over.lock"
# Removing what a large run left takes a while.
_LEFT_OVER_WAIT_SECONDS = 60.0
_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (KeyboardInterrupt, Cause.CANCELLED.value),
    (CannotStart, "cannot_start"),
    (ContainerFailed, "bad_output"),
    (BadManifest, "bad_manifest"),
    (IntegrityError, "integrity"),
    (EngineUnavailable, "engine_unavailable"),
    (StorageFailed, "disk_full"),
)


@dataclass(frozen=True)
class TaskOutputs:
    """What a task wrote: output parameter -> file or folder, all in `folder`, regular files and folders only.

    `failed` is why the outputs are partial, where the caller takes such.
    """

    run_id: str
    folder: Path
    paths: Mapping[str, Path]
    failed: ContainerFailed | None = None


@dataclass(frozen=True)
class Runner:
    """Runs tasks of containers, recording each in the journal. `on_line` gets their output.

    `choose` gives each container its engine. `root_is_writable` lets images write to a throwaway layer.
    """

    home: Home
    journal: Journal
    choose: Callable[[Runnable], Choice]
    on_line: Callable[[str], None]
    limits: Limits = field(default_factory=Limits)
    root_is_writable: bool = False

    @contextmanager
    def run(
        self,
        container: LocalContainer,
        task: str,
        bindings: Mapping[str, Path],
        *,
        purpose: str,
        dataset_uid: str | None = None,
        take_partial: bool = False,
    ) -> Iterator[TaskOutputs]:
        """Run a task and lend its outputs; they are removed when the block is left, the log stays.

        Raises ContainerFailed, naming the task, how it ended and its log, unless it ended well; with
        `take_partial` a task that failed but wrote something lends that instead.
        """
        choice = self.choose(container.runnable)
        run_id = str(uuid.uuid4())
        work = self.home.runs / run_id / _WORK
        try:
            try:
                record = self.journal.open_run(
                    run_id=run_id,
                    purpose=purpose,
                    container_hash=container.hash,
                    container_name=container.name,
                    task=task,
                    dataset_uid=dataset_uid,
                    engine=choice.engine.name,
                    engine_reason=choice.reason,
                    root_is_writable=self.root_is_writable and choice.engine.has_images,
                    limits=asdict(self.limits),
                )
                outputs = self._run(
                    record, choice.engine, container, task, bindings, work, take_partial=take_partial
                )
            except BaseException as error:
                # Interrupted anywhere from its record on, it is ended; one that has ended stays as it is.
                state = RunState.CANCELLED if isinstance(error, KeyboardInterrupt) else RunState.FAILED
                self.journal.ended(run_id, state, cause=_cause(error), exit_code=None)
                raise
            yield outputs
        finally:
            _remove_folders(work.parent)

    def _run(
        self,
        record: Run,
        engine: Engine,
        container: LocalContainer,
        task: str,
        bindings: Mapping[str, Path],
        work: Path,
        *,
        take_partial: bool,
    ) -> TaskOutputs:
        failed: ContainerFailed | None = None
        spec, paths = self._plan(record.id, container, task, bindings, work)
        outcome = self._execute(engine, spec)
        if not outcome.succeeded:
            failed = failure(spec, outcome)
            if is_full(work):
                raise StorageFailed(
                    f"The disk that holds {work} is full, and so the container failed.\n{failed}",
                    hint="Make space, or point MEDPERF_HOME elsewhere; then run it again. " + failed.hint,
                )
        if failed is None or take_partial:
            check_outputs(work)
        self._record_end(record.id, outcome)
        if failed is None:
            return TaskOutputs(record.id, work, paths)
        if take_partial and outcome.cause is not Cause.CANCELLED and _holds_a_file(work):
            return TaskOutputs(record.id, work, paths, failed)
        raise failed

    def _plan(
        self, run_id: str, container: LocalContainer, task: str, bindings: Mapping[str, Path], work: Path
    ) -> tuple[TaskSpec, Mapping[str, Path]]:
        manifest = container.manifest
        work.mkdir(mode=0o700, parents=True)
        plan = plan_io(manifest.tasks[task], bindings=bindings, workspace=container.workspace, output_folder=work)
        docker = manifest.docker
        entrypoint = manifest.tasks[task].entrypoint
        spec = TaskSpec(
            run_id=run_id,
            task=task,
            arguments=plan.arguments,
            mounts=plan.mounts,
            code=container.code,
            sandbox=manifest.sandbox,
            log=work.with_name(_LOG),
            limits=self.limits,
            environment=docker.environment if docker else {},
            image=container.runnable.image,
            entrypoint=entrypoint[0] if entrypoint else docker.entrypoint if docker else None,
            shm_bytes=docker.shm_bytes if docker else None,
            root_is_writable=self.root_is_writable,
        )
        return spec, plan.outputs

    def _execute(self, engine: Engine, spec: TaskSpec) -> Outcome:
        on_line = _shown(self.on_line, spec.log)
        engine.prepare(spec, on_line=on_line)
        self.journal.started(spec.run_id)
        try:
            engine.start(spec)
            return engine.wait(spec.run_id, on_line=on_line)
        except BaseException:
            # Interrupted anywhere between the two: nothing of it is left.
            try:
                engine.discard(spec.run_id)
            except EngineUnavailable as gone:
                self.on_line(f"{gone}: the container may still run; the next command looks for it and removes it.")
            raise

    def _record_end(self, run_id: str, outcome: Outcome) -> None:
        if outcome.succeeded:
            state = RunState.DONE
        else:
            state = RunState.CANCELLED if outcome.cause is Cause.CANCELLED else RunState.FAILED
        cause = None if outcome.succeeded else outcome.cause.value
        self.journal.ended(run_id, state, cause=cause, exit_code=outcome.exit_code)


def check_predictions(outputs: TaskOutputs, model: str) -> None:
    """Raise ContainerFailed, of the model and not of whoever reads it next, unless it wrote at least one file."""
    written = outputs.paths["output_path"]
    if not (written.is_file() or _holds_a_file(written)):
        raise ContainerFailed(
            f"The model {model} ended well but wrote no predictions.",
            hint="Tell the model's owner: its task infer must write them to its output_path.",
        )


def end_left_over(home: Home, journal: Journal, engines: Engines, *, say: Callable[[str], None]) -> None:
    """End what clients that died left behind, remove its outputs, and say so; a folder that resists is said too.

    Every command that runs containers calls it first. Runs of a client that lives are left alone.
    """
    with locked(home.root / _LEFT_OVER_LOCK, what="what was left behind", wait_seconds=_LEFT_OVER_WAIT_SECONDS):
        for run in journal.left_over():
            _end_run(run, journal, engines, say)
        _discard_strays(journal, engines, say)
        # Folders first: a run that another client records meanwhile then has no folder in this list.
        folders = list(home.runs.iterdir())
        runs = journal.runs()
        living = {client for client in {run.client for run in runs} if client.is_alive()}
        # An open run of a client that is gone is one whose engine does not answer: it may still write.
        lent = {run.id for run in runs if run.client in living or run.state in OPEN}
        _remove_left_over(folders, lent, say)
        old = [run.id for run in runs[_RUNS_KEPT:] if run.id not in lent]
        for run_id in old:
            shutil.rmtree(home.runs / run_id, ignore_errors=True)
        journal.forget(old)


def _end_run(run: Run, journal: Journal, engines: Engines, say: Callable[[str], None]) -> None:
    what = f"{run.task} of {run.container_name} ({run.purpose})"
    try:
        engines.named(run.engine).discard(run.id)
    except EngineUnavailable as error:
        say(f"An earlier command ended in the middle of {what}, which may still go on: {error}. {error.hint}")
        return
    journal.ended(run.id, RunState.FAILED, cause=CLIENT_GONE, exit_code=None)
    say(f"An earlier command ended in the middle of {what}: what it left is removed.")


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
                elif _is_over(runs[run_id]) and engine.find(run_id) is not None:
                    engine.discard(run_id)
                    say(f"A container that {name} still had of an earlier command is removed.")
        except EngineSilent as silent:
            say(f"{silent}: what it may have of earlier commands is looked for again by the next one.")
        except EngineUnavailable:
            continue  # it does not run, and so nothing in it does


def _is_over(run: Run) -> bool:
    return run.state not in OPEN or not run.client.is_alive()


def _remove_left_over(folders: list[Path], lent: set[str], say: Callable[[str], None]) -> None:
    for folder in folders:
        if folder.name not in lent:
            try:
                _remove_folders(folder)
            except OSError as resisted:
                say(f"What an earlier run left cannot be removed ({resisted.strerror}): remove {folder} by hand.")


def _shown(on_line: Callable[[str], None], log: Path) -> Callable[[str], None]:
    """Show lines up to a bound, and at it where the rest is."""
    left = _SHOWN_CHARACTERS_MOST

    def show(line: str) -> None:
        nonlocal left
        if left > 0:
            left -= len(line) + 1
            on_line(line if left > 0 else f"It says more than is shown here: the log is {log}")

    return show


def _cause(error: BaseException) -> str:
    return next((cause for kind, cause in _CAUSES if isinstance(error, kind)), "client_error")


def _holds_a_file(folder: Path) -> bool:
    return any(names for _, _, names in os.walk(folder))


def _remove_folders(run: Path) -> None:
    """Remove what a run wrote and what its engine needed; its log, a file, stays."""
    if not run.is_dir():
        return
    for folder in [entry for entry in run.iterdir() if entry.is_dir() and not entry.is_symlink()]:
        remove_tree(folder)
