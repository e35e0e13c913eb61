"""Trying a benchmark's three containers on some data: every task once, nothing registered, nothing kept."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from medperf.containers import LocalContainer
from medperf.errors import UsageError
from medperf.files import make_private_folder
from medperf.preparation import readable_input
from medperf.reports import read_report
from medperf.tasks import Runner, TaskOutputs, check_predictions

TASKS = ("prepare", "sanity_check", "statistics", "infer", "evaluate")


@dataclass(frozen=True)
class Parts:
    """A container for each role, checked and ready to run."""

    preparation: LocalContainer
    model: LocalContainer
    metrics: LocalContainer


@dataclass(frozen=True)
class Trial:
    """What the containers made of the data. `seconds` are by task; times are UTC."""

    statistics: dict[str, JsonValue]
    metrics: dict[str, JsonValue]
    seconds: dict[str, float]
    started_at: datetime
    finished_at: datetime

    def summary(self) -> dict[str, JsonValue]:
        """What a request to take part says of it: metrics and times, and nothing that a container printed."""
        return {
            "metrics": self.metrics,
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "finished_at": self.finished_at.isoformat(timespec="seconds"),
            "seconds": round((self.finished_at - self.started_at).total_seconds(), 1),
        }


def try_out(
    runner: Runner,
    parts: Parts,
    *,
    data_path: Path,
    labels_path: Path,
    purpose: str,
    step: Callable[[str], AbstractContextManager[object]],
    keep: Path | None = None,
) -> Trial:
    """Prepare the data, run the model on it and compute the metrics; each task's outputs go to `keep`, if given.

    No dataset and no result is made of it. `step` is entered around each task, by its name and its container's.
    Raises what a run of a task raises.
    """
    seconds: dict[str, float] = {}
    with ExitStack() as lent:

        def run(container: LocalContainer, task: str, bindings: Mapping[str, Path]) -> TaskOutputs:
            began = time.monotonic()
            with step(f"{task} · {container.name}"):
                outputs = lent.enter_context(runner.run(container, task, bindings, purpose=purpose))
            seconds[task] = round(time.monotonic() - began, 1)
            if keep is not None:
                _keep(outputs, keep / task)
            return outputs

        started_at = datetime.now(UTC)
        raw = {"data_path": readable_input(data_path), "labels_path": readable_input(labels_path)}
        made = run(parts.preparation, "prepare", raw).paths
        data, labels = made["output_path"], made["output_labels_path"]
        prepared = {"data_path": data, "labels_path": labels}
        run(parts.preparation, "sanity_check", prepared)
        statistics = _report(run(parts.preparation, "statistics", prepared), "The statistics of the prepared data")
        inferred = run(parts.model, "infer", {"data_path": data})
        check_predictions(inferred, parts.model.name)
        predictions = inferred.paths["output_path"]
        scored = run(parts.metrics, "evaluate", {"predictions": predictions, "labels": labels})
        metrics = _report(scored, f"The metrics of {parts.model.name}")
        return Trial(statistics, metrics, seconds, started_at, datetime.now(UTC))


def check_keep(folder: Path) -> None:
    """Raise UsageError unless outputs can be kept in `folder`: empty, or new where one can be made."""
    hint = "Give a new folder to keep outputs in, below one of yours."
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        place = next(above for above in folder.absolute().parents if os.path.lexists(above))
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            raise UsageError(f"{folder} cannot be made: {place} is no folder to write to.", hint=hint) from None
        return
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}.", hint=hint) from error
    if not folder.is_dir() or any(folder.iterdir()) or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} is there already and not empty, or no folder to write to.", hint=hint)


def _report(outputs: TaskOutputs, what: str) -> dict[str, JsonValue]:
    return read_report(outputs.paths["output_path"], inside=outputs.folder, what=what)


def _keep(outputs: TaskOutputs, folder: Path) -> None:
    """Copy a task's outputs, files and folders only as they were checked to be, by their parameters' names."""
    if any(outputs.folder.iterdir()):
        make_private_folder(folder.parent)
        shutil.copytree(outputs.folder, folder, symlinks=True)
