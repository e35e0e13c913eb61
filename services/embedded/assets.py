"""Files that an operator adds to those the embedded server gives out: archives of containers, demo data."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from services.gateway.routes import ASSETS

from .store import Store, StoreError

_CHUNK_BYTES = 1024 * 1024
# What a file's name may end with, such as `.tar.gz`; the rest of its name is not taken over.
_SUFFIXES = re.compile(r"(\.[A-Za-z][A-Za-z0-9]{0,7}){1,2}$")


@dataclass(frozen=True)
class Asset:
    """A file that is given out: its path at the gateway, and its SHA-256 in hex."""

    url: str
    sha256: str


def add_asset(store: Store, file: Path) -> Asset:
    """Give out a copy of a file under the name of its content; the same file again changes nothing.

    Works beside a running server, and on a store that none runs on. StoreError where the file cannot be read or
    kept, and where another content has that name.
    """
    try:
        store.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        store.assets.mkdir(exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".new-", dir=store.assets)
        partial = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as copy, file.open("rb") as original:
                hasher = hashlib.sha256()
                while chunk := original.read(_CHUNK_BYTES):
                    hasher.update(chunk)
                    copy.write(chunk)
                copy.flush()
                os.fsync(descriptor)
            digest = hasher.hexdigest()
            suffixes = _SUFFIXES.search(file.name)
            kept = store.assets / f"{digest}{suffixes[0].lower() if suffixes else ''}"
            _put(partial, kept, digest)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{file} cannot be added to {store.assets}: {error.strerror}.",
            hint="Mend the permissions or make space, then run it again; nothing was added.",
        ) from None
    return Asset(f"{ASSETS}/{kept.name}", digest)


def _put(partial: Path, kept: Path, digest: str) -> None:
    """Give the copy its name, unless that is taken: a registered hash must go on meaning the same bytes."""
    try:
        os.link(partial, kept)
    except FileExistsError:
        with kept.open("rb") as there:
            if hashlib.file_digest(there, "sha256").hexdigest() == digest:
                return
        raise StoreError(
            f"{kept} is there already, with another content than its name says.",
            hint="It was damaged or altered: remove it, then add the file again.",
        ) from None
    folder = os.open(kept.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
