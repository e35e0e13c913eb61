"""One model's scores on one dataset: predictions, then metrics; run once for the same parts, then found again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from medperf import safe_yaml
from medperf.containers import LocalContainer
from medperf.datasets import LocalDataset
from medperf.errors import IntegrityError
from medperf.files import make_private_folder, write_atomically
from medperf.home import Home
from medperf.reports import read_report
from medperf.tasks import Runner, TaskOutputs, check_predictions
from medperf_contracts.hashing import text_hash

_FILE = "result.yaml"
_LIMIT_BYTES = 4 * 1024 * 1024
# What a result can carry: one line.
ENGINE_REASON_MOST = 256
WRITABLE_ROOT = "images could write to a throwaway layer over their own files"


class Evaluation(BaseModel):
    """What a model scored on a dataset, with the hashes of what ran. Times are UTC."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    dataset_hash: str
    model_hash: str
    metrics_hash: str
    metrics: dict[str, JsonValue]
    is_partial: bool
    engine: str
    # Why it was this one; records of earlier versions do not say.
    engine_reason: str = ""
    started_at: datetime
    finished_at: datetime

    @property
    def key(self) -> str:
        """What it is kept and found by: the hashes of data, model and metrics, the parameters' within theirs."""
        return evaluation_key(self.dataset_hash, self.model_hash, self.metrics_hash)


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, and whether it was run before."""

    evaluation: Evaluation
    from_cache: bool


def evaluation_key(dataset_hash: str, model_hash: str, metrics_hash: str) -> str:
    """The SHA-256, in hex, over the hashes of an evaluation's parts; a container's covers its parameters."""
    parts = {"dataset": dataset_hash, "model": model_hash, "metrics": metrics_hash}
    return text_hash(json.dumps(parts, sort_keys=True, separators=(",", ":")))


def find_evaluation(home: Home, key: str, *, partial_is_enough: bool = True) -> Evaluation | None:
    """The evaluation kept under this key, or None if there is none."""
    file = home.results / key / _FILE
    if not file.exists():
        return None
    evaluation = _read(file)
    return evaluation if partial_is_enough or not evaluation.is_partial else None


def evaluate(
    runner: Runner,
    dataset: LocalDataset,
    model: LocalContainer,
    metrics: LocalContainer,
    *,
    purpose: str,
    on_step: Callable[[str], None],
    ignore_model_errors: bool = False,
    anew: bool = False,
) -> Evaluated:
    """Run a model and the metrics on a dataset, unless that was done before; `anew`, whatever was done before.

    The prepared data is hashed again before anything runs. With `ignore_model_errors` a model that failed after
    writing some predictions gives a partial evaluation; without it, a partial one from before is run again.
    """
    found = _found(runner.home, dataset, model, metrics, partial_is_enough=ignore_model_errors)
    if found is not None and not anew:
        return Evaluated(found, from_cache=True)
    on_step("hash")
    dataset.verify()
    started_at = datetime.now(UTC)
    on_step("infer")
    with runner.run(
        model,
        "infer",
        {"data_path": dataset.data},
        purpose=purpose,
        # What is to be done anew goes on with nothing, and nothing goes on with it.
        content=None if anew else {"data_path": dataset.data_hash},
        dataset_uid=dataset.generated_uid,
        take_partial=ignore_model_errors,
        check=lambda written: check_predictions(written, model.name),
    ) as predictions:
        check_predictions(predictions, model.name)
        if predictions.failed is not None and found is not None and not found.is_partial:
            raise predictions.failed  # what is whole stays
        # One that an earlier command began has begun then.
        started_at = min(started_at, runner.journal.find(predictions.run_id).created_at)
        on_step("evaluate")
        inputs = {"predictions": predictions.paths["output_path"], "labels": dataset.labels}
        with runner.run(
            metrics,
            "evaluate",
            inputs,
            purpose=purpose,
            # Of predictions that nobody goes on with there is nothing to go on with either.
            content=None
            if anew or predictions.failed is not None
            else {"predictions": predictions.run_id, "labels": dataset.data_hash},
            dataset_uid=dataset.generated_uid,
            check=lambda written: _scores(written, model),
        ) as written:
            scores = _scores(written, model)
        evaluation = Evaluation(
            dataset_hash=dataset.data_hash,
            model_hash=model.hash,
            metrics_hash=metrics.hash,
            metrics=scores,
            is_partial=predictions.failed is not None,
            engine=runner.choose(model.runnable).engine.name,
            engine_reason=_engine_reason(runner, model, metrics),
            started_at=started_at,
            finished_at=datetime.now(UTC),
        )
    folder = make_private_folder(runner.home.results / evaluation.key)
    write_atomically(folder / _FILE, safe_yaml.dump(evaluation.model_dump(mode="json")))
    return Evaluated(evaluation, from_cache=False)


def is_begun(runner: Runner, dataset: LocalDataset, model: LocalContainer) -> bool:
    """Whether an earlier command left the model's run on the dataset, which perhaps still goes on."""
    return runner.is_ongoing(model, "infer", {"data_path": dataset.data_hash})


def _scores(written: TaskOutputs, model: LocalContainer) -> dict[str, JsonValue]:
    return read_report(written.paths["output_path"], inside=written.folder, what=f"The metrics of {model.name}")


def is_evaluated(
    home: Home,
    dataset: LocalDataset,
    model: LocalContainer,
    metrics: LocalContainer,
    *,
    partial_is_enough: bool = False,
) -> bool:
    """Whether `evaluate` would find it done before."""
    return _found(home, dataset, model, metrics, partial_is_enough=partial_is_enough) is not None


def _found(
    home: Home,
    dataset: LocalDataset,
    model: LocalContainer,
    metrics: LocalContainer,
    *,
    partial_is_enough: bool,
) -> Evaluation | None:
    key = evaluation_key(dataset.data_hash, model.hash, metrics.hash)
    try:
        return find_evaluation(home, key, partial_is_enough=partial_is_enough)
    except IntegrityError:
        return None  # damaged: run again, which writes it anew


def _engine_reason(runner: Runner, model: LocalContainer, metrics: LocalContainer) -> str:
    """Why the model's engine was taken, and which one computed the metrics where that is another."""
    ran_by, scored_by = runner.choose(model.runnable), runner.choose(metrics.runnable)
    words = [ran_by.reason]
    if scored_by.engine.name != ran_by.engine.name:
        words.append(f"metrics by {scored_by.engine.name} ({scored_by.reason})")
    if runner.root_is_writable and any(one.engine.has_images for one in (ran_by, scored_by)):
        words.append(WRITABLE_ROOT)
    return "; ".join(words)[:ENGINE_REASON_MOST]


def _read(file: Path) -> Evaluation:
    try:
        record = safe_yaml.load(file.read_bytes(), what=str(file), limit_bytes=_LIMIT_BYTES, error=IntegrityError)
        evaluation = Evaluation.model_validate(record)
    except (OSError, ValidationError, IntegrityError) as error:
        raise _damaged(file) from error
    if evaluation.key != file.parent.name:
        raise _damaged(file)
    return evaluation


def _damaged(file: Path) -> IntegrityError:
    return IntegrityError(
        f"The result {file} is not what was written.", hint="Run the benchmark again, which writes it anew."
    )
