"""One container of a Docker engine: followed to its end, also where client or engine goes and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from medperf.engines.base import CannotStart, Cause, EngineLost, Outcome, TaskSpec
from medperf.engines.docker_connection import answering
from medperf.engines.logs import RunLog, last_lines
from medperf.engines.stream import Stream
from medperf.engines.watch import Watch
from medperf.errors import EngineUnavailable

if TYPE_CHECKING:
    from docker.models.containers import Container

# After SIGKILL the kernel needs moments; longer than this is an engine in trouble, not a container.
_END_SECONDS = 30.0
_LEAST_WAIT_SECONDS = 0.02
_MOST_WAIT_SECONDS = 0.5
_BACK_LOOK_SECONDS = 1.0
# What an engine that died says of a container that ran: killed (9, 15), or not known.
_KILLED = 128 + 9
_INTERRUPTED_CODES = frozenset({_KILLED, 128 + 15, 255})
_WRITABLE_ROOT = (
    "If the image must write to its own files, `--writable_root` gives it a layer that is thrown away afterwards."
)


@dataclass
class DockerRun:
    """A container that was started, or found again, and is to be waited for."""

    spec: TaskSpec
    container: Container
    output: Iterable[bytes]
    log: RunLog
    watch: Watch
    # By the engine's clock, which is this machine's; whole seconds are what its API takes.
    began: int
    # Whether it was out of sight for a while: its client or its engine had gone.
    was_lost: bool = False
    cause: Cause | None = None
    # When its output was last heard, in seconds since the epoch.
    heard_at: float = 0.0
    tells_out_of_memory: bool = True

    def follow(
        self,
        *,
        back_seconds: float,
        on_line: Callable[[str], None],
        is_cancelled: Callable[[], bool],
    ) -> dict[str, Any]:
        """Read its output to its end, and stop it where it breaks a limit or is cancelled; its last state.

        An engine that stops answering is waited for, `back_seconds` at most: EngineLost after them. The state is
        empty where the container is gone.
        """
        while True:
            with Stream(self._memory_events) as kills, Stream(lambda: self.output) as output:
                self._read(output, kills, on_line, is_cancelled)
            state = state_of(self.container)
            if state is None:
                state = self._awaited(back_seconds, on_line)
                self.was_lost = True
            if self.cause is not None and state.get("Running"):
                state = ended_by_force(self.container)
                if state.get("Running"):
                    raise EngineLost(
                        f"The container of the task {self.spec.task!r} cannot be ended: it may hang in a device or"
                        " a network mount",
                        hint="What it wrote stays where it is. The next command looks again; `medperf run ls`.",
                    )
            if not state.get("Running"):
                return state
            self.output = ()  # it may have gone again, which the next look then tells
            with suppress(EngineUnavailable), answering():
                self.output = self.container.logs(stream=True, follow=True, since=self.heard_at)

    def outcome(self, state: dict[str, Any]) -> Outcome:
        """How the run ended, from the container's last state."""
        code = state.get("ExitCode")
        cause = self.cause
        if cause is None and not state:
            cause = Cause.ENGINE_GONE
        if cause is None and self.watch.output_is_over():
            cause = Cause.OUTPUT_LIMIT
        if cause is None and code != 0 and state.get("OOMKilled"):
            cause = Cause.OUT_OF_MEMORY
        if cause is None and self.was_lost and code in _INTERRUPTED_CODES:
            cause = Cause.ENGINE_GONE
        if cause is None and code == _KILLED and not self.tells_out_of_memory:
            cause = Cause.OUT_OF_MEMORY  # whoever else kills it is us, or does so by hand
        advice = ""
        if cause is None and code != 0 and not self.spec.root_is_writable:
            is_refused = any("ead-only file system" in line for line in last_lines(self.spec.log))
            advice = _WRITABLE_ROOT if is_refused else ""
        was_stopped = cause is not None and cause is not Cause.OUT_OF_MEMORY
        seconds = time.monotonic() - self.watch.started
        return Outcome(cause or Cause.EXIT_CODE, None if was_stopped else code, seconds, advice)

    def _read(
        self,
        output: Stream[bytes],
        kills: Stream[dict[str, Any]],
        on_line: Callable[[str], None],
        is_cancelled: Callable[[], bool],
    ) -> None:
        """Read until the output ends, and then until the container has ended or its engine does not answer."""
        killed_at: float | None = None
        while not output.has_ended:
            chunk = output.take(self.watch.seconds_to_next_look() or _LEAST_WAIT_SECONDS)
            if chunk:
                self.heard_at = time.time()
            for line in self.log.feed(chunk or b""):
                on_line(line)
            self._look(kills, is_cancelled)
            if self.cause is not None and killed_at is None:
                output.let_go()
                kill(self.container)
                killed_at = time.monotonic()
            if killed_at is not None and time.monotonic() > killed_at + _END_SECONDS:
                return
        # The output has ended; the engine may take another moment, or the task may have closed it and go on.
        wait = _LEAST_WAIT_SECONDS
        while self.cause is None and (state_of(self.container) or {}).get("Running"):
            self._look(kills, is_cancelled)
            time.sleep(wait)
            wait = min(wait * 1.2, _MOST_WAIT_SECONDS)

    def _look(self, kills: Stream[dict[str, Any]], is_cancelled: Callable[[], bool]) -> None:
        if self.cause is None:
            self.cause = Cause.OUT_OF_MEMORY if kills.take() else self.watch.broken_limit()
        if self.cause is None and is_cancelled():
            self.cause = Cause.CANCELLED

    def _awaited(self, seconds: float, on_line: Callable[[str], None]) -> dict[str, Any]:
        """The container's state once its engine answers again."""
        deadline = time.monotonic() + seconds
        on_line("the engine does not answer: waiting for it to come back; the container may go on meanwhile")
        while time.monotonic() < deadline:
            time.sleep(_BACK_LOOK_SECONDS)
            state = state_of(self.container)
            if state is not None:
                on_line("the engine answers again")
                return state
        raise EngineLost(
            f"The engine has not answered for {seconds:,.0f} s in the middle of the task {self.spec.task!r}",
            hint="Mend it. The same command then goes on with what still runs in it, and does the rest again.",
        )

    def _memory_events(self) -> Iterable[dict[str, Any]]:
        """An event for each process of the container that the kernel kills for memory: its first may live on."""
        wanted = {"type": "container", "event": "oom", "container": self.container.id}
        client: Any = self.container.client
        events: Iterable[dict[str, Any]] = client.events(since=self.began, decode=True, filters=wanted)
        return events


def state_of(container: Container) -> dict[str, Any] | None:
    """What the engine knows of it now; empty where it has no such container, None where it does not answer."""
    from docker.errors import NotFound

    with suppress(EngineUnavailable), answering():
        try:
            container.reload()
        except NotFound:
            return {}
        return dict(container.attrs["State"])
    return None


def times_of(container: Container) -> tuple[float, float | None]:
    """When the container was started, and where it has ended when that was, in seconds since the epoch."""
    state = container.attrs["State"]
    return _instant(state["StartedAt"]), None if state["Running"] else _instant(state["FinishedAt"])


def _instant(text: str) -> float:
    written = datetime.fromisoformat(text)
    return (written if written.tzinfo else written.replace(tzinfo=UTC)).timestamp()


def start(container: Container) -> None:
    """Start a container; CannotStart where it is the image's program that cannot."""
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


def ended_by_force(container: Container) -> dict[str, Any]:
    """Kill what still runs and wait for its end; its last state, empty where the engine does not answer."""
    kill(container)
    with suppress(EngineUnavailable), answering():
        container.wait(timeout=_END_SECONDS)
    return state_of(container) or {}


def kill(container: Container) -> None:
    """End it with SIGKILL, where it still runs."""
    with suppress(EngineUnavailable), answering():  # ended meanwhile, or its engine has
        container.kill()


def remove(container: Container) -> None:
    """Leave nothing of it, running or not."""
    from docker.errors import NotFound

    with suppress(NotFound):
        container.remove(force=True, v=True)
