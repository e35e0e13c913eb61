"""What a server's local folder keeps that can be had again: what it is, whose, when last used, whether whole."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from medperf.assets import PARTS, SEAL, Assets, is_intact
from medperf.engines.packages import WHEELS, packages_folder
from medperf.errors import BadManifest
from medperf.files import write_atomically
from medperf.home import Home
from medperf.images import SIFS, kept_image, saved_file
from medperf.journal import Journal
from medperf.manifest import parse_manifest
from medperf.parts import kept_parts
from medperf_contracts.registry import ContainerView

_ABOUT = "about.json"
_HEX_DIGITS = 64


class Kind(StrEnum):
    """What is kept."""

    FILE = "file"
    CONTAINER = "container"
    PACKAGES = "packages"
    SIF = "image for Apptainer"
    WHEEL = "wheel"
    PART = "part of a file"


@dataclass(frozen=True)
class Kept:
    """One thing that is kept: a file, or a folder with its seal."""

    kind: Kind
    path: Path
    size_bytes: int
    used_at: datetime
    # Names of the containers that it is of, with their UIDs.
    containers: tuple[str, ...] = ()
    # Whether a run that has not ended may be using it, also one whose command has.
    is_at_work: bool = False

    @property
    def name(self) -> str:
        """What it is kept under: a hash, or a wheel's name."""
        return self.path.name

    def is_whole(self) -> bool:
        """Whether it is what was kept, hashed again."""
        if self.kind is Kind.FILE:
            return Assets.is_intact_file(self.path)
        if self.kind is Kind.PART:
            return True  # its hash says what it is once it is whole
        if self.kind is Kind.WHEEL:
            return _is_whole_archive(self.path)
        return is_intact(self.path)

    def remove(self) -> None:
        """Leave nothing of it; what had it is made or fetched again when it is needed."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


class _About(BaseModel):
    """Of a container that is laid out: who it is, and the hashes of the files that it is made of."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    name: str
    files: tuple[str, ...]


@dataclass
class _Users:
    """Which containers use what, and when each was last used."""

    names: dict[Path, list[str]] = field(default_factory=dict)
    used_at: dict[Path, datetime] = field(default_factory=dict)
    at_work: set[Path] = field(default_factory=set)

    def add(self, path: Path, name: str, used_at: datetime) -> None:
        self.names.setdefault(path, []).append(name)
        self.used_at[path] = max(used_at, self.used_at.get(path, used_at))


def note_container(folder: Path, view: ContainerView) -> None:
    """Write down beside a laid out container which it is and what it is made of, and that it is used now."""
    files = tuple(found for found in (view.additional_files_hash, view.image_hash) if found is not None)
    content = _About(id=view.id, name=view.name, files=files).model_dump_json()
    file = folder / _ABOUT
    if not file.exists() or file.read_text() != content:
        write_atomically(file, content)


def kept_things(home: Home) -> list[Kept]:
    """Everything that can be had again, by kind, the one last used first."""
    users = _users(home)
    things = [
        *_things(Kind.FILE, (home.assets / "sha256").glob("[0-9a-f]" * _HEX_DIGITS), users),
        *_things(Kind.CONTAINER, home.containers.glob("[0-9a-f]" * _HEX_DIGITS), users),
        *_things(Kind.PACKAGES, (seal.parent for seal in home.environments.glob(f"*/{SEAL}")), users),
        *_things(Kind.SIF, (seal.parent for seal in (home.root / SIFS).glob(f"*/{SEAL}")), users),
        *_things(Kind.WHEEL, (home.environments / WHEELS).glob("*.whl"), users),
        *_things(Kind.PART, iter(kept_parts(home.assets / PARTS)), users),
    ]
    return sorted(things, key=lambda kept: (list(Kind).index(kept.kind), -kept.used_at.timestamp(), kept.name))


def _things(kind: Kind, paths: Iterator[Path], users: _Users) -> Iterator[Kept]:
    for path in paths:
        used_at = max(_used_at(path), users.used_at.get(path, datetime.min.replace(tzinfo=UTC)))
        yield Kept(kind, path, _size(path), used_at, tuple(users.names.get(path, ())), path in users.at_work)


def _users(home: Home) -> _Users:
    users = _Users()
    running = _running(home)
    for folder in home.containers.glob("[0-9a-f]" * _HEX_DIGITS):
        about = _read_about(folder / _ABOUT)
        made = [*_packages(home, folder), *_sifs(home, about)]
        if folder.name in running:
            users.at_work.update((folder, *made))
        if about is None:
            continue
        name, used_at = f"{about.id} ({about.name})", _used_at(folder)
        users.add(folder, name, used_at)
        for sha256 in about.files:
            users.add(home.assets / "sha256" / sha256, name, used_at)
            # Where the image came as a file of Docker's, its hash is of the image and not of the file.
            for saved in _saved_as(home, sha256):
                users.add(home.assets / "sha256" / saved, name, used_at)
        for place in made:
            users.add(place, name, used_at)
    return users


def _running(home: Home) -> frozenset[str]:
    """The hashes of containers of which a run has not ended, as far as is known."""
    if not home.journal.exists():
        return frozenset()
    return frozenset(run.container_hash for run in Journal(home.journal).runs() if run.is_open)


def _saved_as(home: Home, image_hash: str) -> list[str]:
    found = saved_file(home.assets, image_hash)
    return [] if found is None else [found]


def _sifs(home: Home, about: _About | None) -> Iterator[Path]:
    """What was made for Apptainer of a container's image, if it was."""
    for sha256 in about.files if about is not None else ():
        yield home.root / SIFS / (kept_image(home.assets, sha256) or sha256)


def _packages(home: Home, folder: Path) -> Iterator[Path]:
    """Where the packages of a laid out container are kept, and the wheels that they are made of."""
    try:
        manifest = parse_manifest((folder / "content" / "manifest.yaml").read_bytes())
    except (OSError, BadManifest):
        return
    if manifest.sandbox is None or not manifest.sandbox.packages:
        return
    yield packages_folder(home.environments, manifest.sandbox.packages)
    for package in manifest.sandbox.packages:
        written = package.name.replace("-", "_").replace(".", "_").lower()
        for wheel in (home.environments / WHEELS).glob("*.whl"):
            name, version = wheel.name.lower().split("-")[:2]
            if (name.replace(".", "_"), version) == (written, package.version.lower()):
                yield wheel


def _read_about(file: Path) -> _About | None:
    try:
        return _About.model_validate_json(file.read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError):
        return None  # laid out by an earlier release, or damaged: whose it is, is not known


def _used_at(path: Path) -> datetime:
    """When a file or a sealed folder was last used: every use renews the time of the file, or of the seal."""
    file = path / SEAL if path.is_dir() else path
    try:
        return datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError:
        return datetime.fromtimestamp(path.lstat().st_mtime, UTC)


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(Path(root, name).lstat().st_size for root, _, names in os.walk(path) for name in names)


def _is_whole_archive(file: Path) -> bool:
    """Whether a wheel's own checksums hold; its hash is checked by pip whenever it is installed."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, zipfile.BadZipFile, RuntimeError):
        return False
