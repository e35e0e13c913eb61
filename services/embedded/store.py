"""The folder in which an embedded server keeps everything, and who may use it: one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medperf_contracts.access import SERVICES
from services.kernel.auth import new_operator_token
from services.operator_error import OperatorError

HOME_VARIABLE = "MEDPERF_SERVER_HOME"
LOGS_KEPT = 3
# Another command that only looks who has the store holds the lock for a moment.
_LOOKS, _LOOK_SECONDS = 10, 0.02


class StoreError(OperatorError):
    """The store cannot be used for this."""


class StoreInUse(StoreError):
    """Another process has the store."""


@dataclass(frozen=True)
class Running:
    """The server that has the store now."""

    pid: int
    url: str
    certificate: str | None
    """In PEM: the one by which it proves itself, where it serves TLS."""


@dataclass(frozen=True)
class Store:
    """The server's folder."""

    home: Path

    @classmethod
    def from_environment(cls) -> Store:
        """The folder that `MEDPERF_SERVER_HOME` names, else `~/.medperf_server`."""
        return cls(Path(os.environ.get(HOME_VARIABLE) or "~/.medperf_server").expanduser().absolute())

    @property
    def assets(self) -> Path:
        """What is served under `/assets`."""
        return self.home / "assets"

    @property
    def signing_key(self) -> Path:
        """The key pair of the access tokens."""
        return self.home / "signing_key.json"

    @property
    def operator_token(self) -> Path:
        """The token by which `medperf-server` commands prove themselves to the running server."""
        return self.home / "operator.token"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home / "server.log"

    def database(self, service: str) -> Path:
        """A service's database file."""
        return self.home / f"{service}.db"

    @property
    def _seeding(self) -> Path:
        return self.home / "seeding"

    @property
    def _lock(self) -> Path:
        return self.home / "lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Have the store alone for as long as the block runs; `StoreInUse` names who has it."""
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(
                f"Cannot keep a store in {self.home}: {error.strerror}.",
                hint=f"Make space or mend the permissions, or choose another folder with {HOME_VARIABLE}.",
            ) from None
        try:
            if not _taken(descriptor):
                running = self.running()
                who = f"process {running.pid} ({running.url})" if running else "another process"
                raise StoreInUse(
                    f"The store {self.home} is in use by {who}.",
                    hint="Stop that server first, or choose another folder with MEDPERF_SERVER_HOME.",
                )
            os.truncate(descriptor, 0)
            yield
        finally:
            os.close(descriptor)

    def announce(self, url: str, *, certificate: str | None) -> None:
        """Say in the lock who has the store and where it listens; called by the process that has it."""
        said = {"pid": os.getpid(), "url": url, "certificate": certificate}
        self._lock.write_text(json.dumps(said))

    def running(self) -> Running | None:
        """The server that has the store, if there is one and it listens already."""
        try:
            descriptor = os.open(self._lock, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                try:
                    said = json.loads(lock.read())
                    return Running(int(said["pid"]), str(said["url"]), said["certificate"])
                except (ValueError, KeyError):
                    return None  # it has the store, and does not listen yet
            return None

    def write_operator_token(self) -> str:
        """A new operator's token, readable by its owner only; returns its SHA-256."""
        token, token_hash = new_operator_token()
        self.operator_token.unlink(missing_ok=True)
        descriptor = os.open(self.operator_token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
        return token_hash

    @contextmanager
    def seeding(self) -> Iterator[uuid.UUID]:
        """The seeding at work: one that was cut off goes on under the same ID, one that was ended is forgotten."""
        try:
            seeding = uuid.UUID(self._seeding.read_text())
        except (FileNotFoundError, ValueError):
            seeding = uuid.uuid4()
            self._seeding.write_text(str(seeding))
        yield seeding
        self._seeding.unlink()

    def contents(self) -> list[Path]:
        """What a server made here: never anything else that lies in the folder."""
        databases = [
            self.home / f"{service}.db{suffix}" for service in SERVICES for suffix in ("", "-wal", "-shm")
        ]
        logs = [self.log, *(self.home / f"{self.log.name}.{number}" for number in range(1, LOGS_KEPT + 1))]
        # Whose things these are goes last: what an interrupted reset leaves never belongs to somebody new.
        candidates = [
            self.assets,
            self.operator_token,
            self._seeding,
            *logs,
            *reversed(databases),
            self.signing_key,
        ]
        return [path for path in candidates if path.exists() or path.is_symlink()]

    def empty(self) -> None:
        """Remove everything that a server made here. The store must be locked."""
        for path in self.contents():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _taken(descriptor: int) -> bool:
    """Whether the lock is now ours."""
    for _ in range(_LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_SECONDS)
        else:
            return True
    return False
