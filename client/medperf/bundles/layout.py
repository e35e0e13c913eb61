"""What a bundle is: a folder, or a tar of it, whose one manifest names every file by its SHA-256."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import shutil
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from medperf.errors import IntegrityError, UsageError
from medperf.files import partial_file
from medperf_contracts.values import Id, Instant, Sha256

MANIFEST = "bundle.json"
ANSWERS, ASSETS, IMAGES, PACKAGES = "answers", "assets", "images", "packages"
# A benchmark has some models of some files each, and a few hundred wheels.
FILES_MOST = 20_000
# Larger than any disk that is carried about; what a disk has room for is less.
BYTES_MOST = 16 * 2**40
_MANIFEST_BYTES_MOST = 8 * 1024**2
_CHUNK_BYTES = 1024**2
_ANSWER = r"[a-z]+(/[a-z0-9-]+)?\.json"
_PATH = re.compile(
    rf"{ANSWERS}/{_ANSWER}|{ASSETS}/[0-9a-f]{{64}}|{IMAGES}/[0-9a-f]{{64}}\.tar|{PACKAGES}/[A-Za-z0-9_.+!-]{{1,200}}\.whl",
    re.ASCII,
)
_AGAIN = "Copy it to the stick again; where that does not help, have it made again (medperf bundle export)."

FilePath = Annotated[str, StringConstraints(pattern=_PATH, max_length=255)]


class BundledFile(BaseModel):
    """A file of a bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: FilePath
    size: int = Field(ge=0)
    sha256: Sha256


class Maker(BaseModel):
    """Who made a bundle, by the server's ID and name of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Id
    username: str


class Bundle(BaseModel):
    """A bundle's manifest: of which server's benchmark, perhaps for one registered dataset, when and by whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    server: str
    made_at: Instant
    made_by: Maker
    benchmark_id: Id
    benchmark_name: str
    dataset_id: Id | None = None
    files: tuple[BundledFile, ...] = Field(max_length=FILES_MOST)

    @model_validator(mode="after")
    def _each_file_once(self) -> Bundle:
        if len({file.path for file in self.files}) != len(self.files):
            raise ValueError("names a file twice")
        return self

    def text(self) -> str:
        """The manifest as it is written."""
        return self.model_dump_json(indent=1) + "\n"


def fingerprint(folder: Path) -> str:
    """The SHA-256 of a bundle's manifest, which names it with all that is in it."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def described(folder: Path) -> tuple[BundledFile, ...]:
    """Every file of a folder, as a manifest names it."""
    return tuple(
        BundledFile(path=path, size=(folder / path).stat().st_size, sha256=sha256_of(folder / path))
        for path in sorted(files_of(folder))
    )


def read_bundle(folder: Path, *, name: str) -> Bundle:
    """A bundle's manifest, once every file was found to be what it says.

    UsageError where it is no bundle, IntegrityError, naming the file, where one is missing, is another, or is not
    in the manifest.
    """
    bundle = read_manifest(folder, name)
    found = set(files_of(folder)) - {MANIFEST}
    listed = {file.path: file for file in bundle.files}
    for path in sorted(found ^ set(listed)):
        fault = "is missing" if path in listed else "is not in its manifest"
        raise IntegrityError(f"The bundle {name} is not whole: {path} {fault}.", hint=_AGAIN)
    for file in bundle.files:
        # The size first: it costs nothing, and is what a copy that was cut short has wrong.
        on_disk = folder / file.path
        if on_disk.stat().st_size != file.size or sha256_of(on_disk) != file.sha256:
            raise IntegrityError(
                f"The bundle {name} is damaged: {file.path} is not what its manifest says.", hint=_AGAIN
            )
    return bundle


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_tar(folder: Path, target: Path) -> None:
    """A bundle's folder as one file, which appears whole or not at all; its bytes depend on the content alone."""
    with partial_file(target, mode=0o644) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for path in [MANIFEST, *sorted(set(files_of(folder)) - {MANIFEST})]:
            entry = tarfile.TarInfo(path)
            entry.size = (folder / path).stat().st_size
            entry.mode = 0o644
            with (folder / path).open("rb") as content:
                archive.addfile(entry, content)


def copy_bundle(folder: Path, target: Path) -> None:
    """A bundle's files as the new folder `target`; without their modes, which a stick may not have."""
    for path in files_of(folder):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target / path)


def read_manifest(folder: Path, name: str) -> Bundle:
    """A bundle's manifest as it stands, its files not looked at yet."""
    file = folder / MANIFEST
    try:
        if file.stat().st_size > _MANIFEST_BYTES_MOST:
            raise ValueError("it is too large")
        return Bundle.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(
            f"{name} is no bundle: it has no {MANIFEST}.",
            hint="Give the file or the folder that `medperf bundle export` made.",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise IntegrityError(
            f"The manifest of the bundle {name} cannot be used: {where} {first['msg']}.", hint=_AGAIN
        ) from error
    except ValueError as error:
        raise IntegrityError(f"The manifest of the bundle {name} cannot be used: {error}.", hint=_AGAIN) from error


def files_of(folder: Path) -> Iterator[str]:
    """The paths of the files in a folder, relative to it; IntegrityError for what is no file or folder."""
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(root, name)
            relative = posixpath.join(*path.relative_to(folder).parts)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise IntegrityError(f"The bundle holds {relative!r}, which is no file.", hint=_AGAIN)
            if path.is_file():
                yield relative


def stamp(instant: datetime) -> str:
    """When a bundle was made, as a person reads it."""
    return f"{instant:%Y-%m-%d %H:%M} UTC"
