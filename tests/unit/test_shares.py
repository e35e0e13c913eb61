"""What tasks that run at once get of a machine: never more than it has, in the order in which they asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from medperf.engines.base import Limits
from medperf.manifest import Manifest, parse_manifest
from medperf.shares import Shares

SMALL = Limits(memory_bytes=100)
GPUS = ("GPU-a", "GPU-b", "GPU-c", "GPU-d")
MANIFEST = parse_manifest("docker: {image: a}\ntasks: {infer: {}}\n")
# More than a moment: what must not happen is waited for so long.
MOMENT_SECONDS = 0.3


def asking(*, gpus: int | str = 0, memory_bytes: int | None = None) -> Manifest:
    return replace(MANIFEST, gpus=gpus, memory_bytes=memory_bytes)  # type: ignore[arg-type]


class Task:
    """A task in a thread of its own, which keeps its share until it is let go."""

    def __init__(self, shares: Shares, manifest: Manifest, *, gives_gpus: bool = True) -> None:
        self.limits: Limits | None = None
        self.has_begun = threading.Event()
        self.is_cancelled = threading.Event()
        self.was_told = threading.Event()
        self._may_end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(shares, manifest, gives_gpus), daemon=True)
        self._thread.start()

    def _run(self, shares: Shares, manifest: Manifest, gives_gpus: bool) -> None:
        wanted = shares.taken(manifest, gives_gpus=gives_gpus, is_cancelled=self.is_cancelled.is_set)
        with wanted as limits:
            self.limits = limits
            self.was_told.set()
            if limits is not None:
                self.has_begun.set()
                self._may_end.wait(30)

    def begins(self) -> Limits:
        assert self.has_begun.wait(10)
        assert self.limits is not None
        return self.limits

    def waits(self) -> bool:
        return not self.has_begun.wait(MOMENT_SECONDS)

    def end(self) -> None:
        self.is_cancelled.set()
        self._may_end.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def started() -> Iterator[Callable[..., Task]]:
    with ExitStack() as stack:

        def start(shares: Shares, manifest: Manifest = MANIFEST, **options: bool) -> Task:
            task = Task(shares, manifest, **options)
            stack.callback(task.end)
            return task

        yield start


def gpus(*names: str) -> Callable[[], tuple[str, ...]]:
    return lambda: names


def test_tasks_together_never_have_more_than_the_whole(started: Callable[..., Task]) -> None:
    shares = Shares(replace(SMALL, memory_bytes=Limits().memory_bytes // 2), jobs=3)
    first, second = started(shares), started(shares)
    first.begins()
    second.begins()
    third = started(shares)
    assert third.waits()
    assert shares.at_once == 2
    first.end()
    third.begins()


def test_who_needs_much_is_not_passed_by(started: Callable[..., Task]) -> None:
    shares = Shares(SMALL, jobs=3, memory_is_said=False, whole_bytes=300)
    first = started(shares)
    first.begins()
    large = started(shares, asking(memory_bytes=300))
    assert large.waits()
    small = started(shares)
    assert small.waits()
    first.end()
    assert large.begins().memory_bytes == 300
    assert small.waits()
    large.end()
    small.begins()


@pytest.mark.parametrize(
    ("asked", "is_said", "given"),
    [(None, False, 100), (50, False, 100), (250, False, 250), (900, False, 300), (250, True, 100)],
)
def test_a_task_has_the_memory_that_its_manifest_asks_for_unless_somebody_says_how_much(
    asked: int | None, is_said: bool, given: int
) -> None:
    shares = Shares(SMALL, jobs=3, memory_is_said=is_said, whole_bytes=300)
    assert shares.planned(asking(memory_bytes=asked)).memory_bytes == given


def test_a_gpu_is_one_tasks_at_a_time(started: Callable[..., Task]) -> None:
    shares = Shares(SMALL, jobs=4, gpus=gpus(*GPUS[:2]), whole_bytes=1000)
    first, second = started(shares, asking(gpus=1)), started(shares, asking(gpus=1))
    assert {*first.begins().gpus, *second.begins().gpus} == set(GPUS[:2])
    third = started(shares, asking(gpus=1))
    assert third.waits()
    freed = first.begins().gpus
    first.end()
    assert third.begins().gpus == freed


@pytest.mark.parametrize(
    ("asked", "to_all", "gives", "given"),
    [
        (0, False, True, 0),
        (1, False, True, 1),
        (3, False, True, 3),
        (9, False, True, 4),
        ("all", False, True, 4),
        ("all", False, False, 0),
        # With `--gpus`, those that ask for none have what leaves some for the others.
        (0, True, True, 2),
        (1, True, True, 1),
        (0, True, False, 0),
    ],
)
def test_a_task_gets_the_gpus_that_it_asks_for_as_far_as_they_go(
    started: Callable[..., Task], asked: int | str, to_all: bool, gives: bool, given: int
) -> None:
    shares = Shares(SMALL, jobs=2, gpus=gpus(*GPUS), to_all=to_all, whole_bytes=1000)
    assert len(started(shares, asking(gpus=asked), gives_gpus=gives).begins().gpus) == given


def test_a_machine_is_not_asked_for_gpus_that_nobody_wants(started: Callable[..., Task]) -> None:
    def broken() -> tuple[str, ...]:
        raise AssertionError("asked")

    started(Shares(SMALL, gpus=broken)).begins()


def test_more_jobs_than_gpus_still_get_one_each(started: Callable[..., Task]) -> None:
    shares = Shares(SMALL, jobs=8, gpus=gpus("GPU-a"), to_all=True, whole_bytes=1000)
    assert started(shares).begins().gpus == ("GPU-a",)
    assert started(shares).waits()


def test_a_task_that_is_cancelled_while_it_waits_lets_the_next_one_go(started: Callable[..., Task]) -> None:
    shares = Shares(SMALL, jobs=3, memory_is_said=False, whole_bytes=300)
    first = started(shares)
    first.begins()
    large, small = started(shares, asking(memory_bytes=300)), started(shares)
    assert large.waits()
    large.is_cancelled.set()
    assert large.was_told.wait(10)
    assert large.limits is None
    small.begins()


def test_what_an_earlier_command_started_counts_at_once_and_is_given_back(started: Callable[..., Task]) -> None:
    shares = Shares(SMALL, jobs=2, gpus=gpus("GPU-a"), whole_bytes=200)
    with shares.held(replace(SMALL, memory_bytes=150, gpus=("GPU-a",))):
        waiting = started(shares, asking(gpus=1))
        assert waiting.waits()
    assert waiting.begins().gpus == ("GPU-a",)


def test_two_shares_of_the_same_size_are_told_apart() -> None:
    shares = Shares(SMALL, jobs=2, whole_bytes=200)

    def never() -> bool:
        return False

    with shares.taken(MANIFEST, gives_gpus=False, is_cancelled=never):
        with shares.taken(MANIFEST, gives_gpus=False, is_cancelled=never):
            pass
        began = time.monotonic()
        with shares.taken(MANIFEST, gives_gpus=False, is_cancelled=never) as limits:
            assert limits == SMALL
        assert time.monotonic() - began < MOMENT_SECONDS
