"""Results by the names a person uses (`b1m4d1`): which evaluation each is, and whether it was submitted."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

from medperf import safe_yaml
from medperf.credentials import logged_in_user
from medperf.errors import IntegrityError, UsageError
from medperf.evaluation import Evaluation, find_evaluation
from medperf.files import make_private_folder, write_atomically
from medperf.home import Home
from medperf_contracts.results import NewResult

NAMES = "names"
_NAME = re.compile(r"b([1-9][0-9]{0,17})m([1-9][0-9]{0,17})d([1-9][0-9]{0,17})")


class Submission(BaseModel):
    """What the server accepted: its ID of the result, of which evaluation, and from whom.

    `user_id` is the server's ID of the person; records of earlier versions do not say, which is whoever asks.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    result_id: int
    is_partial: bool
    user_id: int | None = None

    def is_of(self, user_id: int | None) -> bool:
        """Whether this person sent it, as far as is known."""
        return self.user_id is None or user_id is None or self.user_id == user_id


class _Name(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    benchmark_id: int
    model_id: int
    dataset_id: int
    key: str
    submissions: list[Submission] = []


class LocalResult(BaseModel):
    """An evaluation as the result of a model on a dataset in a benchmark, by their server UIDs.

    `user_id` is who is logged in: what somebody else sent is no submission of theirs.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = Field(description="The local result UID")
    benchmark_id: int
    model_id: int
    dataset_id: int
    evaluation: Evaluation
    submissions: tuple[Submission, ...] = Field((), exclude=True)
    user_id: int | None = Field(None, exclude=True)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def submitted_id(self) -> int | None:
        """The server's ID of this result, once it was accepted; a partial one does not stand for a whole one."""
        for submission in self.submissions:
            if submission.is_of(self.user_id) and submission.is_partial == self.evaluation.is_partial:
                return submission.result_id
        return None

    def body(self) -> NewResult:
        """What is sent when the result is submitted."""
        evaluation = self.evaluation
        return NewResult(
            benchmark_id=self.benchmark_id,
            model_id=self.model_id,
            dataset_id=self.dataset_id,
            is_partial=evaluation.is_partial,
            metrics=evaluation.metrics,
            engine=evaluation.engine,
            engine_reason=evaluation.engine_reason,
            dataset_hash=evaluation.dataset_hash,
            model_hash=evaluation.model_hash,
            metrics_hash=evaluation.metrics_hash,
            started_at=evaluation.started_at,
            finished_at=evaluation.finished_at,
        )


def result_name(benchmark_id: int, model_id: int, dataset_id: int) -> str:
    """The name of a result, such as `b1m4d1`."""
    return f"b{benchmark_id}m{model_id}d{dataset_id}"


def is_result_name(given: str) -> bool:
    """Whether a person means a local result by this."""
    return _NAME.fullmatch(given) is not None


def name_result(
    home: Home, evaluation: Evaluation, *, benchmark_id: int, model_id: int, dataset_id: int
) -> LocalResult:
    """Give an evaluation its name in a benchmark; what was submitted of the same evaluation stays known."""
    try:
        before = _load(home, result_name(benchmark_id, model_id, dataset_id))
    except IntegrityError:
        before = None  # damaged: written anew
    submissions = before.submissions if before is not None and before.key == evaluation.key else []
    name = _Name(
        benchmark_id=benchmark_id,
        model_id=model_id,
        dataset_id=dataset_id,
        key=evaluation.key,
        submissions=submissions,
    )
    _save(home, name)
    return _joined(home, name, evaluation)


def local_results(
    home: Home, *, on_damaged: Callable[[str, IntegrityError], object] | None = None
) -> list[LocalResult]:
    """Every named result, in the order of benchmark, dataset and model.

    `on_damaged` is told of each whose records cannot be read, by its name; without it that is IntegrityError.
    """
    found = []
    for file in sorted(_folder(home).glob("b*.yaml")):
        if not is_result_name(file.stem):
            continue
        try:
            result = _named(home, file.stem)
        except IntegrityError as error:
            if on_damaged is None:
                raise
            on_damaged(file.stem, error)
        else:
            found += [] if result is None else [result]
    return sorted(found, key=lambda result: (result.benchmark_id, result.dataset_id, result.model_id))


def find_result(home: Home, given: str) -> LocalResult:
    """The result with this name; UsageError if there is none."""
    result = _named(home, given) if is_result_name(given) else None
    if result is None:
        raise UsageError(
            f"There is no local result {given!r}.",
            hint="`medperf result ls --local` shows what is here; `medperf benchmark run` makes results.",
        )
    return result


def is_submitted(home: Home, key: str) -> bool:
    """Whether an evaluation was submitted, in whichever benchmark; a damaged record says of none."""
    for file in _folder(home).glob("b*.yaml"):
        with suppress(IntegrityError):
            name = _load(home, file.stem) if is_result_name(file.stem) else None
            if name is not None and name.key == key and name.submissions:
                return True
    return False


def record_submission(home: Home, result: LocalResult, result_id: int, *, user_id: int | None = None) -> None:
    """Write down that the server has accepted this result from this person under this ID."""
    name = _load(home, result.name)
    if name is None:
        raise IntegrityError(f"The record of {result.name} is gone.", hint="Run the benchmark again.")
    accepted = Submission(result_id=result_id, is_partial=result.evaluation.is_partial, user_id=user_id)
    others = [
        submission
        for submission in name.submissions
        if submission.is_partial != accepted.is_partial or not submission.is_of(user_id)
    ]
    _save(home, name.model_copy(update={"submissions": [*others, accepted]}))


def forget_result(home: Home, result: LocalResult) -> None:
    """Remove a result's name; its evaluation is kept under its own key."""
    (_folder(home) / f"{result.name}.yaml").unlink(missing_ok=True)


def _named(home: Home, given: str) -> LocalResult | None:
    name = _load(home, given)
    if name is None:
        return None
    try:
        evaluation = find_evaluation(home, name.key)
    except IntegrityError as error:
        raise _damaged(home, given) from error
    if evaluation is None:
        return None
    return _joined(home, name, evaluation)


def _joined(home: Home, name: _Name, evaluation: Evaluation) -> LocalResult:
    return LocalResult(
        name=result_name(name.benchmark_id, name.model_id, name.dataset_id),
        benchmark_id=name.benchmark_id,
        model_id=name.model_id,
        dataset_id=name.dataset_id,
        evaluation=evaluation,
        submissions=tuple(name.submissions),
        user_id=logged_in_user(home),
    )


def _load(home: Home, given: str) -> _Name | None:
    file = _folder(home) / f"{given}.yaml"
    if not file.exists():
        return None
    try:
        return _Name.model_validate(safe_yaml.load(file.read_bytes(), what=str(file), error=IntegrityError))
    except (OSError, ValidationError, IntegrityError) as error:
        raise _damaged(home, given) from error


def _damaged(home: Home, given: str) -> IntegrityError:
    parts = _NAME.fullmatch(given)
    pair = f"--benchmark {parts[1]} --data_uid {parts[3]}" if parts else ""
    return IntegrityError(
        f"The records of the result {given} in {home.results} cannot be read.",
        hint=f"Run the benchmark again, which writes them anew: medperf benchmark run {pair}",
    )


def _save(home: Home, name: _Name) -> None:
    file = _folder(home) / f"{result_name(name.benchmark_id, name.model_id, name.dataset_id)}.yaml"
    write_atomically(file, safe_yaml.dump(name.model_dump(mode="json")))


def _folder(home: Home) -> Path:
    return make_private_folder(home.results / NAMES)
