"""What a benchmark's owner is told of a preparation while it goes on: when, and what happens where that fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from containers.attack import eventually
from medperf.case_report import CaseReport, Stage
from medperf.datasets import Preparation, Source
from medperf.errors import Refused, ServerUnreachable
from medperf.home import Home
from medperf.preparations import InPreparation
from medperf.telling import ANSWERS, Answer, Teller, current_answer, in_words, keep_answer, numbers, read_answers
from medperf_contracts.registry import NewProgress

DOWN = ServerUnreachable("The server is down.", hint="Wait.")
REST = 1.0


def report(*stages: tuple[float | None, str, int]) -> CaseReport:
    return CaseReport(tuple(Stage(*stage) for stage in stages), sum(cases for *_, cases in stages))


def at(stage: float, cases: int = 1) -> CaseReport:
    return report((stage, "", cases))


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([(2.0, "ANNOTATED", 14), (-1.1, "Mrs. Smith", 3)], [(2.0, 14), (-1.1, 3)]),
        ([(None, "Mrs. Smith", 1), (8.0, "DONE", 2), (None, "Mr. Smith", 4)], [(8.0, 2), (None, 5)]),
        ([(3.14159, "", 1), (100.0, "", 2), (-100.0, "", 3), (1e300, "", 4)], [(None, 10)]),
    ],
)
def test_all_that_is_told_of_a_report_are_numbers_of_stages(
    stages: list[tuple[float | None, str, int]], told: list[tuple[float | None, int]]
) -> None:
    assert [(one.stage, one.cases) for one in numbers(report(*stages))] == told


def test_what_is_told_is_read_as_a_line() -> None:
    assert in_words(numbers(at(-1.1, 1200))) == "1,200 at -1.1"
    assert in_words(numbers(report((2, "", 3), (None, "x", 1)))) == "3 at 2, 1 at no number"


class Ongoing:
    """A preparation whose benchmark's owner may be told."""

    def __init__(self, folder: Path) -> None:
        self.home = Home.at("http://localhost:1")
        self.preparation = InPreparation(
            folder=folder,
            uid="prep-0123456789ab",
            name="mine",
            description="",
            location="",
            benchmark_id=1,
            preparation=Preparation(id=1, name="cases", hash="ab" * 32),
            source=Source(data_path="/data", labels_path="/labels"),
            report="report_file/report.yaml",
            begun_at=datetime.now(UTC),
        )
        self.answer = self.answered(agrees=True)
        self.sent: list[NewProgress] = []
        self.said: list[str] = []
        self.tellers: list[Teller] = []

    def answered(self, **changed: Any) -> Answer:
        return keep_answer(self.home, self.preparation, **{"benchmark_id": 1, "user_id": 5, **changed})

    def teller(self, send: Callable[[NewProgress], object] = lambda _: None) -> Teller:
        def sending(body: NewProgress) -> None:
            send(body)
            self.sent.append(body)

        made = Teller(self.home, self.preparation, self.answer, sending, self.said.append, rest_seconds=REST)
        self.tellers.append(made)
        return made

    @property
    def stages(self) -> list[float | None]:
        return [body.stages[0].stage for body in self.sent]


@pytest.fixture
def ongoing(tmp_path: Path, home_folder: Path) -> Ongoing:
    return Ongoing(tmp_path)


def test_the_first_numbers_go_at_once_then_the_newest_after_each_rest_and_the_last_at_the_end(
    ongoing: Ongoing,
) -> None:
    teller, began = ongoing.teller(), time.monotonic()
    teller.know(at(1))
    assert eventually(lambda: ongoing.stages == [1])
    for stage in (2, 3, 4):
        teller.know(at(stage))
    time.sleep(max(0.0, REST * 0.5 - (time.monotonic() - began)))
    assert ongoing.stages == [1]
    assert eventually(lambda: ongoing.stages == [1, 4])
    assert time.monotonic() - began > REST
    teller.know(at(4))
    teller.know(at(5))
    teller.end(wait_seconds=10)
    assert ongoing.stages == [1, 4, 5]
    assert {(body.benchmark_id, body.preparation) for body in ongoing.sent} == {(1, ongoing.answer.number)}
    assert ongoing.said == [f"telling the owner of benchmark 1: 1 at {stage}" for stage in (1, 4, 5)]


def test_what_is_told_already_is_not_told_again(ongoing: Ongoing) -> None:
    teller = ongoing.teller()
    teller.know(at(1))
    assert eventually(lambda: ongoing.stages == [1])
    teller.know(report((1, "another name", 1)))
    teller.end(wait_seconds=10)
    assert ongoing.stages == [1]


def test_a_server_that_does_not_answer_holds_nothing_up(ongoing: Ongoing) -> None:
    is_over = threading.Event()
    teller = ongoing.teller(lambda _: is_over.wait(60))
    began = time.monotonic()
    for stage in (1, 2):
        teller.know(at(stage))
    teller.end(wait_seconds=0.2)
    assert time.monotonic() - began < 10
    assert "the server has not answered yet" in ongoing.said[-1]
    is_over.set()


def test_what_did_not_arrive_is_said_and_tried_again_with_the_newest(ongoing: Ongoing) -> None:
    failures = iter([DOWN, DOWN])

    def fail_twice(_: NewProgress) -> None:
        for failure in failures:
            raise failure

    teller = ongoing.teller(fail_twice)
    teller.know(at(1))
    assert eventually(lambda: len(ongoing.said) == 2)
    teller.know(at(2))
    assert eventually(lambda: ongoing.stages == [2])
    teller.end(wait_seconds=10)
    assert ongoing.stages == [2]
    failed = "the owner of benchmark 1 was not told, as far as is known: The server is down."
    told = [f"telling the owner of benchmark 1: 1 at {stage}" for stage in (1, 2, 2)]
    assert ongoing.said == [told[0], failed, told[1], failed, told[2]]


def test_what_was_taken_back_elsewhere_is_told_no_more_from_here(ongoing: Ongoing) -> None:
    def refuse(_: NewProgress) -> None:
        raise Refused("It was taken back.", hint="", code="progress_withdrawn", status=409)

    teller = ongoing.teller(refuse)
    teller.know(at(1))
    assert eventually(lambda: len(ongoing.said) == 2)
    assert (current := current_answer(ongoing.preparation)) is not None
    assert not current.agrees
    teller.know(at(2))
    teller.end(wait_seconds=10)
    assert len(ongoing.said) == 2


def test_where_nothing_can_be_said_nothing_is_told_and_nothing_else_ends(
    ongoing: Ongoing, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(_: str) -> None:
        raise BrokenPipeError

    teller = Teller(ongoing.home, ongoing.preparation, ongoing.answer, ongoing.sent.append, broken)
    teller.know(at(1))
    teller.end(wait_seconds=10)
    assert ongoing.sent == []
    assert capfd.readouterr().err == ""


def test_after_it_was_abandoned_nothing_is_begun(ongoing: Ongoing) -> None:
    is_over = threading.Event()
    teller = ongoing.teller(lambda _: is_over.wait(60))
    teller.know(at(1))
    assert eventually(lambda: len(ongoing.said) == 1)
    teller.know(at(2))
    teller.abandon()
    is_over.set()
    teller.end(wait_seconds=10)
    assert ongoing.stages == [1]


@pytest.mark.parametrize("changed", [{"agrees": False}, {"benchmark_id": 2}, {"user_id": 6}], ids=str)
def test_nothing_more_is_told_once_the_answer_is_another(ongoing: Ongoing, changed: dict[str, Any]) -> None:
    teller = ongoing.teller()
    teller.know(at(1))
    assert eventually(lambda: ongoing.stages == [1])
    ongoing.answered(**{"agrees": True, **changed})
    teller.know(at(2))
    teller.end(wait_seconds=10)
    assert ongoing.stages == [1]
    assert len(ongoing.said) == 1


@pytest.mark.parametrize("kind", ["malformed", "folder", "pipe", "endless", "link"])
def test_answers_that_cannot_be_read_are_no_agreement(ongoing: Ongoing, tmp_path: Path, kind: str) -> None:
    teller = ongoing.teller()
    file = ongoing.preparation.folder / ANSWERS
    elsewhere = file.rename(tmp_path / "elsewhere")
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "endless":
        file.symlink_to("/dev/zero")
    elif kind == "link":
        file.symlink_to(elsewhere)
    else:
        file.write_text("agrees: [")
    assert read_answers(ongoing.preparation) == ()
    teller.know(at(1))
    teller.end(wait_seconds=10)
    assert ongoing.sent == []


def test_an_answer_is_of_one_preparation_and_benchmark_and_each_has_a_number_of_its_own(ongoing: Ongoing) -> None:
    assert current_answer(ongoing.preparation) == ongoing.answer
    for changed in ({"begun_at": datetime.now(UTC)}, {"benchmark_id": 2}):
        assert current_answer(ongoing.preparation.model_copy(update=changed)) is None
    ongoing.answered(agrees=False)
    ongoing.answered(agrees=True)
    given = read_answers(ongoing.preparation)
    assert [one.agrees for one in given] == [True, False, True]
    assert len({one.number for one in given}) == 3
