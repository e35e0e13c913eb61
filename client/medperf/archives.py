"""Unpacks a tar archive that comes from elsewhere, by checks of our own.

`tarfile.data_filter` is missing from Debian 12's Python 3.11.2, so that it is not relied upon anywhere.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from medperf.errors import BadManifest
from medperf.files import naming, partial_folder

MAX_ENTRIES = 100_000
DEFAULT_LIMIT_BYTES = 4 * 1024**3
# What an archive may hold besides its files' content: headers, padding, long names. A header's length is the
# archive's own claim, and tarfile reads it into memory.
_HEADER_BYTES = 128 * 1024**2
_CHUNK_BYTES = 1024**2
# Code and weights shrink to a half or a tenth; what grows a thousandfold is made to fill a disk. Below the second
# number nothing is filled, and an archive of a few small files may be any size.
_GROWTH_MOST = 200
_GROWTH_FREE_BYTES = 64 * 1024**2
# PATH_MAX is 4096, with room for the destination.
_PATH_BYTES = 2048


def extract(archive: Path, destination: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
    """Unpack `archive` (tar, or tar in gzip, bzip2 or xz) as the new folder `destination`.

    Regular files and folders only, inside the folder, each once, at most `limit_bytes` bytes of content, nor 200
    times what the archive has, and MAX_ENTRIES entries; else BadManifest, naming the entry. Owners and modes are
    not taken over, but whether a file is executable. `destination` appears whole or not at all: unpacking happens
    in a sibling named `.NAME.partial-…`. Raises FileExistsError where `destination` is already there and not
    empty.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial_folder(destination) as partial, unpacked_stream(archive) as stream:
            whole = partial / "whole"
            whole.mkdir()
            grown = max(_GROWTH_FREE_BYTES, _GROWTH_MOST * archive.stat().st_size)
            _Unpacking(archive.name, stream, whole, min(limit_bytes, grown)).run()
            whole.chmod(0o755)
            whole.rename(destination)
    except (EOFError, OSError, tarfile.TarError, lzma.LZMAError, zlib.error) as broken:
        if isinstance(broken, OSError) and broken.errno is not None:
            raise
        raise BadManifest(
            f"The archive {archive.name} cannot be unpacked: {broken}",
            hint="It is damaged, or not a tar archive; its owner must make it again.",
        ) from broken


@contextmanager
def unpacked_stream(archive: Path) -> Iterator[IO[bytes]]:
    """The bytes of an archive without their compression (gzip, bzip2, xz, or none)."""
    with archive.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        if magic.startswith(b"\x1f\x8b"):
            yield gzip.GzipFile(fileobj=raw)  # type: ignore[misc]
        elif magic.startswith(b"BZh"):
            yield bz2.BZ2File(raw)
        elif magic.startswith(b"\xfd7zXZ\x00"):
            with lzma.LZMAFile(raw) as unpacked:
                yield unpacked
        else:
            yield raw


class BoundedStream:
    """The unpacked stream, which ends with an error where it goes on for longer than is allowed so far."""

    def __init__(self, stream: IO[bytes], refusal: BadManifest) -> None:
        self.stream = stream
        self.refusal = refusal
        self.allowed_bytes = _HEADER_BYTES

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.allowed_bytes -= len(data)
        if self.allowed_bytes < 0:
            raise self.refusal
        return data


class _Unpacking:
    def __init__(self, name: str, stream: IO[bytes], folder: Path, limit_bytes: int) -> None:
        self.name = name
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.left_bytes = limit_bytes
        # Paths so far, each with whether it is a folder; None is a folder that an entry inside it implied.
        self.seen: dict[PurePosixPath, bool | None] = {}
        self.bounded = BoundedStream(stream, self._refusal("its headers are too large"))

    def run(self) -> None:
        # Stream mode: headers are read once, in order, and nothing is kept of the whole archive.
        with tarfile.open(fileobj=self.bounded, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                archive.members = []
                self._take(archive, member)
        # The compression's checksum comes last.
        while self.bounded.read(_CHUNK_BYTES):
            pass

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._path(member.name)
        if not path.parts:
            return
        if len(self.seen) >= MAX_ENTRIES:
            raise self._refusal(f"it has more than {MAX_ENTRIES:,} entries")
        if path in self.seen and not (self.seen[path] is None and member.isdir()):
            raise self._refusal(f"{str(path)!r} is there twice")
        if any(self.seen.get(parent) is False for parent in path.parents):
            raise self._refusal(f"{str(path)!r} lies inside a file")
        for parent in path.parents:
            self.seen.setdefault(parent, None)
        self.seen[path] = member.isdir()
        target = self.folder / path
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
        elif member.isreg() and not member.issparse():
            self._write(archive, member, target)
        else:
            raise self._refusal(f"{str(path)!r} is a {_kind(member)}; only files and folders are allowed")

    def _path(self, name: str) -> PurePosixPath:
        path = PurePosixPath(name)
        if path.is_absolute():
            raise self._refusal(f"{name!r} is an absolute path")
        if ".." in path.parts:
            raise self._refusal(f"{name!r} climbs out with '..'")
        if "\0" in name:
            raise self._refusal(f"{name!r} holds a NUL")
        if len(os.fsencode(name)) > _PATH_BYTES or any(len(os.fsencode(part)) > 255 for part in path.parts):
            raise self._refusal(f"{name[:60]!r}… is longer than a file system allows")
        return path

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
        if member.size > self.left_bytes:
            raise self._refusal(f"its content is larger than {self.limit_bytes:,} bytes")
        self.left_bytes -= member.size
        self.bounded.allowed_bytes += member.size
        content = archive.extractfile(member)
        if content is None:
            raise self._refusal(f"{member.name!r} has no content")
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o755 if member.mode & 0o100 else 0o644
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with naming(target), os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file, _CHUNK_BYTES)
            if file.tell() != member.size:
                raise self._refusal(f"{member.name!r} ends early")

    def _refusal(self, fault: str) -> BadManifest:
        return BadManifest(
            f"The archive {self.name} is refused: {fault}",
            hint="Its owner must make it again, of plain files and folders with paths relative to its top.",
        )


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "link"
    if member.isdev():
        return "device or pipe"
    return "sparse file" if member.issparse() else "special entry"
