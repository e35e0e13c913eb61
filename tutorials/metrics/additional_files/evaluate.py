"""The task `evaluate`: read scores, labels and threshold, write the measures."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import yaml
from failure import Failure, listed
from measures import measure


def evaluate(predictions: Path, labels: Path, parameters_file: Path, output: Path) -> None:
    """Write the measures of `predictions/predictions.csv` against `labels/labels.csv` to `output`, as YAML."""
    threshold = _read_threshold(parameters_file)
    findings = _read_findings(labels / "labels.csv")
    scores = _read_scores(predictions / "predictions.csv")
    problems = [f"case {case!r} has no score" for case in sorted(findings.keys() - scores.keys())]
    problems += [f"case {case!r} has a score but no label" for case in sorted(scores.keys() - findings.keys())]
    if problems:
        raise Failure(f"predictions and labels do not match: {listed(problems)}")
    cases = sorted(findings)
    results = measure(
        np.array([scores[case] for case in cases]), np.array([findings[case] for case in cases]), threshold
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(yaml.safe_dump(results, sort_keys=False), encoding="utf-8")
    print(f"evaluate: {len(cases)} cases", flush=True)


def _read_threshold(path: Path) -> float:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Failure(f"{path.name} is not YAML: {' '.join(str(error).split())}") from error
    threshold = content.get("threshold") if isinstance(content, dict) else None
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise Failure(f"{path.name} must hold threshold, a number from 0 to 1")
    return float(threshold)


def _read_findings(path: Path) -> dict[str, int]:
    values = _read_csv(path, "finding")
    wrong = [
        f"the finding of {case!r} is {value!r}, not 0 or 1"
        for case, value in values.items()
        if value not in {"0", "1"}
    ]
    if wrong:
        raise Failure(f"{path.name}: {listed(wrong)}")
    return {case: int(value) for case, value in values.items()}


def _read_scores(path: Path) -> dict[str, float]:
    scores: dict[str, float] = {}
    wrong = []
    for case, value in _read_csv(path, "score").items():
        try:
            scores[case] = float(value)
        except ValueError:
            scores[case] = math.nan
        if not 0 <= scores[case] <= 1:
            wrong.append(f"the score of {case!r} is {value!r}, not a number from 0 to 1")
    if wrong:
        raise Failure(f"{path.name}: {listed(wrong)}")
    return scores


def _read_csv(path: Path, column: str) -> dict[str, str]:
    """The value of each case in a file with the columns `case` and `column`."""
    if not path.is_file():
        raise Failure(f"there is no {path.name}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Failure(f"{path.name} is not CSV in UTF-8: {error}") from error
    if not rows or rows[0] != ["case", column]:
        raise Failure(f"{path.name} must begin with the line case,{column}")
    values: dict[str, str] = {}
    for row in rows[1:]:
        if len(row) != 2:
            raise Failure(f"{path.name}: a line has {len(row)} columns, not 2: {row!r}")
        if row[0] in values:
            raise Failure(f"{path.name}: {row[0]!r} is there twice")
        values[row[0]] = row[1]
    if not values:
        raise Failure(f"{path.name} holds no cases")
    return values
