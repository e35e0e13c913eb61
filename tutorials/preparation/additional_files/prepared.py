"""The prepared dataset: read it back, and the task `sanity_check`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from failure import Failure, refuse
from labels import FILE_NAME, read_labels
from numpy.typing import NDArray
from parameters import Parameters

SUFFIX = ".pgm"


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """The pixels of one case, `size` × `size`; a `Failure` if the file is anything else."""
    header = f"P5\n{size} {size}\n255\n".encode()
    content = path.read_bytes()
    if not content.startswith(header) or len(content) != len(header) + size * size:
        raise Failure(f"is not a grey image of {size}x{size} bytes")
    return np.frombuffer(content, dtype=np.uint8, offset=len(header)).reshape(size, size)


def read_images(data: Path, size: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each case and its pixels, sorted by case."""
    for path in sorted(data.glob(f"*{SUFFIX}")):
        yield path.stem, read_image(path, size)


def check(data: Path, labels: Path, parameters: Parameters) -> None:
    """Refuse a prepared dataset that a model or the metrics could not use, naming every file that is wrong."""
    refuse(
        [f"{path.name!r} is not a prepared image" for path in sorted(data.iterdir()) if not _is_image(path)]
        + [f"{path.name!r} is not {FILE_NAME}" for path in sorted(labels.iterdir()) if path.name != FILE_NAME],
        "unknown files",
    )
    findings = read_labels(labels, "case")
    problems = []
    cases = set()
    for path in sorted(data.iterdir()):
        cases.add(path.stem)
        try:
            pixels = read_image(path, parameters.image_size)
        except Failure as failure:
            problems.append(f"{path.name!r} {failure}")
            continue
        # Scaling down averages neighbours, so the ends of the range need not be reached; a flat image is a fault.
        if int(pixels.max()) - int(pixels.min()) < 32:
            problems.append(f"{path.name!r} has no contrast")
    problems += [f"case {case!r} has a label but no image" for case in sorted(findings.keys() - cases)]
    problems += [f"case {case!r} has an image but no label" for case in sorted(cases - findings.keys())]
    refuse(problems, "the prepared data is not sound")
    for finding in (0, 1):
        if finding not in findings.values():
            raise Failure(f"no case has the finding {finding}; the metrics need at least one of each")
    print(f"sanity_check: {len(cases)} cases are sound", flush=True)


def _is_image(path: Path) -> bool:
    return path.suffix == SUFFIX and path.is_file() and not path.is_symlink()
