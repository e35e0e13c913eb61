"""The task `prepare`: from a site's images and labels to cases that the models read.

A case is named after its image without the ending. Its image is a binary PGM file: a header of one form and the
bytes of the pixels, nothing that differs between machines or times, so the same data always has the same hash.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from failure import Failure, refuse
from labels import FILE_NAME, read_labels, write_labels
from normalise import normalise
from parameters import Parameters

PROGRESS_EVERY = 40


def prepare(data: Path, labels: Path, parameters: Parameters, output: Path, output_labels: Path) -> None:
    """Check images and labels against each other, then write `output/*.pgm` and `output_labels/labels.csv`."""
    findings = read_labels(labels, "image")
    images = _list_images(data, labels)
    _check_agreement(images, findings)
    output.mkdir(parents=True, exist_ok=True)
    output_labels.mkdir(parents=True, exist_ok=True)
    problems = []
    for number, name in enumerate(sorted(images), start=1):
        try:
            pixels = normalise(images[name], parameters)
        except Failure as failure:
            problems.append(f"{name!r} {failure}")
        else:
            height, width = pixels.shape
            header = f"P5\n{width} {height}\n255\n".encode()
            (output / f"{_case(name)}.pgm").write_bytes(header + pixels.tobytes())
        if number % PROGRESS_EVERY == 0 or number == len(images):
            print(f"prepare: {number}/{len(images)} images", flush=True)
    refuse(problems, "images")
    write_labels(output_labels, {_case(name): finding for name, finding in findings.items()})


def _case(image_name: str) -> str:
    return Path(image_name).stem


def _list_images(data: Path, labels: Path) -> dict[str, Path]:
    """The images by name. Hidden files are left out, and so is the labels file if both folders are one."""
    labels_file = (labels / FILE_NAME).resolve()
    found = [path for path in data.iterdir() if not path.name.startswith(".") and path.resolve() != labels_file]
    if not found:
        raise Failure("the data folder holds no images")
    refuse([f"{path.name!r} is not a file" for path in sorted(found) if not path.is_file()], "images")
    images: dict[str, Path] = {}
    cases: dict[str, str] = {}
    problems = []
    for path in sorted(found):
        name = unicodedata.normalize("NFC", path.name)
        if not name.isprintable():
            problems.append(f"{name!r} has a character in its name that cannot be printed")
        elif _case(name) in cases:
            problems.append(f"{name!r} and {cases[_case(name)]!r} have the same name but for the ending")
        cases[_case(name)] = name
        images[name] = path
    refuse(problems, "images")
    return images


def _check_agreement(images: dict[str, Path], findings: dict[str, int]) -> None:
    problems = [f"{name!r} has a label but no image" for name in sorted(findings.keys() - images.keys())]
    problems += [f"{name!r} has an image but no label" for name in sorted(images.keys() - findings.keys())]
    refuse(problems, "images and labels do not match")
