"""Registered files (additional files, demo data): fetched by URL, named and checked by their SHA-256."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from medperf.errors import IntegrityError
from medperf.files import locked, make_private_folder, partial_file, write_atomically
from medperf.identity import hash_folders
from medperf.parts import Part

# A second process waits for the first one's download; one that takes longer than this is not waited for.
_WAIT_SECONDS = 3600.0
CONTENT = "content"
# Holds the BLAKE3 of the content; its time says when it was last used.
SEAL = "blake3"
PARTS = "parts"

# Given a URL and what takes the bytes, streams what is behind the URL; to a `Part`, the rest of it.
Download = Callable[[str, Callable[[bytes], object]], object]


class Assets:
    """The store of fetched files: `ROOT/sha256/HASH`, by content, so that a name is a promise."""

    def __init__(self, root: Path, download: Download, *, on_wait: Callable[[str], object] | None = None) -> None:
        """`on_wait` is told where another command fetches the same file, which is waited for."""
        self.root = root
        self._on_wait = on_wait
        self._files = root / "sha256"
        self._locks = root / "locks"
        self._download = download

    def fetch(self, url: str, sha256: str) -> Path:
        """The file with this hash, downloaded where it is not there or is damaged.

        Raises IntegrityError, and keeps nothing, where the URL gives another file.
        """
        file = self._files / sha256
        for folder in (self._files, self._locks):
            make_private_folder(folder)
        with self._alone(sha256, f"the download of {url}"):
            if not file.exists() or _sha256(file) != sha256:
                self._get(url, sha256, file)
            os.utime(file)  # that it is used
        return file

    def has(self, sha256: str) -> bool:
        """Whether the file with this hash is here and is not damaged."""
        return self.is_here(sha256) and self.is_intact_file(self.place(sha256))

    def is_here(self, sha256: str) -> bool:
        """Whether a file is kept under this hash, damaged or not."""
        return self.place(sha256).is_file()

    @staticmethod
    def is_intact_file(file: Path) -> bool:
        """Whether a kept file is what its name says."""
        return _sha256(file) == file.name

    def place(self, sha256: str) -> Path:
        """Where the file with this hash is kept."""
        return self._files / sha256

    def keep(self, file: Path, sha256: str) -> None:
        """Keep a file that came another way under its hash, which was checked; it may be taken from its place."""
        for folder in (self._files, self._locks):
            make_private_folder(folder)
        with self._alone(sha256, f"the file {sha256}"):
            if not self.has(sha256):
                file.replace(self.place(sha256))
            os.utime(self.place(sha256))

    def fetch_new(self, url: str) -> tuple[Path, str]:
        """The file behind a URL whose hash is not registered, fetched in any case, and its SHA-256."""
        for folder in (self._files, self._locks):
            make_private_folder(folder)
        # One place a URL: what a command that died left of it is written over.
        name = f"new-{hashlib.sha256(url.encode()).hexdigest()}"
        with self._alone(name, f"the download of {url}"):
            with partial_file(self._files / name) as partial:
                found = self._stream(url, partial)
            return (self._files / name).replace(self._files / found), found

    def _alone(self, name: str, what: str) -> AbstractContextManager[None]:
        lock = self._locks / f"{name}.lock"
        return locked(lock, what=what, wait_seconds=_WAIT_SECONDS, on_wait=self._on_wait)

    def _get(self, url: str, sha256: str, file: Path) -> None:
        """Fetch a file, going on with what an earlier command has of it.

        What was put together of several answers and is not the file is fetched once more, from its beginning,
        before it is said to be another: it may have been replaced on the way.
        """
        with Part(self.root / PARTS, url, sha256) as part:
            self._download(url, part)
            if part.sha256 != sha256 and part.is_pieced:
                part.restart()
                self._download(url, part)
            if part.sha256 != sha256:
                raise IntegrityError(
                    f"{url} gave a file with the SHA-256 {part.sha256}, but {sha256} is registered.",
                    hint="Do not use it. Tell the owner of the container or benchmark that the file was replaced.",
                )
            part.become(file)

    def _stream(self, url: str, partial: BinaryIO) -> str:
        hasher = hashlib.sha256()

        def take(chunk: bytes) -> None:
            hasher.update(chunk)
            partial.write(chunk)

        self._download(url, take)
        return hasher.hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def sealed(folder: Path, build: Callable[[Path], None]) -> Path:
    """The folder that `build` fills, built once and kept in `folder` with the BLAKE3 of what is in it.

    What is there from before is hashed again: a folder that somebody edited, or that was built by halves, is
    built anew, so that it never runs under the registered hash.
    """
    content, seal = folder / CONTENT, folder / SEAL
    make_private_folder(folder.parent)
    with locked(folder.with_name(f"{folder.name}.lock"), what=str(folder), wait_seconds=_WAIT_SECONDS):
        if not is_intact(folder):
            shutil.rmtree(folder, ignore_errors=True)
            content.mkdir(mode=0o700, parents=True)
            build(content)
            write_atomically(seal, hash_folders({CONTENT: content}).data_hash)
        os.utime(seal)  # that it is used
    return content


def is_intact(folder: Path) -> bool:
    """Whether a sealed folder is there as it was built."""
    try:
        return hash_folders({CONTENT: folder / CONTENT}).data_hash == (folder / SEAL).read_text()
    except (OSError, IntegrityError):
        return False
