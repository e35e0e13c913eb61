"""Logistic regression on how bright the parts of the image are, and how the left differs from the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

GRID = 16  # cells a side
CELL = 4  # pixels a side of a cell
BLOCK = 4  # cells a side of a block, in which the brightest and the spread are looked for


@dataclass(frozen=True)
class Weights:
    """One coefficient a feature, for features brought to mean 0 and deviation 1."""

    mean: FloatArray
    deviation: FloatArray
    coefficients: FloatArray
    intercept: float

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Weights:
        """Weights as `train.py` wrote them; `ValueError`, `KeyError` or `TypeError` for anything else."""
        weights = cls(
            mean=np.array(content["mean"], dtype=np.float64),
            deviation=np.array(content["deviation"], dtype=np.float64),
            coefficients=np.array(content["coefficients"], dtype=np.float64),
            intercept=float(content["intercept"]),
        )
        count = features(np.zeros((1, GRID * CELL, GRID * CELL))).shape[1]
        if {weights.mean.shape, weights.deviation.shape, weights.coefficients.shape} != {(count,)}:
            raise ValueError(f"a list does not have {count} numbers")
        return weights


def features(images: FloatArray) -> FloatArray:
    """Features of images (cases × 64 × 64), cases × features."""
    cases = len(images)
    cells = images.reshape(cases, GRID, CELL, GRID, CELL).mean(axis=(2, 4))
    blocks = cells.reshape(cases, GRID // BLOCK, BLOCK, GRID // BLOCK, BLOCK)
    asymmetry = np.abs(cells - cells[:, :, ::-1])[:, :, : GRID // 2]
    pairs = asymmetry.reshape(cases, GRID // BLOCK, BLOCK, GRID // 2 // BLOCK, BLOCK)
    parts = (
        blocks.mean(axis=(2, 4)),
        blocks.max(axis=(2, 4)),
        blocks.std(axis=(2, 4)),
        pairs.max(axis=(2, 4)),
        pairs.mean(axis=(2, 4)),
    )
    return np.concatenate([part.reshape(cases, -1) for part in parts], axis=1)


def score(weights: Weights, images: FloatArray) -> FloatArray:
    """The probability of a finding for each image."""
    standard = (features(images) - weights.mean) / weights.deviation
    logits = standard @ weights.coefficients + weights.intercept
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))
