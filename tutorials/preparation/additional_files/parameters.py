"""The parameters file of this container."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import yaml
from failure import Failure


@dataclass(frozen=True)
class Parameters:
    """How images are normalised; sizes in pixels, percentiles of an image's intensities."""

    image_size: int
    minimum_size: int
    low_percentile: int
    high_percentile: int


def read_parameters(path: Path) -> Parameters:
    """Read the file; every value must be there, a whole number, and in its bounds."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Failure(f"{path.name} is not YAML: {' '.join(str(error).split())}") from error
    names = [field.name for field in fields(Parameters)]
    if not isinstance(content, dict) or sorted(map(str, content)) != sorted(names):
        raise Failure(f"{path.name} must hold exactly {', '.join(names)}")
    wrong = [name for name in names if type(content[name]) is not int]
    if wrong:
        raise Failure(f"{path.name}: {wrong[0]} must be a whole number, not {content[wrong[0]]!r}")
    parameters = Parameters(**content)
    if not 8 <= parameters.image_size <= 1024 or parameters.minimum_size < 1:
        raise Failure(f"{path.name}: image_size must be 8 to 1024, and minimum_size at least 1")
    if not 0 <= parameters.low_percentile < parameters.high_percentile <= 100:
        raise Failure(f"{path.name}: needs 0 <= low_percentile < high_percentile <= 100")
    return parameters
