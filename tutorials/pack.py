"""Packs the folders of the tutorial into archives whose bytes depend on the files alone."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import zlib
from pathlib import Path

SKIPPED = {"__pycache__"}  # what Python leaves beside code that was run
STORED_BLOCK_LIMIT = 65_535  # bytes, by RFC 1951


def pack(folder: Path, destination: Path) -> str:
    """Pack all files below a folder, named relative to it, into `destination` (.tar.gz); its SHA-256 in hex.

    Sorted, without times, owners and links, and always with the modes 0644 and 0755, so that the same files give
    the same archive on every machine. Raises `NotADirectoryError` where there is no folder, and `ValueError` for
    links, special files, and a folder without files.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    files = 0
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
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
                content = path.read_bytes()
                entry.mode, entry.size = 0o644, len(content)
                archive.addfile(entry, io.BytesIO(content))
                files += 1
    if not files:
        raise ValueError(f"{folder} holds no files")
    packed = _gzip_stored(plain.getvalue())
    destination.write_bytes(packed)
    return hashlib.sha256(packed).hexdigest()


def _gzip_stored(content: bytes) -> bytes:
    """A gzip file (RFC 1952) of stored blocks, without name and time.

    Put together here because the bytes that a compressor makes depend on its version.
    """
    blocks = []
    for start in range(0, len(content), STORED_BLOCK_LIMIT):
        block = content[start : start + STORED_BLOCK_LIMIT]
        is_last = start + len(block) == len(content)
        blocks.append(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)
    ending = struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\0" + bytes(5) + b"\xff" + b"".join(blocks) + ending
