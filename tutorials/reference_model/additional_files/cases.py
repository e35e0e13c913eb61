"""What the model reads and writes: prepared cases in, a score a case out."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from failure import Failure
from numpy.typing import NDArray

IMAGE_SIZE = 64  # pixels a side; what the weights were trained on
HEADER = f"P5\n{IMAGE_SIZE} {IMAGE_SIZE}\n255\n".encode()

FloatArray = NDArray[np.float64]


def list_cases(data: Path) -> list[Path]:
    """The prepared images, sorted by case."""
    paths = sorted(data.glob("*.pgm"))
    if not paths:
        raise Failure("the data folder holds no prepared images (*.pgm)")
    return paths


def read_image(path: Path) -> FloatArray:
    """The pixels of one case, 64 × 64, from -0.5 to 0.5."""
    content = path.read_bytes()
    if not content.startswith(HEADER) or len(content) != len(HEADER) + IMAGE_SIZE * IMAGE_SIZE:
        raise Failure(f"{path.name!r} is not a grey image of {IMAGE_SIZE}x{IMAGE_SIZE} bytes")
    pixels = np.frombuffer(content, dtype=np.uint8, offset=len(HEADER))
    return pixels.reshape(IMAGE_SIZE, IMAGE_SIZE) / 255.0 - 0.5


def read_batches(paths: list[Path], batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
    """The names of up to `batch_size` cases, and their images, cases × 64 × 64."""
    for start in range(0, len(paths), batch_size):
        batch = paths[start : start + batch_size]
        yield [path.stem for path in batch], np.stack([read_image(path) for path in batch])


def write_predictions(folder: Path, scores: dict[str, float]) -> None:
    """Write `folder/predictions.csv` with the columns `case,score`, scores from 0 to 1."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "score"])
        # Six digits: what lies beyond depends on how a processor orders its sums.
        writer.writerows((case, f"{score:.6f}") for case, score in scores.items())
