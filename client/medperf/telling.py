"""Telling a benchmark's owner how far a preparation is: numbers by stage, only where the data owner agreed."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import UUID4, BaseModel, ConfigDict, TypeAdapter, ValidationError

from medperf import safe_yaml
from medperf.case_report import CaseReport
from medperf.datasets import hold
from medperf.engines.outputs import read_output
from medperf.errors import Busy, ClientError, IntegrityError, Refused
from medperf.files import write_atomically
from medperf.home import Home
from medperf.preparations import InPreparation
from medperf_contracts.registry import CasesAtStage, NewProgress, StageNumber

ANSWERS = "telling.yaml"
# What the server says of a number by which it was told before.
WITHDRAWN = "progress_withdrawn"
# Preparation takes hours and days: nobody needs it sooner, and a container that would hide a text in its numbers
# gets out little.
REST_SECONDS = 600.0
_ANSWERS_LIMIT_BYTES = 256 * 1024
_STAGE_NUMBER: TypeAdapter[float] = TypeAdapter(StageNumber)


class Answer(BaseModel):
    """What a person answered: whether the owner of this benchmark may be told how far a preparation is.

    It holds for whoever gave it, and for the preparation that began then. `number` is the random one by which it
    is told of: each answer has its own, since what was taken back is never told again.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    benchmark_id: int
    user_id: int
    begun_at: datetime
    agrees: bool
    number: UUID4
    answered_at: datetime


_ANSWERS: TypeAdapter[tuple[Answer, ...]] = TypeAdapter(tuple[Answer, ...])


def read_answers(ongoing: InPreparation) -> tuple[Answer, ...]:
    """All that was answered, the latest last; none, which is no agreement, where it cannot be read."""
    try:
        content = read_output(ongoing.folder / ANSWERS, inside=ongoing.folder, limit_bytes=_ANSWERS_LIMIT_BYTES)
        return _ANSWERS.validate_python(
            safe_yaml.load(content, what=ANSWERS, limit_bytes=_ANSWERS_LIMIT_BYTES, error=IntegrityError)
        )
    except (OSError, ValidationError, ClientError):
        return ()


def current_answer(ongoing: InPreparation) -> Answer | None:
    """The latest answer, whosever, where it is of this preparation and for its benchmark."""
    answers = read_answers(ongoing)
    if not answers or (answers[-1].benchmark_id, answers[-1].begun_at) != (ongoing.benchmark_id, ongoing.begun_at):
        return None
    return answers[-1]


def keep_answer(home: Home, ongoing: InPreparation, *, benchmark_id: int, user_id: int, agrees: bool) -> Answer:
    """Keep what a person answers after what was answered before, of which something may have been told.

    Busy where another command keeps one at this moment, OSError where it cannot be kept.
    """
    answer = Answer(
        benchmark_id=benchmark_id,
        user_id=user_id,
        begun_at=ongoing.begun_at,
        agrees=agrees,
        number=uuid.uuid4(),
        answered_at=datetime.now(UTC),
    )
    with hold(home, f"telling-{ongoing.uid}", f"the answer whether to tell of {ongoing.uid}"):
        answers = (*read_answers(ongoing), answer)
        content = safe_yaml.dump([one.model_dump(mode="json") for one in answers])
        write_atomically(ongoing.folder / ANSWERS, content)
    return answer


def numbers(report: CaseReport) -> tuple[CasesAtStage, ...]:
    """All of a report that may be told: cases by the stage's number. What has none is counted together."""
    counts: dict[float | None, int] = {}
    for stage in report.stages:
        number = _as_told(stage.number)
        counts[number] = counts.get(number, 0) + stage.cases
    ordered = sorted(counts, key=lambda number: number is None)
    return tuple(CasesAtStage(stage=number, cases=counts[number]) for number in ordered)


def in_words(stages: tuple[CasesAtStage, ...]) -> str:
    """What is told, as a person reads it."""
    return ", ".join(
        f"{one.cases:,} at {'no number' if one.stage is None else f'{one.stage:g}'}" for one in stages
    )


class Teller:
    """Tells how far a preparation is while it goes on, by a thread of its own that holds nothing up.

    The newest numbers go at most every `rest_seconds`, and once more at the end. `send` raises ClientError where
    it is not known that they arrived, which `say` is told; the newest are tried again after the next rest.
    """

    def __init__(
        self,
        home: Home,
        ongoing: InPreparation,
        answer: Answer,
        send: Callable[[NewProgress], object],
        say: Callable[[str], object],
        *,
        rest_seconds: float = REST_SECONDS,
    ) -> None:
        self._home = home
        self._ongoing = ongoing
        self._answer = answer
        self._whom = f"the owner of benchmark {answer.benchmark_id}"
        self._send = send
        self._say = say
        self._rest_seconds = rest_seconds
        self._changed = threading.Condition()
        self._newest: tuple[CasesAtStage, ...] = ()
        self._told: tuple[CasesAtStage, ...] = ()
        self._next = 0.0
        self._is_over = False
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def know(self, report: CaseReport) -> None:
        """Take the newest report."""
        with self._changed:
            self._newest = numbers(report)
            self._changed.notify()

    def end(self, *, wait_seconds: float) -> None:
        """Tell what is newest, if it was not told, and be done; so long it is waited for, then left to itself."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join(wait_seconds)
        if self._thread.is_alive():
            self._say(f"{self._whom} was not told, as far as is known: the server has not answered yet")

    def abandon(self) -> None:
        """Begin to tell nothing more."""
        with self._changed:
            self._is_abandoned = self._is_over = True
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._is_over or self._is_due()):
                    self._changed.wait(self._seconds_to_wait())
                stages, is_last = self._newest, self._is_over
            if self._is_abandoned:
                return
            if stages != self._told:
                try:
                    if not self._tell(stages):
                        return
                except OSError:  # there is nowhere left to say it
                    return
            if is_last:
                return

    def _is_due(self) -> bool:
        return self._newest != self._told and time.monotonic() >= self._next

    def _seconds_to_wait(self) -> float | None:
        return None if self._newest == self._told else max(0.0, self._next - time.monotonic())

    def _tell(self, stages: tuple[CasesAtStage, ...]) -> bool:
        """Tell these, if that is agreed to still; whether more may be told after them."""
        answer = self._answer
        if current_answer(self._ongoing) != answer:
            return False
        self._say(f"telling {self._whom}: {in_words(stages)}")
        try:
            self._send(NewProgress(benchmark_id=answer.benchmark_id, preparation=answer.number, stages=stages))
            self._told = stages
        except ClientError as error:
            self._say(f"{self._whom} was not told, as far as is known: {error}")
            if isinstance(error, Refused) and error.code == WITHDRAWN:
                self._heed_withdrawal()
                return False
        self._next = time.monotonic() + self._rest_seconds
        return True

    def _heed_withdrawal(self) -> None:
        """It was taken back elsewhere: later commands here are not to tell either."""
        answer = self._answer
        with suppress(Busy):  # another answer is being kept at this moment, and that one counts
            keep_answer(
                self._home, self._ongoing, benchmark_id=answer.benchmark_id, user_id=answer.user_id, agrees=False
            )


def _as_told(number: float | None) -> float | None:
    """A stage's number where it is one that may be told."""
    if number is None:
        return None
    try:
        return _STAGE_NUMBER.validate_python(number)
    except ValidationError:
        return None
