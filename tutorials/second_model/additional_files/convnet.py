"""A small convolutional network: two layers of filters, the strongest answer in each region, one output."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

FIRST_SIZE, FIRST_FILTERS = 5, 8
SECOND_SIZE, SECOND_FILTERS = 3, 16
REGIONS, REGION = 3, 4  # the second layer's 12 × 12 answers fall into 3 × 3 regions of 4 × 4

SHAPES: dict[str, tuple[int, ...]] = {
    "first_filters": (FIRST_SIZE * FIRST_SIZE, FIRST_FILTERS),
    "first_bias": (FIRST_FILTERS,),
    "second_filters": (FIRST_FILTERS * SECOND_SIZE * SECOND_SIZE, SECOND_FILTERS),
    "second_bias": (SECOND_FILTERS,),
    "output": (REGIONS * REGIONS * SECOND_FILTERS,),
    "output_bias": (1,),
}


@dataclass(frozen=True)
class Weights:
    """The network's numbers, in the shapes of `SHAPES`."""

    first_filters: FloatArray
    first_bias: FloatArray
    second_filters: FloatArray
    second_bias: FloatArray
    output: FloatArray
    output_bias: FloatArray

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Weights:
        """Weights as `train.py` wrote them; `ValueError`, `KeyError` or `TypeError` for anything else."""
        arrays = {field.name: np.array(content[field.name], dtype=np.float64) for field in fields(cls)}
        for name, shape in SHAPES.items():
            if arrays[name].shape != shape:
                raise ValueError(f"{name} is {arrays[name].shape}, not {shape}")
        return cls(**arrays)


@dataclass(frozen=True)
class Activations:
    """What each layer made of the images; training walks back through it."""

    first_patches: FloatArray  # cases × 28 × 28 × 25
    first: FloatArray  # cases × 28 × 28 × 8, before the largest of each 2 × 2 is taken
    second_patches: FloatArray  # cases × 12 × 12 × 72
    second: FloatArray  # cases × 12 × 12 × 16
    pooled: FloatArray  # cases × 144
    logits: FloatArray  # cases


def patches(maps: FloatArray, size: int) -> FloatArray:
    """Every `size` × `size` window of maps (cases × rows × columns × channels), flattened to the last axis."""
    windows = sliding_window_view(maps, (size, size), axis=(1, 2))
    return windows.reshape(*windows.shape[:3], -1)


def halve(maps: FloatArray) -> FloatArray:
    """Maps cut into 2 × 2 squares: cases × rows/2 × 2 × columns/2 × 2 × channels."""
    cases, rows, columns, channels = maps.shape
    return maps.reshape(cases, rows // 2, 2, columns // 2, 2, channels)


def regions(maps: FloatArray) -> FloatArray:
    """The second layer's maps cut into regions: cases × 3 × 4 × 3 × 4 × 16."""
    return maps.reshape(len(maps), REGIONS, REGION, REGIONS, REGION, SECOND_FILTERS)


def forward(weights: Weights, images: FloatArray) -> Activations:
    """Run the network on images (cases × 64 × 64, -0.5 to 0.5)."""
    small = images.reshape(len(images), 32, 2, 32, 2).mean(axis=(2, 4))[..., None]
    first_patches = patches(small, FIRST_SIZE)
    first = np.maximum(first_patches @ weights.first_filters + weights.first_bias, 0.0)
    second_patches = patches(halve(first).max(axis=(2, 4)), SECOND_SIZE)
    second = np.maximum(second_patches @ weights.second_filters + weights.second_bias, 0.0)
    pooled = regions(second).max(axis=(2, 4)).reshape(len(images), -1)
    logits = pooled @ weights.output + weights.output_bias[0]
    return Activations(first_patches, first, second_patches, second, pooled, logits)


def score(weights: Weights, images: FloatArray) -> FloatArray:
    """The probability of a finding for each image."""
    return np.asarray(1.0 / (1.0 + np.exp(-forward(weights, images).logits)))
