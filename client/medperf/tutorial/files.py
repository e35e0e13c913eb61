"""The tutorial's folder: made once, and known again by a marker that lists what was made."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medperf.errors import UsageError
from medperf.files import locked, naming, remove_abandoned, write_atomically
from medperf.home import base_folder, own_folder

from .phantom import make_dataset

FOLDER = "medperf_tutorial"
DATASET = "mock_chexpert"
_MARKER = ".medperf-tutorial.json"
_NAMED_MOST = 5


@dataclass(frozen=True)
class TutorialFolder:
    """A folder that `medperf tutorial data` made; `files` are those it wrote, relative to it."""

    path: Path
    files: tuple[Path, ...]
    is_whole: bool

    @property
    def files_there(self) -> int:
        """How many of the files are still there."""
        return sum((self.path / file).is_file() for file in self.files)

    @property
    def images(self) -> Path:
        """The images: the tutorial's `--data_path`."""
        return self.path / DATASET / "images"

    @property
    def labels(self) -> Path:
        """The labels: the tutorial's `--labels_path`."""
        return self.path / DATASET / "labels"

    def remove(self) -> list[Path]:
        """Remove the files that were made and the folders that this empties; what is left, if anything."""
        remove_abandoned(self.path)
        for file in self.files:
            (self.path / file).unlink(missing_ok=True)
        folders = {parent for file in self.files for parent in (self.path / file).parents if parent != self.path}
        inside = [folder for folder in folders if folder.is_relative_to(self.path) and folder.is_dir()]
        for folder in sorted(inside, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(FileNotFoundError):
                if not any(folder.iterdir()):
                    folder.rmdir()
        left = sorted(entry for entry in self.path.glob("*") if entry.name != _MARKER)
        # Last: without its marker nothing would be known as the tutorial's any more. What is left is not.
        (self.path / _MARKER).unlink(missing_ok=True)
        if not left:
            with suppress(FileNotFoundError):
                self.path.rmdir()
        return left


def find_folder(path: Path) -> TutorialFolder | None:
    """The tutorial's folder at a path; None when there is none, or one that somebody else made.

    One of that name with nothing in it is what a command left that was killed before its first mark, or after
    its last.
    """
    if path.name == FOLDER and path.is_dir() and all(_is_unwritten_mark(entry) for entry in path.iterdir()):
        return TutorialFolder(path.absolute(), (), is_whole=False)
    try:
        marker = json.loads((path / _MARKER).read_text())
        files = tuple(Path(name) for name in marker["files"])
        is_whole = bool(marker["is_whole"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if any(file.is_absolute() or ".." in file.parts for file in files):
        return None
    return TutorialFolder(path.absolute(), files, is_whole)


def _is_unwritten_mark(entry: Path) -> bool:
    return entry.name.startswith(f".{_MARKER}.")


def make_folder(path: Path) -> TutorialFolder:
    """Make the tutorial's folder with its images and labels, or raise UsageError when something is there.

    What an interrupted making left is removed first; what a person has there, never.
    """
    base = own_folder(base_folder())
    with locked(base / "tutorial.lock", what="the tutorial's files", wait_seconds=60.0):
        _remove_unfinished(path)
        try:
            path.mkdir()
        except FileExistsError as error:
            raise _is_there(path) from error
        try:
            _mark(path, [], is_whole=False)
            with naming(path / DATASET):
                make_dataset(path / DATASET)
            files = sorted(file.relative_to(path) for file in (path / DATASET).rglob("*") if file.is_file())
            _mark(path, files, is_whole=True)
        except BaseException:
            shutil.rmtree(path)
            raise
    return TutorialFolder(path.absolute(), tuple(files), is_whole=True)


def _is_there(path: Path) -> UsageError:
    if find_folder(path) is not None:
        return UsageError(
            f"{path} is there already, and is not overwritten.",
            hint="Use it as it is, remove it with `medperf tutorial clean`, or work in another folder.",
        )
    holds = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    named = ", ".join([*holds[:_NAMED_MOST], *(["…"] if len(holds) > _NAMED_MOST else [])])
    return UsageError(
        f"{path} is there already, and is not overwritten: the tutorial did not make it"
        + (f" or what it holds ({named})." if holds else "."),
        hint="Move it elsewhere, or work in another folder.",
    )


def _remove_unfinished(path: Path) -> None:
    unfinished = find_folder(path)
    if unfinished is None or unfinished.is_whole:
        return
    for name in (DATASET, f".{DATASET}.partial"):
        if (path / name).exists():
            shutil.rmtree(path / name)
    unfinished.remove()


def _mark(path: Path, files: list[Path], *, is_whole: bool) -> None:
    marker = {
        "made_by": "medperf tutorial data",
        "is_whole": is_whole,
        "files": [file.as_posix() for file in files],
    }
    write_atomically(path / _MARKER, json.dumps(marker, indent=1) + "\n", mode=0o644)
