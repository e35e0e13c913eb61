"""The engine that runs a container's image under Docker, through its API; Podman's is the same one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medperf.engines.base import CannotStart, Cause, EngineSilent, Image, Outcome, State, TaskSpec
from medperf.engines.confinement import Confinement, confine
from medperf.engines.docker_connection import FIRST_ANSWER_SECONDS, answering, connect
from medperf.engines.docker_images import declared_volumes, find_image, pull_image
from medperf.engines.docker_inputs import check_read_only, make_readable
from medperf.engines.docker_options import HOME_LABEL, RUN_LABEL, EngineFacts, docker_options
from medperf.engines.logs import RunLog, last_lines
from medperf.engines.machine import read_caller
from medperf.engines.outputs import take_over
from medperf.engines.stream import Stream
from medperf.engines.tree import ProcessTree
from medperf.engines.watch import Watch
from medperf.errors import EngineUnavailable

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

# After SIGKILL the kernel needs moments; longer than this is an engine in trouble, not a container.
_END_SECONDS = 30.0
_LEAST_WAIT_SECONDS = 0.02
# Above what any kernel gives.
_NO_PROCESS = 2**22 + 1
# Asking for the size of a container's own layer makes the engine walk through it.
_LAYER_LOOK_SECONDS = 5.0
_WRITABLE_ROOT = (
    "If the image must write to its own files, `--writable_root` gives it a layer that is thrown away afterwards."
)


@dataclass
class _Run:
    spec: TaskSpec
    container: Container
    output: Iterable[bytes]
    log: RunLog
    watch: Watch
    # By the engine's clock, which is this machine's; whole seconds are what its API takes.
    began: int
    cause: Cause | None = None


class DockerEngine:
    """Runs containers that have an image, each under a label with its run's ID.

    `home` is the local folder whose runs these are: files in it may be made readable to a run's user, others not.
    """

    name = "docker"
    has_images = True

    def __init__(self, home: Path) -> None:
        self._home = home
        self._caller = read_caller()
        self._runs: dict[str, _Run] = {}
        # Asked once in an engine's life, that is a command's: each question more would wait as long.
        self._refusal: EngineUnavailable | None = None

    def close(self) -> None:
        """Close the connection to the engine."""
        if "_client" in vars(self):
            self._client.close()

    def check(self) -> str:
        """What answers, as a person may want to know it; EngineUnavailable where nothing does."""
        with answering():
            version = self._client.version()
        return f"Docker {version['Version']} (API {version['ApiVersion']})"

    def probe(self) -> str:
        """What answers, after it has run a small container; EngineUnavailable with the remedy where it cannot."""
        from medperf.engines.docker_probe import probe_docker

        version = self.check()
        with answering():
            probe_docker(self, self._client)
        return version

    def find_image(self, image: Image) -> str | None:
        """The ID of the image that is registered, where the engine has it."""
        with answering():
            return find_image(self._client, image)

    def image_named(self, name: str) -> str | None:
        """The SHA-256 of the image that has this name here, in hex."""
        from docker.errors import ImageNotFound

        with answering(), suppress(ImageNotFound):
            return str(self._client.images.get(name).id).removeprefix("sha256:")
        return None

    def prepare(self, spec: TaskSpec, *, on_line: Callable[[str], None]) -> None:
        self.get_image(_image_of(spec), on_line=on_line)

    def get_image(self, image: Image, *, on_line: Callable[[str], None]) -> str:
        """The ID of the image that is registered, pulled where it is not here.

        EngineUnavailable where it cannot be had, IntegrityError where the registry has another under its name.
        """
        with answering():
            return find_image(self._client, image) or pull_image(self._client, image, on_line=on_line)

    def start(self, spec: TaskSpec) -> None:
        if spec.run_id in self._runs:
            raise ValueError(f"the run {spec.run_id} was started already")
        confinement = confine(spec, self._caller)
        self._check_inputs(confinement)
        self._give_outputs(confinement)
        began = int(time.time())
        with answering():
            container = self._create(spec, confinement)
            log: RunLog | None = None
            output: Any = None
            try:
                log = RunLog(spec.log, spec.limits.log_bytes)
                # Before the start: what the engine keeps of the output itself loses a last line without an end.
                output = container.attach(stream=True)
                _start(container)
            except BaseException:
                if log is not None:
                    log.close()
                if output is not None:
                    output.close()
                _remove(container)
                self._take_outputs(spec)
                raise
        look = self._layer_watch(container, confinement)
        # Where the engine is in another process namespace, nothing is seen of it, and nothing counted.
        tree = ProcessTree(_first_process(container), confinement.memory_folders)
        watch = Watch(spec.limits, spec.outputs(), look, tree.nameless_bytes)
        self._runs[spec.run_id] = _Run(spec, container, output, log, watch, began)

    def find(self, run_id: str) -> State | None:
        with answering():
            for container in self._labelled(RUN_LABEL, run_id):
                return State.RUNNING if container.status == "running" else State.ENDED
        return None

    def wait(self, run_id: str, *, on_line: Callable[[str], None]) -> Outcome:
        run = self._runs[run_id]
        state: dict[str, Any] = {}
        try:
            with Stream(lambda: self._memory_events(run)) as kills, Stream(lambda: run.output) as output:
                _follow(run, output, kills, on_line)
        except BaseException:
            # Somebody who pressed Ctrl-C does not wait for an engine that answers nobody.
            self._client.api.timeout = FIRST_ANSWER_SECONDS
            raise
        finally:
            try:
                state = _end(run.container)
            except EngineSilent as silent:
                self._refusal = silent
                self.close()
                del self._client
            finally:
                del self._runs[run_id]
                last = run.log.close()
                self._take_outputs(run.spec)
        for line in last:
            on_line(line)
        return _outcome(run, state)

    def stop(self, run_id: str) -> None:
        run = self._runs.get(run_id)
        if run is not None:
            run.cause = run.cause or Cause.CANCELLED
            _kill(run.container)

    def discard(self, run_id: str) -> None:
        if run_id in self._runs:
            self.stop(run_id)
            self.wait(run_id, on_line=lambda _line: None)
        with answering():
            for container in self._labelled(RUN_LABEL, run_id):
                _remove(container)

    def left_over(self) -> set[str]:
        with answering():
            return {container.labels[RUN_LABEL] for container in self._labelled(HOME_LABEL, str(self._home))}

    @cached_property
    def _client(self) -> DockerClient:
        if self._refusal is not None:
            raise type(self._refusal)(str(self._refusal), hint=self._refusal.hint)
        try:
            return connect()
        except EngineUnavailable as error:
            self._refusal = error
            raise

    @cached_property
    def _facts(self) -> EngineFacts:
        options = " ".join(self._client.info().get("SecurityOptions") or ())
        return EngineFacts(is_rootless="name=rootless" in options, remaps_ids="name=userns" in options)

    def _labelled(self, label: str, value: str) -> list[Container]:
        found: list[Container] = self._client.containers.list(all=True, filters={"label": f"{label}={value}"})
        return found

    def _create(self, spec: TaskSpec, confinement: Confinement) -> Container:
        image = _image_of(spec)
        image_id = find_image(self._client, image)
        if image_id is None:
            raise EngineUnavailable(f"The image {image.name} is not here", hint="Run the same command again.")
        declared = declared_volumes(self._client.images.get(image_id))
        for volume in declared:
            for mount in confinement.mounts:
                if volume != mount.inside and volume.is_relative_to(mount.inside):
                    raise CannotStart(
                        f"The image declares a volume at {volume}, inside {mount.inside}, which the task is given",
                        hint="Its owner must correct the image.",
                    )
        options = docker_options(
            spec,
            confinement,
            image_id=image_id,
            volumes=declared,
            caller=self._caller,
            facts=self._facts,
            home=self._home,
        )
        return self._client.containers.create(**options)

    def _check_inputs(self, confinement: Confinement) -> None:
        """Refuse an input that would not be read-only as a whole, or that the run's own user cannot read."""
        for mount in confinement.mounts:
            if mount.writable:
                continue
            check_read_only(mount)
            if confinement.real_id is not None and not self._facts.is_rootless:
                make_readable(mount, own=mount.host.is_relative_to(self._home))

    def _give_outputs(self, confinement: Confinement) -> None:
        """Where root starts it, the run's own user owns the output folders for as long as it runs."""
        if confinement.real_id is not None and not self._facts.is_rootless:
            for mount in confinement.mounts:
                if mount.writable:
                    os.chown(mount.host, confinement.real_id, confinement.real_id)

    def _take_outputs(self, spec: TaskSpec) -> None:
        for folder in spec.outputs():
            take_over(folder, owner=self._caller.uid, group=self._caller.gid)

    def _memory_events(self, run: _Run) -> Iterable[dict[str, Any]]:
        """An event for each process of the container that the kernel kills for memory: its first may live on."""
        wanted = {"type": "container", "event": "oom", "container": run.container.id}
        events: Iterable[dict[str, Any]] = self._client.events(since=run.began, decode=True, filters=wanted)
        return events

    def _layer_watch(self, container: Container, confinement: Confinement) -> Callable[[], Cause | None]:
        """Looks at the size of the container's own layer, where it has one to write to."""
        next_look = time.monotonic() + _LAYER_LOOK_SECONDS

        def look() -> Cause | None:
            nonlocal next_look
            if time.monotonic() < next_look:
                return None
            next_look = time.monotonic() + _LAYER_LOOK_SECONDS
            with suppress(EngineUnavailable), answering():
                listed = self._client.api.containers(all=True, size=True, filters={"id": container.id})
                if any(row.get("SizeRw", 0) > confinement.limits.output_bytes for row in listed):
                    return Cause.OUTPUT_LIMIT
            return None

        return look if confinement.root_is_writable else lambda: None


def _image_of(spec: TaskSpec) -> Image:
    if spec.image is None:
        raise EngineUnavailable(
            "This container has no image that is registered by its hash: it cannot run under Docker",
            hint="Use `--platform sandbox`, or ask its owner to register it with its image's hash.",
        )
    return spec.image


def _start(container: Container) -> None:
    from docker.errors import APIError

    try:
        container.start()
    except APIError as error:
        if error.status_code == 400 or "exec format error" in str(error):
            raise CannotStart(
                f"The image's program cannot be started: {error.explanation}",
                hint="Its owner must correct the image or the manifest's entrypoint.",
            ) from error
        raise


def _follow(
    run: _Run, output: Stream[bytes], kills: Stream[dict[str, Any]], on_line: Callable[[str], None]
) -> None:
    """Read the run's output to its end, stopping the run where it breaks a limit."""
    killed_at: float | None = None
    while not output.has_ended:
        chunk = output.take(run.watch.seconds_to_next_look() or _LEAST_WAIT_SECONDS)
        for line in run.log.feed(chunk or b""):
            on_line(line)
        if run.cause is None:
            run.cause = Cause.OUT_OF_MEMORY if kills.take() else run.watch.broken_limit()
        if run.cause is not None and killed_at is None:
            output.let_go()
            _kill(run.container)
            killed_at = time.monotonic()
        if killed_at is not None and time.monotonic() > killed_at + _END_SECONDS:
            return
    # The output has ended; the engine may take another moment, or the task may have closed it and go on.
    while run.cause is None and (state := _state(run.container)).get("Running"):
        run.cause = Cause.OUT_OF_MEMORY if kills.take() else run.watch.broken_limit()
        time.sleep(_LEAST_WAIT_SECONDS)
    if run.cause is None and not state:
        run.cause = Cause.ENGINE_GONE


def _end(container: Container) -> dict[str, Any]:
    """Kill what still runs and leave nothing of the container; its last state, empty where the engine is gone.

    EngineSilent where the engine takes the first question and does not answer it: then it is asked no more.
    """
    state: dict[str, Any] = {}
    try:
        with answering():
            container.reload()
            state = dict(container.attrs["State"])
    except EngineSilent:
        raise
    except EngineUnavailable:
        pass  # gone, or the container is: what follows finds nothing
    with suppress(EngineUnavailable), answering():
        if state.get("Running"):
            _kill(container)
            container.wait(timeout=_END_SECONDS)
            state = _state(container)
    # Whatever could not be asked: where this fails too, the next command finds it by its label.
    with suppress(EngineUnavailable), answering():
        _remove(container)
    return state


def _outcome(run: _Run, state: dict[str, Any]) -> Outcome:
    code = state.get("ExitCode")
    cause = run.cause
    if cause is None and (not state or state["Running"]):
        cause = Cause.ENGINE_GONE
    if cause is None and run.watch.output_is_over():
        cause = Cause.OUTPUT_LIMIT
    if cause is None and code != 0 and state.get("OOMKilled"):
        cause = Cause.OUT_OF_MEMORY
    advice = ""
    if cause is None and code != 0 and not run.spec.root_is_writable:
        advice = _WRITABLE_ROOT if any("ead-only file system" in line for line in last_lines(run.spec.log)) else ""
    was_stopped = cause is not None and cause is not Cause.OUT_OF_MEMORY
    seconds = time.monotonic() - run.watch.started
    return Outcome(cause or Cause.EXIT_CODE, None if was_stopped else code, seconds, advice)


def _first_process(container: Container) -> int:
    """The container's first process as this machine numbers it; one that nobody has once it has ended."""
    return int(_state(container).get("Pid") or _NO_PROCESS)


def _state(container: Container) -> dict[str, Any]:
    """What the engine knows of it now; empty where it does not answer."""
    with suppress(EngineUnavailable), answering():
        container.reload()
        return dict(container.attrs["State"])
    return {}


def _kill(container: Container) -> None:
    with suppress(EngineUnavailable), answering():  # ended meanwhile, or its engine has
        container.kill()


def _remove(container: Container) -> None:
    from docker.errors import NotFound

    with suppress(NotFound):
        container.remove(force=True, v=True)
