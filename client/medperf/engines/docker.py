"""The engine that runs a container's image under Docker or Podman, through the API that both have."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from medperf.engines.base import CannotStart, Cause, EngineLost, EngineSilent, Image, Outcome, State, TaskSpec
from medperf.engines.cgroup import Cgroup, memory_cgroup_of
from medperf.engines.confinement import Confinement, confine
from medperf.engines.docker_connection import DOCKER, FIRST_ANSWER_SECONDS, Daemon, answering, connect
from medperf.engines.docker_facts import read_facts
from medperf.engines.docker_images import declared_volumes, find_image, load_image, pull_image, save_image
from medperf.engines.docker_inputs import check_read_only, make_readable
from medperf.engines.docker_options import HOME_LABEL, RUN_LABEL, EngineFacts, docker_options
from medperf.engines.docker_run import DockerRun, ended_by_force, kill, remove, start, state_of, times_of
from medperf.engines.logs import RunLog
from medperf.engines.machine import read_caller
from medperf.engines.outputs import take_over
from medperf.engines.tree import ProcessTree
from medperf.engines.watch import TreeBounds, Watch
from medperf.errors import EngineUnavailable

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

# How long an engine that stopped answering in the middle of a run is waited for: an update of it takes a minute or
# two, and its containers may go on meanwhile (Docker's live-restore).
BACK_SECONDS = 300.0
# What is looked at where the engine cannot bound it.
_WATCHED = {"memory", "processes"}
# Above what any kernel gives.
_NO_PROCESS = 2**22 + 1
# Asking for the size of a container's own layer makes the engine walk through it.
_LAYER_LOOK_SECONDS = 5.0


class DockerEngine:
    """Runs containers that have an image, each under a label with its run's ID.

    `home` is the local folder whose runs these are: files in it may be made readable to a run's user, others not.
    """

    has_images = True

    def __init__(self, home: Path, daemon: Daemon = DOCKER, *, back_seconds: float = BACK_SECONDS) -> None:
        self.name = daemon.name
        self.title = daemon.title
        self._daemon = daemon
        self._home = home
        self._back_seconds = back_seconds
        self._caller = read_caller()
        self._runs: dict[str, DockerRun] = {}
        # Asked once in an engine's life, that is a command's: each question more would wait as long.
        self._refusal: EngineUnavailable | None = None

    def close(self) -> None:
        """Close the connection to the engine."""
        if "_client" in vars(self):
            self._client.close()

    def check(self) -> str:
        """What answers, as a person may want to know it; EngineUnavailable where nothing does."""
        with answering(self._daemon):
            version = self._client.version()
        return f"{self._daemon.title} {version['Version']} (API {version['ApiVersion']})"

    def weaknesses(self) -> tuple[str, ...]:
        with answering(self._daemon):
            facts = self._facts
        found = [
            f"{bound} are only looked at, several times a second: it has no cgroup for that"
            if bound in _WATCHED
            else f"{bound} cannot be bounded: it has no cgroup for that"
            for bound in sorted(facts.cannot_bound)
        ]
        if self._daemon.seccomp and facts.seccomp is None:
            found.append(
                "a container can make namespaces of its own: its seccomp.json is not where it is looked for"
            )
        return tuple(found)

    def why_no_gpus(self) -> str | None:
        least = self._daemon.gives_gpus_from
        if least is None:
            return None
        with answering(self._daemon):
            version = str(self._client.version()["Version"])
        if tuple(map(int, re.findall(r"\d+", version)[:2])) >= least:
            return None
        return f"{self._daemon.title} gives some from {'.'.join(map(str, least))} on, and this is {version}"

    def probe(self) -> str:
        """What answers, after it has run a small container; EngineUnavailable with the remedy where it cannot."""
        from medperf.engines.docker_probe import probe_docker

        version = self.check()
        with answering(self._daemon):
            probe_docker(self, self._client)
        return version

    def find_image(self, image: Image) -> str | None:
        """The ID of the image that is registered, where the engine has it."""
        with answering(self._daemon):
            return find_image(self._client, image)

    def image_named(self, name: str) -> str | None:
        """The SHA-256 of the image that has this name here, in hex."""
        from docker.errors import ImageNotFound

        with answering(self._daemon), suppress(ImageNotFound):
            return str(self._client.images.get(name).id).removeprefix("sha256:")
        return None

    def prepare(self, spec: TaskSpec, *, on_line: Callable[[str], None]) -> None:
        self.get_image(_image_of(spec), on_line=on_line)

    def get_image(self, image: Image, *, on_line: Callable[[str], None]) -> str:
        """The ID of the image that is registered, loaded from its archive or pulled where it is not here.

        EngineUnavailable where it cannot be had, IntegrityError where the registry has another under its name.
        """
        with answering(self._daemon):
            found = find_image(self._client, image)
            if found is None and image.archive is not None:
                found = load_image(self._client, image, image.archive(), on_line=on_line)
            return found or pull_image(self._client, image, on_line=on_line)

    def save_image(self, image: Image, file: BinaryIO, *, on_line: Callable[[str], None]) -> None:
        """Write the registered image, brought here where it is not, as an archive of `docker save`."""
        image_id = self.get_image(image, on_line=on_line)
        with answering(self._daemon):
            save_image(self._client, image_id, file)

    def start(self, spec: TaskSpec) -> None:
        if spec.run_id in self._runs:
            raise ValueError(f"the run {spec.run_id} was started already")
        confinement = confine(spec, self._caller)
        self._check_inputs(confinement)
        self._give_outputs(confinement)
        began = int(time.time())
        with answering(self._daemon):
            container = self._create(spec, confinement)
            log: RunLog | None = None
            output: Any = None
            try:
                log = RunLog(spec.log, spec.limits.log_bytes)
                # Before the start: what the engine keeps of the output itself loses a last line without an end.
                output = container.attach(stream=True)
                start(container)
            except BaseException:
                if log is not None:
                    log.close()
                if output is not None:
                    output.close()
                remove(container)
                self._take_outputs(spec)
                raise
        watch = self._watch(spec, container)
        run = DockerRun(spec, container, output, log, watch, began, heard_at=time.time())
        run.tells_out_of_memory = self._daemon.tells_out_of_memory
        self._runs[spec.run_id] = run

    def find(self, run_id: str) -> State | None:
        with answering(self._daemon):
            for container in self._labelled(RUN_LABEL, run_id):
                return State.RUNNING if container.status == "running" else State.ENDED
        return None

    def adopt(self, spec: TaskSpec) -> bool:
        with answering(self._daemon):
            for container in self._labelled(RUN_LABEL, spec.run_id):
                if container.status == "created":  # its client died before it could start it
                    remove(container)
                    continue
                container.reload()
                began, ended = times_of(container)
                watch = self._watch(spec, container)
                watch.started -= max(0.0, (ended or time.time()) - began)
                output = container.logs(stream=True, follow=True)
                log = RunLog(spec.log, spec.limits.log_bytes)
                run = DockerRun(spec, container, output, log, watch, int(began), was_lost=True, heard_at=began)
                run.tells_out_of_memory = self._daemon.tells_out_of_memory
                self._runs[spec.run_id] = run
                return True
        return False

    def wait(
        self, run_id: str, *, on_line: Callable[[str], None], is_cancelled: Callable[[], bool] = lambda: False
    ) -> Outcome:
        run = self._runs[run_id]
        try:
            state = run.follow(back_seconds=self._back_seconds, on_line=on_line, is_cancelled=is_cancelled)
        except EngineLost:
            raise
        except BaseException as error:
            # Somebody who pressed Ctrl-C does not wait for an engine that answers nobody.
            if isinstance(error, KeyboardInterrupt) and "_client" in vars(self):
                self._client.api.timeout = FIRST_ANSWER_SECONDS
            self._leave_nothing(run)
            self._take_outputs(run.spec)
            raise
        finally:
            del self._runs[run_id]
            last = run.log.close()
        self._take_outputs(run.spec)
        for line in last:
            on_line(line)
        return run.outcome(state)

    def stop(self, run_id: str) -> None:
        run = self._runs.get(run_id)
        if run is not None:
            run.cause = run.cause or Cause.CANCELLED
            kill(run.container)

    def discard(self, run_id: str) -> None:
        if run_id in self._runs:
            self.stop(run_id)
            self.wait(run_id, on_line=lambda _line: None)
        with answering(self._daemon):
            for container in self._labelled(RUN_LABEL, run_id):
                remove(container)

    def left_over(self) -> set[str]:
        with answering(self._daemon):
            return {container.labels[RUN_LABEL] for container in self._labelled(HOME_LABEL, str(self._home))}

    @cached_property
    def _client(self) -> DockerClient:
        if self._refusal is not None:
            raise type(self._refusal)(str(self._refusal), hint=self._refusal.hint)
        try:
            return connect(self._daemon)
        except EngineUnavailable as error:
            self._refusal = error
            raise

    @cached_property
    def _facts(self) -> EngineFacts:
        return read_facts(self._client, self._daemon, self._home)

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
        """Where root starts it, the run's own user owns its outputs for as long as it runs, earlier runs' too."""
        if confinement.real_id is not None and not self._facts.is_rootless:
            for mount in confinement.mounts:
                if mount.writable and mount.host.is_dir():
                    take_over(mount.host, owner=confinement.real_id, group=confinement.real_id)
                elif mount.writable:
                    os.chown(mount.host, confinement.real_id, confinement.real_id)

    def _take_outputs(self, spec: TaskSpec) -> None:
        for folder in spec.outputs():
            take_over(folder, owner=self._caller.uid, group=self._caller.gid)

    def _leave_nothing(self, run: DockerRun) -> None:
        """End and remove the run's container; where that fails, the next command finds it by its label."""
        state: dict[str, Any] | None = None
        try:
            with answering(self._daemon):
                run.container.reload()
                state = dict(run.container.attrs["State"])
        except EngineSilent as silent:
            # It takes questions and does not answer: it is asked no more.
            self._refusal = silent
            self.close()
            # Another run's interrupt may have been first.
            vars(self).pop("_client", None)
            return
        except EngineUnavailable:
            pass  # gone, or the container is: what follows finds nothing
        if state and state.get("Running"):
            ended_by_force(run.container)
        with suppress(EngineUnavailable), answering(self._daemon):
            remove(run.container)

    def _watch(self, spec: TaskSpec, container: Container) -> Watch:
        # Where the engine is in another process namespace, nothing is seen of it, and nothing counted.
        first = int((state_of(container) or {}).get("Pid") or _NO_PROCESS)
        tree = ProcessTree(first, confine(spec, self._caller).memory_folders)
        layer_look, group = self._layer_look(spec, container), memory_cgroup_of(first)

        bounds = TreeBounds(tree, spec.limits, Cgroup(), 0) if self._facts.cannot_bound & _WATCHED else None

        def look() -> Cause | None:
            if group.killed_for_memory():
                return Cause.OUT_OF_MEMORY
            return (bounds.broken_limit() if bounds is not None else None) or layer_look()

        return Watch(spec.limits, spec.outputs(), look, tree.nameless_bytes)

    def _layer_look(self, spec: TaskSpec, container: Container) -> Callable[[], Cause | None]:
        """Looks at the size of the container's own layer, where it has one to write to."""
        next_look = time.monotonic() + _LAYER_LOOK_SECONDS

        def look() -> Cause | None:
            nonlocal next_look
            if time.monotonic() < next_look:
                return None
            next_look = time.monotonic() + _LAYER_LOOK_SECONDS
            with suppress(EngineUnavailable), answering(self._daemon):
                listed = self._client.api.containers(all=True, size=True, filters={"id": container.id})
                if any(row.get("SizeRw", 0) > spec.limits.output_bytes for row in listed):
                    return Cause.OUTPUT_LIMIT
            return None

        return look if spec.root_is_writable else lambda: None


def _image_of(spec: TaskSpec) -> Image:
    if spec.image is None:
        raise EngineUnavailable(
            "This container has no image that is registered by its hash: it cannot run under Docker",
            hint="Use `--platform sandbox`, or ask its owner to register it with its image's hash.",
        )
    return spec.image
