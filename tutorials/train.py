"""Trains the two models of the tutorial and writes their weights.

    python -m tutorials.train

The images are phantoms of seeds that the tutorial does not use, prepared by the tutorial's own container. Every
draw is seeded: two runs on one machine write the same files; the last digits of sums differ between processors.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medperf.tutorial.phantom import make_dataset

HERE = Path(__file__).parent
TRAINING_SEED, TRAINING_COUNT = 11, 4000
VALIDATION_SEED, VALIDATION_COUNT = 12, 1000
DIGITS = 5  # of the weights as written

FloatArray = NDArray[np.float64]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        images, findings = load(Path(folder) / "training", TRAINING_SEED, TRAINING_COUNT)
        held_out, held_out_findings = load(Path(folder) / "validation", VALIDATION_SEED, VALIDATION_COUNT)
    for container, name, train in (
        ("reference_model", "logistic", train_logistic),
        ("second_model", "convnet", train_convnet),
    ):
        model = import_module(HERE / container / "additional_files" / f"{name}.py")
        content = train(model, images, findings)
        (HERE / container / "additional_files" / "weights.json").write_text(json.dumps(content) + "\n")
        scores = model.score(model.Weights.from_json(content), held_out)
        print(f"{container}: AUC {auc(scores, held_out_findings):.3f} on {len(held_out)} held-out phantoms")


def import_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def load(folder: Path, seed: int, count: int) -> tuple[FloatArray, FloatArray]:
    """Phantoms as a model sees them, count × 64 × 64 from -0.5 to 0.5, and their findings."""
    make_dataset(folder / "source", count=count, seed=seed)
    container = HERE / "preparation"
    options = {
        "data_path": folder / "source" / "images",
        "labels_path": folder / "source" / "labels",
        "parameters_file": container / "workspace" / "parameters.yaml",
        "output_path": folder / "data",
        "output_labels_path": folder / "labels",
    }
    program = [sys.executable, str(container / "additional_files" / "main.py"), "prepare"]
    arguments = [f"--{name}={path}" for name, path in options.items()]
    subprocess.run([*program, *arguments], check=True, stdout=subprocess.DEVNULL)
    with (folder / "labels" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = [(folder / "data" / f"{row['case']}.pgm").read_bytes()[-64 * 64 :] for row in rows]
    images = np.frombuffer(b"".join(pixels), dtype=np.uint8).reshape(-1, 64, 64) / 255.0 - 0.5
    return images, np.array([float(row["finding"]) for row in rows])


def auc(scores: FloatArray, findings: FloatArray) -> float:
    positives, negatives = scores[findings == 1][:, None], scores[findings == 0][None, :]
    return float(np.mean((positives > negatives) + 0.5 * (positives == negatives)))


def rounded(values: FloatArray) -> Any:
    return np.round(values, DIGITS).tolist()


def train_logistic(model: ModuleType, images: FloatArray, findings: FloatArray) -> dict[str, Any]:
    """Newton's method on the penalised likelihood."""
    features = model.features(images)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    inputs = np.column_stack([(features - mean) / deviation, np.ones(len(features))])
    penalty = np.full(inputs.shape[1], 20.0)
    penalty[-1] = 0.0  # the intercept is free
    coefficients = np.zeros(inputs.shape[1])
    for _ in range(20):
        predicted = 1 / (1 + np.exp(-inputs @ coefficients))
        gradient = inputs.T @ (predicted - findings) + penalty * coefficients
        curvature = (inputs.T * (predicted * (1 - predicted))) @ inputs + np.diag(penalty)
        coefficients -= np.linalg.solve(curvature, gradient)
    return {
        "mean": rounded(mean),
        "deviation": rounded(deviation),
        "coefficients": rounded(coefficients[:-1]),
        "intercept": round(float(coefficients[-1]), DIGITS),
    }


def train_convnet(model: ModuleType, images: FloatArray, findings: FloatArray) -> dict[str, Any]:
    """Adam on the cross-entropy, in batches, with images mirrored and moved by chance."""
    rng = np.random.default_rng(13)
    values = {
        name: rng.normal(0, (2 / shape[0]) ** 0.5, shape) if len(shape) == 2 else np.zeros(shape)
        for name, shape in model.SHAPES.items()
    }
    values["output"] = rng.normal(0, 0.1, model.SHAPES["output"])
    first = {name: np.zeros_like(value) for name, value in values.items()}
    second = {name: np.zeros_like(value) for name, value in values.items()}
    epochs, batch_size, step = 30, 50, 0
    for epoch in range(epochs):
        rate = 0.002 * (1 - epoch / epochs)
        for batch in rng.permutation(len(images)).reshape(-1, batch_size):
            step += 1
            chosen = images[batch]
            if rng.random() < 0.5:
                chosen = np.roll(chosen, rng.integers(-3, 4, size=2), axis=(1, 2))
            weights = model.Weights(**values)
            for name, gradient in gradients(model, weights, chosen, findings[batch]).items():
                slope = gradient + 2e-4 * values[name]
                first[name] = 0.9 * first[name] + 0.1 * slope
                second[name] = 0.999 * second[name] + 0.001 * slope * slope
                move = (first[name] / (1 - 0.9**step)) / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
                values[name] = values[name] - rate * move
    return {name: rounded(value) for name, value in values.items()}


def gradients(model: ModuleType, weights: Any, images: FloatArray, findings: FloatArray) -> dict[str, FloatArray]:
    """The slope of the mean cross-entropy for each of the network's arrays."""
    seen = model.forward(weights, images)
    cases = len(images)
    logits = (1 / (1 + np.exp(-seen.logits)) - findings) / cases
    pooled = (logits[:, None] * weights.output).reshape(cases, model.REGIONS, 1, model.REGIONS, 1, -1)

    answers = model.regions(seen.second)
    strongest = answers == answers.max(axis=(2, 4), keepdims=True)
    second = (strongest * pooled).reshape(seen.second.shape) * (seen.second > 0)

    size, side = model.SECOND_SIZE, seen.second.shape[1]
    spread = (second @ weights.second_filters.T).reshape(cases, side, side, -1, size, size)
    halved = np.zeros((cases, side + size - 1, side + size - 1, model.FIRST_FILTERS))
    for row in range(size):
        for column in range(size):
            halved[:, row : row + side, column : column + side] += spread[..., row, column]

    squares = model.halve(seen.first)
    largest = squares == squares.max(axis=(2, 4), keepdims=True)
    first = (largest * halved[:, :, None, :, None]).reshape(seen.first.shape) * (seen.first > 0)
    return {
        "first_filters": np.tensordot(seen.first_patches, first, axes=((0, 1, 2), (0, 1, 2))),
        "first_bias": first.sum(axis=(0, 1, 2)),
        "second_filters": np.tensordot(seen.second_patches, second, axes=((0, 1, 2), (0, 1, 2))),
        "second_bias": second.sum(axis=(0, 1, 2)),
        "output": seen.pooled.T @ logits,
        "output_bias": logits.sum(keepdims=True),
    }


if __name__ == "__main__":
    main()
