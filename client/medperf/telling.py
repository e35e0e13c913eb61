"""Telling a benchmark's owner how far a preparation is: numbers by stage, only where the data owner agreed."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pydantic import UUID4, BaseModel, ConfigDict, TypeAdapter, ValidationError

from medperf import safe_yaml
from medperf.case_report import CaseReport
from medperf.datasets import hold
from medperf.errors import ClientError, IntegrityError
from medperf.files import write_atomically
from medperf.home import Home
from medperf.preparations import ANSWER, InPreparation
from medperf_contracts.registry import CasesAtStage, NewProgress, StageNumber

# Preparation takes hours and days: nobody needs it sooner, and a container that would hide a text in its numbers
# gets out little.
REST_SECONDS = 600.0
_ANSWER_LIMIT_BYTES = 4 * 1024
_STAGE_NUMBER: TypeAdapter[float] = TypeAdapter(StageNumber)


class Answer(BaseModel):
    """What a person answered: whether the owner of this benchmark may be told how far a preparation is.

    It holds for whoever gave it. `preparation` is the random number by which it is told of.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    benchmark_id: int
    user_id: int
    agrees: bool
    preparation: UUID4
    answered_at: datetime


def read_answer(ongoing: InPreparation) -> Answer | None:
    """What was answered for a preparation; None, which is no agreement, where nothing was that can be read."""
    file = ongoing.folder / ANSWER
    try:
        content = file.read_bytes()
        return Answer.model_validate(
            safe_yaml.load(content, what=str(file), limit_bytes=_ANSWER_LIMIT_BYTES, error=IntegrityError)
        )
    except (OSError, ValidationError, IntegrityError):
        return None


def keep_answer(ongoing: InPreparation, *, benchmark_id: int, user_id: int, agrees: bool) -> Answer:
    """Keep what a person answers; the number by which it is told of stays theirs."""
    known = read_answer(ongoing)
    is_theirs = known is not None and (known.benchmark_id, known.user_id) == (benchmark_id, user_id)
    answer = Answer(
        benchmark_id=benchmark_id,
        user_id=user_id,
        agrees=agrees,
        preparation=known.preparation if known is not None and is_theirs else uuid.uuid4(),
        answered_at=datetime.now(UTC),
    )
    write_atomically(ongoing.folder / ANSWER, safe_yaml.dump(answer.model_dump(mode="json")))
    return answer


@contextmanager
def undisturbed(
    home: Home, ongoing: InPreparation, on_wait: Callable[[str], object] | None = None
) -> Iterator[None]:
    """What was answered does not change while something is told, nor is anything told while it changes.

    With `on_wait` another's end is waited for, else that is Busy.
    """
    with hold(home, f"telling-{ongoing.uid}", f"telling how far {ongoing.uid} is", on_wait):
        yield


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
    they did not arrive, which `say` is told once for each cause; the newest are tried again after the next rest.
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
        self._send = send
        self._say = say
        self._rest_seconds = rest_seconds
        self._changed = threading.Condition()
        self._newest: tuple[CasesAtStage, ...] = ()
        self._told: tuple[CasesAtStage, ...] = ()
        self._next = 0.0
        self._is_over = False
        self._fault = ""
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def know(self, report: CaseReport) -> None:
        """Take the newest report."""
        with self._changed:
            self._newest = numbers(report)
            self._changed.notify()

    def end(self, *, wait_seconds: float) -> None:
        """Tell what is newest, if it was not told, and be done: after so long without it."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join(wait_seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._is_over or self._is_due()):
                    self._changed.wait(self._seconds_to_wait())
                stages, is_last = self._newest, self._is_over
            if stages != self._told:
                self._tell(stages)
            if is_last:
                return

    def _is_due(self) -> bool:
        return self._newest != self._told and time.monotonic() >= self._next

    def _seconds_to_wait(self) -> float | None:
        return None if self._newest == self._told else max(0.0, self._next - time.monotonic())

    def _tell(self, stages: tuple[CasesAtStage, ...]) -> None:
        whom = f"the owner of benchmark {self._answer.benchmark_id}"
        body = NewProgress(
            benchmark_id=self._answer.benchmark_id, preparation=self._answer.preparation, stages=stages
        )
        try:
            with undisturbed(self._home, self._ongoing):
                if read_answer(self._ongoing) != self._answer:  # taken back meanwhile
                    self._told = stages
                    return
                self._say(f"telling {whom}: {in_words(stages)}")
                self._send(body)
            self._told, self._fault = stages, ""
        except (ClientError, OSError) as error:
            if str(error) != self._fault:
                self._fault = str(error)
                self._say(f"{whom} could not be told: {error}")
        finally:
            self._next = time.monotonic() + self._rest_seconds


def _as_told(number: float | None) -> float | None:
    """A stage's number where it is one that may be told."""
    if number is None:
        return None
    try:
        return _STAGE_NUMBER.validate_python(number)
    except ValidationError:
        return None
