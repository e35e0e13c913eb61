"""Several pieces of work at once: their order, what one that fails does to the others, and how all are stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from medperf.at_once import each


def test_results_are_in_the_order_of_the_work_and_so_many_run_at_a_time() -> None:
    lock, running, most, begun = threading.Lock(), set[int](), [0], list[int]()

    def piece(number: int) -> Callable[[], int]:
        def work() -> int:
            with lock:
                begun.append(number)
                running.add(number)
                most[0] = max(most[0], len(running))
            time.sleep(0.05 if number % 2 else 0.15)
            with lock:
                running.remove(number)
            return number * number

        return work

    results = each(3, [piece(number) for number in range(8)], stopping=threading.Event())
    assert results == [number * number for number in range(8)]
    assert most == [3]
    assert sorted(begun[:3]) == [0, 1, 2]


def test_one_job_is_the_callers_own_thread() -> None:
    assert each(1, [threading.get_ident] * 2, stopping=threading.Event()) == [threading.get_ident()] * 2


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_exception_stops_the_others_and_is_raised_once_they_have_ended(kind: type[BaseException]) -> None:
    stopping, ended, begun = threading.Event(), threading.Event(), list[int]()

    def fails() -> None:
        raise kind("the first")

    def goes_on() -> None:
        assert stopping.wait(10)
        time.sleep(0.2)
        ended.set()
        raise KeyboardInterrupt

    def never() -> None:
        begun.append(3)

    with pytest.raises(kind, match="the first"):
        each(2, [goes_on, fails, never], stopping=stopping)
    assert (ended.is_set(), begun) == (True, [])


def test_one_that_hangs_keeps_no_exception_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medperf.at_once._END_SECONDS", 0.5)
    never, hangs = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        never.wait(60)

    def fails() -> None:
        assert hangs.wait(10)
        raise ValueError("the other hangs")

    began = time.monotonic()
    with pytest.raises(ValueError, match="the other hangs"):
        each(2, [hang, fails], stopping=threading.Event())
    never.set()
    assert time.monotonic() - began < 10


def test_ctrl_c_is_raised_once_all_have_ended() -> None:
    stopping, ended = threading.Event(), list[int]()
    both = threading.Barrier(3)

    def goes_on() -> None:
        both.wait(10)
        assert stopping.wait(10)
        time.sleep(0.3)
        ended.append(1)

    def interrupt() -> None:
        both.wait(10)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        each(2, [goes_on, goes_on], stopping=stopping)
    assert ended == [1, 1]
