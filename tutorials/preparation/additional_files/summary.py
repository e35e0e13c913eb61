"""The task `statistics`: numbers about the whole dataset, none about a case."""

from __future__ import annotations

from pathlib import Path

import yaml
from failure import Failure
from labels import read_labels
from parameters import Parameters
from prepared import read_images


def write_statistics(data: Path, labels: Path, parameters: Parameters, output: Path) -> None:
    """Write counts, and the mean and standard deviation of all pixels (0 to 255, rounded), as YAML."""
    findings = read_labels(labels, "case")
    # Whole numbers, so that the order of adding changes nothing.
    cases = pixels = total = total_of_squares = 0
    for _, image in read_images(data, parameters.image_size):
        values = image.astype("int64")
        cases += 1
        pixels += values.size
        total += int(values.sum())
        total_of_squares += int((values * values).sum())
    if cases != len(findings):
        raise Failure(f"there are {cases} images but {len(findings)} labels")
    mean = total / pixels
    variance = (pixels * total_of_squares - total * total) / (pixels * pixels)
    positives = sum(findings.values())
    statistics = {
        "cases": cases,
        "positives": positives,
        "negatives": cases - positives,
        "image_size": [parameters.image_size, parameters.image_size],
        "intensity": {"mean": round(mean, 2), "standard_deviation": round(variance**0.5, 2)},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(yaml.safe_dump(statistics, sort_keys=False), encoding="utf-8")
    print(f"statistics: {cases} cases", flush=True)
