"""The file in which a store's whole content travels: a tar of JSON lines and assets, each with its hash."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medperf_contracts.values import Instant, Sha256
from services.operator_error import OperatorError

FORMAT = 1
MANIFEST = "manifest.json"
_MANIFEST_BYTES_MOST = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_HINT = "Bring the file again, or make another: medperf-server export FILE"
# A file's path under the assets' folder: no part is hidden, none leads out of it.
_ASSET = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}(/[A-Za-z0-9][A-Za-z0-9._-]{0,254}){0,7}$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilePart(_Part):
    """A file in the archive."""

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class TablePart(FilePart):
    """A table's rows."""

    rows: Annotated[int, Field(ge=0)]


class ServicePart(_Part):
    """A service's database: its schema's revision, and its tables."""

    revision: str
    tables: dict[str, TablePart]


class Manifest(_Part):
    """What the archive holds."""

    format: int
    made_by: str
    """The version of the software."""
    made_at: Instant
    services: dict[str, ServicePart]
    assets: dict[Annotated[str, Field(pattern=_ASSET)], FilePart]

    def files(self) -> dict[str, FilePart]:
        """Every file beside the manifest, by its name."""
        tables = {
            table_name(service, table): part
            for service, of_service in self.services.items()
            for table, part in of_service.tables.items()
        }
        return tables | {asset_name(asset): part for asset, part in self.assets.items()}

    @property
    def rows(self) -> int:
        """Of all tables."""
        return sum(part.rows for service in self.services.values() for part in service.tables.values())


def is_asset(name: str) -> bool:
    """Whether a file may be carried under that path."""
    return re.match(_ASSET, name) is not None


def table_name(service: str, table: str) -> str:
    """Where a table's rows are in the archive."""
    return f"tables/{service}/{table}.jsonl"


def asset_name(asset: str) -> str:
    """Where an asset is in the archive."""
    return f"assets/{asset}"


def write(file: Path, manifest: Manifest, contents: Mapping[str, Path]) -> None:
    """Make the archive, readable by its owner only: whole, or not at all. What is there is never replaced."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as target:
            with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
                text = manifest.model_dump_json(indent=1).encode()
                tar.addfile(_entry(MANIFEST, len(text)), io.BytesIO(text))
                for name, path in contents.items():
                    with path.open("rb") as content:
                        tar.addfile(_entry(name, os.fstat(content.fileno()).st_size), content)
            target.flush()
            os.fsync(descriptor)
        try:
            os.link(partial, file)
        except FileExistsError:
            raise there_already(file) from None
    finally:
        partial.unlink(missing_ok=True)


def there_already(file: Path) -> OperatorError:
    """An export replaces nothing."""
    return OperatorError(f"{file} is there already; nothing was written.", hint="Name another file.")


class Archive:
    """An archive whose every file is what its manifest says."""

    def __init__(self, tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], manifest: Manifest) -> None:
        self._tar = tar
        self._members = members
        self.manifest = manifest

    @contextmanager
    def file(self, name: str) -> Iterator[IO[bytes]]:
        """One of its files."""
        content = self._tar.extractfile(self._members[name])
        if content is None:
            raise damaged(f"{name} is no file")
        with content:
            yield content


@contextmanager
def opened(file: Path) -> Iterator[Archive]:
    """The archive, checked whole before anything is taken from it; `OperatorError` where it is not as made."""
    try:
        with tarfile.open(file, mode="r:") as tar:
            first = tar.next()
            manifest = _manifest(tar, first)
            members = _members(tar, manifest)
            archive = Archive(tar, members, manifest)
            for name, part in manifest.files().items():
                _check(archive, name, part)
            yield archive
    except tarfile.TarError as error:
        raise damaged(str(error)) from None


def damaged(why: str) -> OperatorError:
    """The archive cannot be used."""
    return OperatorError(f"This is no whole archive of a store: {why}. Nothing was changed.", hint=_HINT)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry


def _manifest(tar: tarfile.TarFile, first: tarfile.TarInfo | None) -> Manifest:
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > _MANIFEST_BYTES_MOST:
        raise damaged(f"it does not begin with {MANIFEST}")
    content = tar.extractfile(first)
    try:
        manifest = Manifest.model_validate_json(content.read() if content else b"")
    except ValidationError as error:
        raise damaged(f"its {MANIFEST} cannot be read ({error.error_count()} problems)") from None
    if manifest.format != FORMAT:
        raise OperatorError(
            f"The archive has format {manifest.format}, made by version {manifest.made_by}; this version reads "
            f"format {FORMAT}. Nothing was changed.",
            hint="Import it with the version that made it.",
        )
    return manifest


def _members(tar: tarfile.TarFile, manifest: Manifest) -> dict[str, tarfile.TarInfo]:
    members: dict[str, tarfile.TarInfo] = {}
    expected = manifest.files()
    while (member := tar.next()) is not None:
        if member.name not in expected or member.name in members or not member.isreg():
            raise damaged(f"it holds {member.name!r}, which its {MANIFEST} does not name as a file, or twice")
        if member.size != expected[member.name].size:
            raise damaged(f"{member.name} is not as long as it was")
        members[member.name] = member
    missing = sorted(expected.keys() - members.keys())
    if missing:
        raise damaged(f"{missing[0]} is missing")
    return members


def _check(archive: Archive, name: str, part: FilePart) -> None:
    hasher = hashlib.sha256()
    with archive.file(name) as content:
        while chunk := content.read(_CHUNK_BYTES):
            hasher.update(chunk)
    if hasher.hexdigest() != part.sha256:
        raise damaged(f"{name} is not what it was")
