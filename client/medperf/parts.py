"""What is here of a file that is on its way: kept until the rest comes, also from one command to the next."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from medperf.errors import ServerUnreachable
from medperf.files import make_private_folder, sync_folder

# What a person has fetched by halves and not gone on with: the oldest go. One may be 64 GiB, so that few are kept.
PARTS_MOST = 4
_KEPT_SECONDS = 7 * 24 * 3600
_CHUNK_BYTES = 1024**2
_TAG_CHARACTERS_MOST = 200
_VALIDATOR = ".validator"


class Part:
    """The beginning of the file with this hash behind a URL; takes the bytes that follow, when it is called.

    `given` is how many bytes are here, `validator` the strong validator (ETag) of what they are of, if it has one.
    Left by an error that may pass, or by a command that is ended, it stays for the next; by any other it goes.
    """

    def __init__(self, folder: Path, url: str, sha256: str) -> None:
        make_private_folder(folder)
        key = hashlib.sha256(f"{sha256} {url}".encode()).hexdigest()
        remove_old_parts(folder, besides=key)
        self._path = folder / key
        self._note = self._path.with_name(f"{key}{_VALIDATOR}")

    def __enter__(self) -> Self:
        self._file = self._claimed()
        self._hasher = hashlib.sha256()
        self.given = 0
        while chunk := self._file.read(_CHUNK_BYTES):
            self._hasher.update(chunk)
            self.given += len(chunk)
        self.is_pieced = self.given > 0
        self.validator = self._noted()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        may_go_on = isinstance(error, ServerUnreachable) or (
            error is not None and not isinstance(error, Exception)
        )
        if not may_go_on:
            self._path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self._file.close()

    def __call__(self, chunk: bytes) -> None:
        self._hasher.update(chunk)
        self._file.write(chunk)
        self.given += len(chunk)

    @property
    def sha256(self) -> str:
        """Of what is here, in hex."""
        return self._hasher.hexdigest()

    def restart(self) -> None:
        """Let go of what is here: what comes next is another file's, or begins anew."""
        self._file.seek(0)
        self._file.truncate()
        self._hasher = hashlib.sha256()
        self.given, self.is_pieced = 0, False
        self.note_validator(None)

    def note_validator(self, validator: str | None) -> None:
        """Remember of what the bytes are that come, for whoever asks for the rest."""
        self.validator = validator
        if validator is None:
            self._note.unlink(missing_ok=True)
        else:
            self._note.write_text(validator)

    def become(self, file: Path) -> None:
        """Put it in its place, whole."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._path.replace(file)
        sync_folder(file.parent)

    def _claimed(self) -> BinaryIO:
        while True:
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # somebody took it for an old one in between

    def _noted(self) -> str | None:
        with suppress(OSError, UnicodeDecodeError):
            noted = self._note.read_text()
            return noted if self.given and is_strong(noted) else None
        return None


def is_strong(tag: str) -> bool:
    """Whether an ETag says that not a byte differs (RFC 9110, section 8.8.1)."""
    is_quoted = tag.startswith('"') and tag.endswith('"') and 2 < len(tag) <= _TAG_CHARACTERS_MOST
    return is_quoted and tag.isascii() and tag.isprintable()


def kept_parts(folder: Path) -> list[Path]:
    """The files that are here in part, the one last written to first."""
    found = [path for path in folder.glob("*") if path.is_file() and not path.name.endswith(_VALIDATOR)]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def remove_old_parts(folder: Path, *, besides: str) -> None:
    """Remove what nobody went on with for a week, and all but the newest few; what is being fetched stays."""
    others = [path for path in kept_parts(folder) if path.name != besides]
    for number, path in enumerate(others, start=1):
        is_old = time.time() - path.stat().st_mtime > _KEPT_SECONDS
        if is_old or number >= PARTS_MOST:
            _remove_unless_written(path)


def _remove_unless_written(path: Path) -> None:
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        path.unlink()
        path.with_name(f"{path.name}{_VALIDATOR}").unlink(missing_ok=True)
