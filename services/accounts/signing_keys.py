"""The keys of the access tokens: a file of private ones, of which the first signs, and a file of public ones.

A deployment has the key that will sign next among its public ones long before it does: a key can be renewed in any
order of the processes, and no login is refused meanwhile.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from joserfc.jwk import KeySet, OKPKey


def new_key() -> OKPKey:
    """A new Ed25519 key pair."""
    return OKPKey.generate_key("Ed25519", auto_kid=True)


def as_document(keys: Sequence[OKPKey], *, private: bool) -> str:
    """The keys as a file holds them (RFC 7517, section 5)."""
    return json.dumps({"keys": [key.as_dict(private=private) for key in keys]})


def create_signing_key(path: Path) -> None:
    """Write a new key pair, readable by its owner only; an existing one stays."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # of a process that ended here, and had the same number
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(as_document([new_key()], private=True))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # where a key is: two starting processes agree on one
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)


def signing_key(path: Path) -> OKPKey:
    """The private key that signs now."""
    return keys_in(path)[0]


def public_keys(path: Path) -> KeySet:
    """The public parts of the file's keys; read again where the file was replaced."""
    return _public(*_state(path))


def keys_in(path: Path) -> tuple[OKPKey, ...]:
    """The file's keys; read again where the file was replaced."""
    return _read(*_state(path))


def _state(path: Path) -> tuple[Path, int, int]:
    found = path.stat()
    return path, found.st_ino, found.st_mtime_ns


# Every request of every service asks for them.
@lru_cache(maxsize=16)
def _public(path: Path, inode: int, modified_ns: int) -> KeySet:
    return KeySet([OKPKey.import_key(key.as_dict(private=False)) for key in _read(path, inode, modified_ns)])


@lru_cache(maxsize=16)
def _read(path: Path, inode: int, modified_ns: int) -> tuple[OKPKey, ...]:
    document: dict[str, Any] = json.loads(path.read_text())
    return tuple(OKPKey.import_key(key) for key in document.get("keys", [document]))
