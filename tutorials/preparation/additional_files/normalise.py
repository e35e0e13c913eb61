"""One image: read it, cut it square, stretch its contrast, scale it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from failure import Failure
from numpy.typing import NDArray
from parameters import Parameters
from PIL import Image

# Grey with more than 8 bits; converting these to 8 bits cuts off what does not fit, so they are read as they are.
DEEP_GREY_MODES = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}


def normalise(path: Path, parameters: Parameters) -> NDArray[np.uint8]:
    """The image as `image_size` × `image_size` bytes, or a `Failure` that says what is wrong with it."""
    intensities = _read(path)
    height, width = intensities.shape
    if min(height, width) < parameters.minimum_size:
        raise Failure(f"is {width}x{height}, the shorter side must have {parameters.minimum_size} pixels")
    square = _centre_square(intensities)
    stretched = _stretch(square, parameters.low_percentile, parameters.high_percentile)
    size = (parameters.image_size, parameters.image_size)
    return np.asarray(Image.fromarray(stretched).resize(size, Image.Resampling.BOX))


def _read(path: Path) -> NDArray[np.float64]:
    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise Failure("holds more than one image")
            grey = image if image.mode in DEEP_GREY_MODES else image.convert("L")
            intensities = np.asarray(grey, dtype=np.float64)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise Failure("cannot be read as an image") from error
    if not np.isfinite(intensities).all():
        raise Failure("holds values that are not numbers")
    return intensities


def _centre_square(intensities: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = intensities.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return intensities[top : top + side, left : left + side]


def _stretch(intensities: NDArray[np.float64], low: int, high: int) -> NDArray[np.uint8]:
    """Intensities from the low to the high percentile (nearest rank) become 0 to 255; those beyond are cut."""
    ordered = np.sort(intensities, axis=None)
    last = ordered.size - 1
    darkest, brightest = ordered[last * low // 100], ordered[last * high // 100]
    if darkest == brightest:
        raise Failure("has no contrast")
    scaled = (np.clip(intensities, darkest, brightest) - darkest) * 255.0 / (brightest - darkest)
    return np.asarray(np.floor(scaled + 0.5), dtype=np.uint8)
