"""Packs a folder into an archive whose bytes depend on the files alone: it is registered by its hash."""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import IO

SKIPPED = {"__pycache__"}  # what Python leaves beside code that was run
STORED_BLOCK_LIMIT = 65_535  # bytes, by RFC 1951


def pack(folder: Path, destination: Path) -> str:
    """Pack all files below a folder, named relative to it, into `destination` (.tar.gz); its SHA-256 in hex.

    Sorted, without times, owners and links, and always with the modes 0644 and 0755, so that the same files
    give the same archive on every machine. `destination` is written whole or not at all, in the place of what is
    there. Raises `NotADirectoryError` where there is no folder, and `ValueError` for links, special files, a
    folder without files, and a destination inside the folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    if destination.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{destination} is inside {folder}: the archive would have to hold itself")
    descriptor, name = tempfile.mkstemp(prefix=f".{destination.name}.", dir=destination.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            stream = _StoredGzip(file)
            _pack(folder, stream)
            stream.close()
            file.flush()
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o644)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def _pack(folder: Path, stream: _StoredGzip) -> None:
    files = 0
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
            relative = path.relative_to(folder)
            if SKIPPED & set(relative.parts):
                continue
            entry = tarfile.TarInfo(relative.as_posix())
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ValueError(f"{path} is neither a file nor a folder")
            if path.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                with path.open("rb") as content:
                    entry.mode, entry.size = 0o644, os.fstat(content.fileno()).st_size
                    archive.addfile(entry, content)
                files += 1
    if not files:
        raise ValueError(f"{folder} holds no files")


class _StoredGzip:
    """Writes a gzip file (RFC 1952) of stored blocks, without name and time.

    Put together here because the bytes that a compressor makes depend on its version.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._waiting = bytearray()
        self._checksum = 0
        self._size = 0
        file.write(b"\x1f\x8b\x08\0" + bytes(5) + b"\xff")

    def write(self, data: bytes) -> int:
        """Take what follows; the last block stays here, since only the end says that it is the last."""
        self._checksum = zlib.crc32(data, self._checksum)
        self._size += len(data)
        self._waiting += data
        while len(self._waiting) > STORED_BLOCK_LIMIT:
            self._block(is_last=False)
        return len(data)

    def close(self) -> None:
        """Write the last block and the ending."""
        self._block(is_last=True)
        self._file.write(struct.pack("<II", self._checksum, self._size & 0xFFFFFFFF))

    def _block(self, *, is_last: bool) -> None:
        block = bytes(self._waiting[:STORED_BLOCK_LIMIT])
        del self._waiting[:STORED_BLOCK_LIMIT]
        self._file.write(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)
