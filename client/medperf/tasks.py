"""One task of a container, from its record in the journal to its checked outputs."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from medperf.causes import Cause
from medperf.client_process import boot_id
from medperf.containers import LocalContainer
from medperf.engines.base import CannotStart, Engine, EngineLost, Limits, Outcome, TaskSpec, failure
from medperf.engines.choice import Choice, Runnable
from medperf.engines.logs import shown_in_part
from medperf.engines.outputs import check_outputs, remove_tree
from medperf.errors import BadManifest, Busy, ContainerFailed, EngineUnavailable, IntegrityError, StorageFailed
from medperf.files import flush_to_disk, is_full
from medperf.home import Home
from medperf.journal import Journal, Run, RunState
from medperf.manifest import plan_io
from medperf.shares import Shares
from medperf.stop_requests import StopRequests
from medperf_contracts.hashing import text_hash

_WORK = "work"
LOG = "task.log"
# What a run wrote for a command that could not use it waits so long for the next one.
OUTPUTS_KEPT = timedelta(days=7)
_CAUSES: tuple[tuple[type[BaseException], Cause], ...] = (
    (KeyboardInterrupt, Cause.CANCELLED),
    (CannotStart, Cause.CANNOT_START),
    (ContainerFailed, Cause.BAD_OUTPUT),
    (BadManifest, Cause.BAD_MANIFEST),
    (IntegrityError, Cause.INTEGRITY),
    (EngineUnavailable, Cause.ENGINE_UNAVAILABLE),
    (StorageFailed, Cause.DISK_FULL),
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
class _Job:
    """One task of a container on some inputs, and how it is recorded."""

    container: LocalContainer
    task: str
    bindings: Mapping[str, Path]
    purpose: str
    work_key: str | None
    dataset_uid: str | None
    take_partial: bool
    check: Callable[[TaskOutputs], object]
    kept_in: Path | None  # None where each run has fresh outputs


@dataclass(frozen=True)
class Runner:
    """Runs tasks of containers, recording each in the journal. `on_line` gets their output.

    `choose` gives each container its engine, `shares` its limits. `root_is_writable` lets images write to a
    throwaway layer. Where `stopping` is set, every run that goes on is interrupted, as by Ctrl-C.
    """

    home: Home
    journal: Journal
    choose: Callable[[Runnable], Choice]
    on_line: Callable[[str], None]
    shares: Shares = field(default_factory=lambda: Shares(Limits()))
    root_is_writable: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def run(
        self,
        container: LocalContainer,
        task: str,
        bindings: Mapping[str, Path],
        *,
        purpose: str,
        content: Mapping[str, str] | None = None,
        dataset_uid: str | None = None,
        take_partial: bool = False,
        check: Callable[[TaskOutputs], object] = lambda _outputs: None,
        kept_in: Path | None = None,
    ) -> Iterator[TaskOutputs]:
        """Run a task and lend its outputs; they are removed when the block is left, the log stays.

        `content` says by input what it holds, such as a hash: a run of the same container on the same content that
        an earlier command had to leave is gone on with, and what this one leaves by an exception is kept for the
        next. `check` raises for outputs that are not what the task must write: the run has then failed.
        `kept_in` is a folder for outputs that stay, however the run ends, for the next run to go on with.
        Raises ContainerFailed, naming the task, how it ended and its log, unless it ended well; with
        `take_partial` a task that failed but wrote something lends that instead.
        """
        key = _work_key(container, task, content)
        job = _Job(container, task, bindings, purpose, key, dataset_uid, take_partial, check, kept_in)
        choice = self.choose(container.runnable)
        with self._owned() as mine:
            yield self._resumed(job, choice, mine) or self._begun(job, choice, mine)

    def is_ongoing(self, container: LocalContainer, task: str, content: Mapping[str, str]) -> bool:
        """Whether `run` would go on with what an earlier command had to leave."""
        key = _work_key(container, task, content)
        return key is not None and bool(self.journal.resumable(key))

    @contextmanager
    def _owned(self) -> Iterator[list[str]]:
        """Runs in the list are closed, and what they wrote is removed, when the block is left.

        Where it is left by an exception, outputs that others may go on with are kept; and a run whose engine was
        lost stays open for the command that finds it again.
        """
        mine: list[str] = []
        try:
            yield mine
        except EngineLost:
            for run_id in tuple(mine):
                if self.journal.leave(run_id):
                    mine.remove(run_id)
                    self._tell_kept(run_id)
            raise
        except BaseException as error:
            # Interrupted anywhere from its record on, it is ended; one that has ended stays as it is.
            state = RunState.CANCELLED if isinstance(error, KeyboardInterrupt) else RunState.FAILED
            for run_id in tuple(mine):
                self.journal.ended(run_id, state, cause=_cause(error), exit_code=None)
                if self.journal.leave(run_id):
                    mine.remove(run_id)
                    self._tell_kept(run_id)
            raise
        finally:
            for run_id in mine:
                self.journal.release(run_id)
                remove_folders(self.home.runs / run_id)

    def _tell_kept(self, run_id: str) -> None:
        run = self.journal.find(run_id)
        if not (run.holds_outputs and _holds_a_file(self._work(run_id))):
            return
        self.on_line(
            f"What {run.task} of {run.container_name} wrote is kept for {OUTPUTS_KEPT.days} days: the same command"
            f" goes on with it, `medperf run cancel {run.short_id}` removes it."
        )

    def _begun(self, job: _Job, choice: Choice, mine: list[str]) -> TaskOutputs:
        run_id = str(uuid.uuid4())
        mine.append(run_id)
        self.journal.open_run(
            run_id=run_id,
            purpose=job.purpose,
            container_hash=job.container.hash,
            container_name=job.container.name,
            task=job.task,
            dataset_uid=job.dataset_uid,
            engine=choice.engine.name,
            engine_reason=choice.reason,
            root_is_writable=self._may_write(choice.engine),
            limits=asdict(self.shares.planned(job.container.manifest)),
            work_key=job.work_key,
        )
        work = self._outputs(job, run_id)
        for folder in (self.home.runs / run_id, work):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        spec, paths = self._plan(run_id, job, self.shares.planned(job.container.manifest))
        _make_outputs(spec, [work / parameter for parameter in paths], are_kept=job.kept_in is not None)
        with self._discarding(choice.engine, run_id):
            choice.engine.prepare(spec, on_line=shown_in_part(self.on_line, spec.log))
            return self._ended(job, spec, paths, self._in_its_share(job, choice, spec))

    def _in_its_share(self, job: _Job, choice: Choice, spec: TaskSpec) -> Outcome:
        """Run a prepared task once there is room for it, and say how it ended."""
        asked = self._stop_requests(spec.run_id)
        wanted = self.shares.taken(
            job.container.manifest, gives_gpus=choice.engine.why_no_gpus() is None, is_cancelled=asked
        )
        with wanted as limits:
            if limits is None:
                return Outcome(Cause.CANCELLED, None, 0.0)
            if limits.gpus:
                self.on_line(f"is given {len(limits.gpus)} of this machine's GPUs: {', '.join(limits.gpus)}")
            self.journal.started(spec.run_id, limits=asdict(limits))
            choice.engine.start(replace(spec, limits=limits))
            return self._outcome(choice.engine, spec, asked)

    def _resumed(self, job: _Job, choice: Choice, mine: list[str]) -> TaskOutputs | None:
        """What a run of the same work comes to that an earlier command had to leave; None where there is none."""
        for run in self.journal.resumable(job.work_key) if job.work_key is not None else ():
            # One of another engine is left to whoever asks for that one: a result says which engine it is of.
            fits = (run.engine, run.root_is_writable) == (choice.engine.name, self._may_write(choice.engine))
            if not fits and job.kept_in is not None:
                raise Busy(
                    f"{job.task} of {job.container.name}, of an earlier command in {run.engine}, may still write.",
                    hint=f"`medperf run cancel {run.short_id}` ends it; or give the options that it began with.",
                )
            if not fits or not self.journal.take_over(run):
                continue
            mine.append(run.id)
            outputs = self._taken_up(job, choice.engine, run)
            if outputs is not None:
                return outputs
            with self._discarding(choice.engine, run.id):
                self.journal.ended(run.id, RunState.FAILED, cause=Cause.CLIENT_GONE, exit_code=None)
                self.journal.release(run.id)
                remove_folders(self.home.runs / run.id)
            mine.remove(run.id)
        return None

    def _taken_up(self, job: _Job, engine: Engine, run: Run) -> TaskOutputs | None:
        """The outputs of a run that ended well, or that still goes on; None where it must be begun again."""
        if not self._outputs(job, run.id).is_dir():
            return None
        what = f"{job.task} of {job.container.name}, which an earlier command began at {run.created_at:%H:%M} UTC"
        limits = Limits.recorded(run.limits) if run.limits else self.shares.planned(job.container.manifest)
        spec, paths = self._plan(run.id, job, limits)
        if run.holds_outputs:
            self.on_line(f"goes on with what {what} has written")
            return TaskOutputs(run.id, self._outputs(job, run.id), paths)
        # After a restart of the machine nothing says that what was written reached the disk.
        if run.client.boot_id != boot_id():
            return None
        with self._discarding(engine, run.id), self.shares.held(limits):
            try:
                if not engine.adopt(spec):
                    return None
            except EngineUnavailable as error:
                raise EngineLost(str(error), hint=error.hint) from error
            self.on_line(f"goes on with {what}")
            outcome = self._outcome(engine, spec, self._stop_requests(run.id))
            if outcome.cause is Cause.ENGINE_GONE:
                self.journal.ended(run.id, RunState.FAILED, cause=outcome.cause, exit_code=None)
                self.on_line("it was ended in the middle: it begins again")
                return None
            return self._ended(job, spec, paths, outcome)

    def _ended(self, job: _Job, spec: TaskSpec, paths: Mapping[str, Path], outcome: Outcome) -> TaskOutputs:
        """The outputs of a run that has ended, once the journal says so."""
        work = self._outputs(job, spec.run_id)
        failed: ContainerFailed | None = None
        if not outcome.succeeded:
            failed = failure(spec, outcome)
            if is_full(work):
                raise StorageFailed(
                    f"The disk that holds {work} is full, and so the container failed.\n{failed}",
                    hint="Make space, or point MEDPERF_HOME elsewhere; then run it again. " + failed.hint,
                )
        if failed is None or job.take_partial:
            check_outputs(work)
        outputs = TaskOutputs(spec.run_id, work, paths)
        if failed is None:
            job.check(outputs)
        self._record_end(job, spec.run_id, outcome)
        if failed is None:
            return outputs
        if job.take_partial and outcome.cause is not Cause.CANCELLED and _holds_a_file(work):
            return TaskOutputs(spec.run_id, work, paths, failed)
        raise failed

    def _may_write(self, engine: Engine) -> bool:
        """Whether a container of this engine may write to its own files."""
        return self.root_is_writable and engine.has_images

    def _work(self, run_id: str) -> Path:
        return self.home.runs / run_id / _WORK

    def _outputs(self, job: _Job, run_id: str) -> Path:
        return job.kept_in or self._work(run_id)

    def _plan(self, run_id: str, job: _Job, limits: Limits) -> tuple[TaskSpec, Mapping[str, Path]]:
        container, work = job.container, self._outputs(job, run_id)
        manifest = container.manifest
        task = manifest.tasks[job.task]
        plan = plan_io(task, bindings=job.bindings, workspace=container.workspace, output_folder=work)
        docker = manifest.docker
        spec = TaskSpec(
            run_id=run_id,
            task=job.task,
            arguments=plan.arguments,
            mounts=plan.mounts,
            code=container.code,
            sandbox=manifest.sandbox,
            log=self.home.runs / run_id / LOG,
            limits=limits,
            environment={**(docker.environment if docker else {}), **task.environment},
            image=container.runnable.image,
            entrypoint=task.entrypoint[0] if task.entrypoint else docker.entrypoint if docker else None,
            shm_bytes=task.shm_bytes or (docker.shm_bytes if docker else None),
            neighbours=self.shares.jobs - 1,
            root_is_writable=self.root_is_writable,
        )
        return spec, plan.outputs

    @contextmanager
    def _discarding(self, engine: Engine, run_id: str) -> Iterator[None]:
        """Leave nothing in the engine when the block is left; only what it lost is left in it."""
        is_lost = False
        try:
            yield
        except EngineLost:
            is_lost = True
            raise
        finally:
            if not is_lost:
                try:
                    engine.discard(run_id)
                except EngineUnavailable as gone:
                    self.on_line(f"{gone}: the container may still run; the next command removes it.")

    def _stop_requests(self, run_id: str) -> StopRequests:
        return StopRequests(self.journal, run_id, self.stopping)

    def _outcome(self, engine: Engine, spec: TaskSpec, asked: StopRequests) -> Outcome:
        return engine.wait(spec.run_id, on_line=shown_in_part(self.on_line, spec.log), is_cancelled=asked)

    def _record_end(self, job: _Job, run_id: str, outcome: Outcome) -> None:
        if job.kept_in is not None or (outcome.succeeded and job.work_key is not None):
            flush_to_disk(self._outputs(job, run_id))
        if outcome.succeeded:
            holds_outputs = job.work_key is not None and job.kept_in is None
            self.journal.ended(
                run_id,
                RunState.DONE,
                cause=None,
                exit_code=outcome.exit_code,
                seconds=outcome.seconds,
                holds_outputs=holds_outputs,
            )
            return
        state = RunState.CANCELLED if outcome.cause is Cause.CANCELLED else RunState.FAILED
        self.journal.ended(
            run_id, state, cause=outcome.cause, exit_code=outcome.exit_code, seconds=outcome.seconds
        )


def _make_outputs(spec: TaskSpec, folders: list[Path], *, are_kept: bool) -> None:
    """Make what a run's outputs are mounted from; FileExistsError where any of it is there and not kept."""
    for folder in folders:
        folder.mkdir(exist_ok=are_kept)
    for mount in spec.mounts:
        if mount.writable and not mount.host.is_dir():
            mount.host.touch(exist_ok=are_kept)


def check_predictions(outputs: TaskOutputs, model: str) -> None:
    """Raise ContainerFailed, of the model and not of whoever reads it next, unless it wrote at least one file."""
    if not _holds_a_file(outputs.paths["output_path"]):
        raise outputs.failed or ContainerFailed(
            f"The model {model} ended well but wrote no predictions.",
            hint="Tell the model's owner: its task infer must write them to its output_path.",
        )


def _cause(error: BaseException) -> Cause:
    return next((cause for kind, cause in _CAUSES if isinstance(error, kind)), Cause.CLIENT_ERROR)


def _work_key(container: LocalContainer, task: str, content: Mapping[str, str] | None) -> str | None:
    """The SHA-256, in hex, over what a run works on: the same key, the same work."""
    if content is None:
        return None
    parts = {"container": container.hash, "task": task, "content": dict(content)}
    return text_hash(json.dumps(parts, sort_keys=True, separators=(",", ":")))


def _holds_a_file(path: Path) -> bool:
    """Whether something was written: an empty file may be one that was there from the start."""
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    return any(file.lstat().st_size > 0 for file in (files if path.is_dir() else [path]))


def remove_folders(run: Path) -> None:
    """Remove what a run wrote and what its engine needed; its log, a file, stays."""
    if not run.is_dir():
        return
    for folder in [entry for entry in run.iterdir() if entry.is_dir() and not entry.is_symlink()]:
        remove_tree(folder)
