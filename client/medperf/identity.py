"""The identity of prepared data: what a dataset's generated UID is made of, and how a change is found.

One record a file, sorted by path bytes: the path as on disk under `data/` or `labels/`, NUL, the size in decimal,
NUL, the BLAKE3 of the content in hex, newline. The data hash is the BLAKE3 of the records one after the other, the
generated UID its first 40 hex digits. Names, places and times do not enter it, and empty folders do not count.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from medperf.errors import IntegrityError
from medperf.terminal import printable_path

UID_DIGITS = 40
_CHUNK_BYTES = 1024 * 1024
# An error that names more files than this helps nobody.
_NAMED_MOST = 10
_MEND = "Prepare the data again with `medperf dataset create`; the same input gives the same UID."


@dataclass(frozen=True)
class FileRecord:
    """One file of a prepared dataset: its path (`data/…` or `labels/…`), size in bytes and BLAKE3 in hex."""

    path: bytes
    size: int
    content_hash: str

    def __bytes__(self) -> bytes:
        return b"%s\0%d\0%s\n" % (self.path, self.size, self.content_hash.encode())


@dataclass(frozen=True)
class Identity:
    """The whole hash of prepared data (64 hex digits) and the records that it was made of."""

    data_hash: str
    records: tuple[FileRecord, ...]

    @property
    def uid(self) -> str:
        """The generated UID: the first 40 hex digits of the hash."""
        return self.data_hash[:UID_DIGITS]


def identify(records: Iterable[FileRecord]) -> Identity:
    """The identity that these records make, in whatever order they come."""
    ordered = tuple(sorted(records, key=lambda record: record.path))
    hasher = blake3()
    for record in ordered:
        hasher.update(bytes(record))
    return Identity(hasher.hexdigest(), ordered)


def fingerprint(path: Path) -> str:
    """A hash over the names, sizes and times of what is at `path`: an edit changes it, and nothing is read.

    For raw data, which can be too much to hash. A link counts as what it says.
    """
    hasher = blake3()
    waiting = [path.resolve()]
    while waiting:
        current = waiting.pop()
        status = current.lstat()
        hasher.update(b"%s\0%d\0%d\0" % (os.fsencode(current), status.st_size, status.st_mtime_ns))
        if stat.S_ISDIR(status.st_mode):
            waiting.extend(sorted(current.iterdir(), reverse=True))
    return hasher.hexdigest()


def hash_folders(folders: Mapping[str, Path]) -> Identity:
    """Hash the files under each folder as `NAME/path`.

    Raises IntegrityError for a folder that is missing or that is a link, for folders that hold no file at all,
    and for anything inside that is not a regular file or folder: a link could lead to data outside, or change
    without a trace.
    """
    identity = identify(record for name, folder in folders.items() for record in _records(name, folder))
    if not identity.records:
        raise IntegrityError(
            f"There is no file in {', '.join(str(folder) for folder in folders.values())}.",
            hint="Look at what the preparation wrote: prepared data cannot be empty.",
        )
    return identity


def _records(name: str, folder: Path) -> Iterator[FileRecord]:
    try:
        mode = folder.lstat().st_mode
    except OSError as error:
        raise IntegrityError(f"The folder {folder} is missing: {error.strerror}.", hint=_MEND) from error
    if not stat.S_ISDIR(mode):
        raise IntegrityError(f"{folder} is not a folder.", hint=_MEND)
    waiting = [(os.fsencode(name), os.fsencode(folder))]
    while waiting:
        prefix, place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                listed = list(entries)
        except OSError as error:
            raise _unreadable(place, error) from error
        for entry in listed:
            path = prefix + b"/" + entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append((path, entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield _record(path, entry.path)
            else:
                raise IntegrityError(
                    f"{printable_path(path)} is not a regular file.",
                    hint="Prepared data must be plain files and folders; links, devices and sockets are refused.",
                )


def _record(path: bytes, place: bytes) -> FileRecord:
    hasher = blake3()
    size = 0
    try:
        # NOFOLLOW: between the listing and here a file could have become a link.
        with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                hasher.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise _unreadable(path, error) from error
    return FileRecord(path, size, hasher.hexdigest())


def _unreadable(path: bytes, error: OSError) -> IntegrityError:
    return IntegrityError(
        f"{printable_path(path)} cannot be read: {error.strerror}.",
        hint="Check the file's permissions and the disk.",
    )


@dataclass(frozen=True)
class Difference:
    """Which files a folder's records differ in."""

    changed: tuple[bytes, ...]
    missing: tuple[bytes, ...]
    added: tuple[bytes, ...]

    def __bool__(self) -> bool:
        return bool(self.changed or self.missing or self.added)

    def __str__(self) -> str:
        parts = (("changed", self.changed), ("missing", self.missing), ("new", self.added))
        return "; ".join(f"{word}: {_some(paths)}" for word, paths in parts if paths)


def difference(recorded: tuple[FileRecord, ...], found: tuple[FileRecord, ...]) -> Difference:
    """What changed between the recorded files and those found now."""
    old = {record.path: record for record in recorded}
    new = {record.path: record for record in found}
    return Difference(
        changed=tuple(path for path in sorted(old.keys() & new.keys()) if old[path] != new[path]),
        missing=tuple(sorted(old.keys() - new.keys())),
        added=tuple(sorted(new.keys() - old.keys())),
    )


def _some(paths: tuple[bytes, ...]) -> str:
    named = ", ".join(printable_path(path) for path in paths[:_NAMED_MOST])
    more = len(paths) - _NAMED_MOST
    return f"{named} and {more} more" if more > 0 else named


def records_to_json(records: tuple[FileRecord, ...]) -> str:
    """The records as they are kept beside a dataset; a path that is no UTF-8 keeps its bytes as escapes."""
    rows = [{"path": os.fsdecode(r.path), "size": r.size, "blake3": r.content_hash} for r in records]
    return json.dumps(rows, indent=0)


def records_from_json(text: str) -> tuple[FileRecord, ...]:
    """Read what `records_to_json` wrote; ValueError, KeyError or TypeError if it is not that."""
    return tuple(FileRecord(os.fsencode(r["path"]), int(r["size"]), str(r["blake3"])) for r in json.loads(text))
